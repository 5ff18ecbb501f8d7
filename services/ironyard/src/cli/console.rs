use std::io::{IsTerminal, Read, Write};

use ironyard_proto::{
    bmc::{self, attach_request::Part},
    inventory,
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Failure;
use crate::client::Clients;

/// Ctrl-]: what leaves the console on this side.
const LEAVE: u8 = 0x1d;

/// Puts the terminal back as it was.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Attaches this terminal to the console of a server.
pub(crate) async fn run(clients: &Clients, server: &str, read_only: bool, log: bool) -> Result<(), Failure> {
    let request = inventory::GetServerRequest { name: server.to_owned() };
    let found = clients.servers.clone().get_server(request).await?.into_inner();
    let system = ironyard_peers::Gateway::system_of(&found).ok_or_else(|| Failure::other(format!("server {server} has no BMC yet")))?;
    if log {
        let request = bmc::GetConsoleLogRequest { system: Some(system) };
        let log = clients.consoles.clone().get_console_log(request).await?.into_inner();
        return std::io::stdout().write_all(&log.data).map_err(Failure::other);
    }
    let (typed, requests) = mpsc::channel(64);
    let head = bmc::AttachHead {
        system: Some(system),
        read_only,
    };
    let _ = typed
        .send(bmc::AttachRequest {
            part: Some(Part::Head(head)),
        })
        .await;
    let mut shown = clients.consoles.clone().attach(ReceiverStream::new(requests)).await?.into_inner();
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        eprintln!("attached to the console of {server}; Ctrl-] leaves");
    }
    let raw = terminal.then(Raw::enter).flatten();
    let (left, mut leaves) = mpsc::channel::<()>(1);
    if !read_only || terminal {
        // Reading a terminal blocks: a thread of its own, which ends with the process.
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(n) = std::io::stdin().read(&mut buffer) {
                let bytes = buffer.get(..n).unwrap_or_default();
                if terminal && bytes.contains(&LEAVE) {
                    let _ = left.blocking_send(());
                    return;
                }
                if n == 0 {
                    // The end of a pipe is not the end of what the console shows.
                    return;
                }
                let part = (!read_only).then(|| Part::Data(bytes.to_vec()));
                if part.is_some() && typed.blocking_send(bmc::AttachRequest { part }).is_err() {
                    return;
                }
            }
        });
    }
    let outcome = loop {
        tokio::select! {
            message = shown.message() => match message {
                Ok(Some(bmc::AttachResponse { data })) => {
                    let mut out = std::io::stdout().lock();
                    if out.write_all(&data).and_then(|()| out.flush()).is_err() {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(status.into()),
            },
            Some(()) = leaves.recv() => break Ok(()),
            _ = tokio::signal::ctrl_c(), if !terminal => break Ok(()),
        }
    };
    drop(raw);
    if terminal {
        eprintln!("\nleft the console of {server}");
    }
    outcome
}
