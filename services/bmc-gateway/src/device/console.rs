//! Consoles: one SSH connection for each, one writer, many readers, and a bounded memory of what was shown.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ironyard_redfish::Login;
use russh::{ChannelMsg, Disconnect};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ssh::open;
use crate::domain::console::{Entry, Filter};

/// Bytes that a console remembers, and consoles that are remembered after their last reader has gone.
pub(super) const REMEMBERED: usize = 64 << 10;
const CONSOLES: usize = 1000;
/// Longest wait for the connection and for each prompt.
pub(super) const CONNECT: Duration = Duration::from_secs(15);
/// A connection that shows nothing and is typed nothing for so long is left.
const IDLE: Duration = Duration::from_secs(3600);

/// Why there is no console.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsoleError {
    /// No connection, or it broke.
    #[error("the console does not answer: {0}")]
    Unreachable(String),
    /// The host key is not the pinned one.
    #[error("the console shows the host key {0}, not the pinned one")]
    HostKey(String),
    /// The credential was refused.
    #[error("the console refused the credential")]
    Refused,
    /// It did not show what it should.
    #[error("the console did not show {0:?} after the login")]
    NoPrompt(String),
    /// Somebody else writes.
    #[error("somebody else writes to this console")]
    Busy,
    /// Another gateway has the BMC now.
    #[error("another gateway has this BMC now; attach again")]
    Moved,
}

/// Where a console is, and how it is opened.
#[derive(Debug, Clone)]
pub struct Place {
    /// Address, resolved and checked.
    pub address: IpAddr,
    /// How it is opened.
    pub entry: Entry,
    /// Who logs in.
    pub login: Login,
    /// Fingerprint of its host key; empty: whichever comes first.
    pub host_key: String,
}

#[derive(Default)]
struct Shown {
    bytes: VecDeque<u8>,
}

impl Shown {
    fn add(&mut self, data: &[u8]) {
        self.bytes.extend(data);
        let over = self.bytes.len().saturating_sub(REMEMBERED);
        self.bytes.drain(..over);
    }
}

/// One console that is open.
#[derive(Clone)]
struct Open {
    output: broadcast::Sender<Vec<u8>>,
    input: mpsc::Sender<Vec<u8>>,
    writing: Arc<AtomicBool>,
    /// How it ended; none: it is open.
    ended: watch::Receiver<Option<ConsoleError>>,
    /// Ends it: another gateway has the BMC.
    moved: CancellationToken,
    entry: Entry,
}

/// One caller's part in a console. The console is left when the last one has gone.
pub struct Attached {
    /// What was shown before.
    pub history: Vec<u8>,
    /// What is shown from now on.
    pub output: broadcast::Receiver<Vec<u8>>,
    /// Where to write, for the one who writes.
    pub writer: Option<Writer>,
    /// How it ended.
    pub ended: watch::Receiver<Option<ConsoleError>>,
}

/// The right to write.
pub struct Writer {
    input: mpsc::Sender<Vec<u8>>,
    filter: Filter,
    writing: Arc<AtomicBool>,
}

impl Writer {
    /// Types.
    pub async fn write(&mut self, typed: &[u8]) {
        let passed = self.filter.pass(typed);
        if !passed.is_empty() {
            let _ = self.input.send(passed).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.writing.store(false, Ordering::Release);
    }
}

#[derive(Default)]
struct Known {
    open: Option<Open>,
    shown: Arc<Mutex<Shown>>,
}

/// All consoles, by BMC and system.
#[derive(Clone, Default)]
pub struct Consoles(Arc<tokio::sync::Mutex<HashMap<String, Known>>>);

impl Consoles {
    /// What a console showed lately, and whether it is open.
    pub async fn log(&self, name: &str) -> (Vec<u8>, bool) {
        let all = self.0.lock().await;
        let Some(known) = all.get(name) else { return (vec![], false) };
        let open = known.open.as_ref().is_some_and(|o| o.ended.borrow().is_none());
        (remembered(&known.shown), open)
    }

    /// Ends the consoles of BMCs that are not to be kept.
    pub async fn keep(&self, mut kept: impl FnMut(&str) -> bool) {
        for (name, known) in self.0.lock().await.iter() {
            if let Some(open) = &known.open
                && !kept(name.split('/').next().unwrap_or_default())
            {
                open.moved.cancel();
            }
        }
    }

    /// Attaches to a console; opens it for the first one. The fingerprint of its host key is told to `seen`.
    pub async fn attach(&self, name: &str, place: Place, read_only: bool) -> Result<(Attached, Option<String>), ConsoleError> {
        let mut all = self.0.lock().await;
        if all.len() >= CONSOLES && !all.contains_key(name) {
            all.retain(|_, known| known.open.as_ref().is_some_and(|o| o.ended.borrow().is_none()));
        }
        let shown = all.entry(name.to_owned()).or_default().shown.clone();
        let present = all
            .get(name)
            .and_then(|known| known.open.clone())
            .filter(|o| o.ended.borrow().is_none());
        let (open, seen) = match present {
            Some(open) => (open, None),
            None => {
                // Others are not held up by one that does not answer.
                drop(all);
                let (open, seen) = start(place, shown.clone()).await?;
                all = self.0.lock().await;
                let known = all.entry(name.to_owned()).or_default();
                // Two may have opened it at once: the first one stays, and the other is left.
                match known.open.clone().filter(|o| o.ended.borrow().is_none()) {
                    Some(first) => (first, None),
                    None => {
                        known.open = Some(open.clone());
                        (open, Some(seen))
                    }
                }
            }
        };
        let writer = match read_only {
            true => None,
            false if open.writing.swap(true, Ordering::AcqRel) => return Err(ConsoleError::Busy),
            false => Some(Writer {
                input: open.input.clone(),
                filter: Filter::new(open.entry.escape),
                writing: open.writing.clone(),
            }),
        };
        // Under the lock of what was shown, so that nothing is missed and nothing comes twice.
        let guard = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let output = open.output.subscribe();
        let history = guard.bytes.iter().copied().collect();
        drop(guard);
        let attached = Attached {
            history,
            output,
            writer,
            ended: open.ended,
        };
        Ok((attached, seen))
    }
}

fn remembered(shown: &Mutex<Shown>) -> Vec<u8> {
    let shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shown.bytes.iter().copied().collect()
}

/// Connects, logs in and opens the console, then owns it until the last reader has gone.
async fn start(place: Place, shown: Arc<Mutex<Shown>>) -> Result<(Open, String), ConsoleError> {
    let seen = Arc::new(Mutex::new(String::new()));
    let entry = place.entry;
    let opening = tokio::time::timeout(CONNECT * 3, open(&place, seen.clone()));
    let (handle, mut channel, already) = opening
        .await
        .map_err(|_| ConsoleError::Unreachable("it takes too long".to_owned()))??;
    let (output, _) = broadcast::channel(1024);
    let (input, mut typed) = mpsc::channel::<Vec<u8>>(64);
    let (end, ended) = watch::channel(None);
    let open = Open {
        output: output.clone(),
        input,
        writing: Arc::default(),
        ended,
        moved: CancellationToken::new(),
        entry,
    };
    let moved = open.moved.clone();
    let show = move |data: &[u8]| {
        let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shown.add(data);
        // Nobody may be reading.
        let _ = output.send(data.to_vec());
        output.receiver_count()
    };
    show(&already);
    tokio::spawn(async move {
        // The first reader comes a moment after this.
        let mut quiet = tokio::time::interval(Duration::from_millis(500));
        quiet.tick().await;
        let mut last = tokio::time::Instant::now();
        let mut alone = 0;
        let why = loop {
            tokio::select! {
                message = channel.wait() => match message {
                    Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                        show(&data);
                        last = tokio::time::Instant::now();
                    }
                    Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::ExitStatus { .. }) | None => {
                        break ConsoleError::Unreachable("it was closed".to_owned());
                    }
                    Some(_) => {}
                },
                Some(data) = typed.recv() => {
                    if channel.data_bytes(data).await.is_err() {
                        break ConsoleError::Unreachable("it was closed".to_owned());
                    }
                    last = tokio::time::Instant::now();
                }
                () = moved.cancelled() => break ConsoleError::Moved,
                _ = quiet.tick() => {
                    alone = if show(&[]) == 0 { alone + 1 } else { 0 };
                    if alone > 2 || last.elapsed() > IDLE {
                        break ConsoleError::Unreachable("nobody uses it".to_owned());
                    }
                }
            }
        };
        let _ = channel.data_bytes(entry.escape.to_vec()).await;
        let _ = channel.close().await;
        let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
        let _ = end.send(Some(why));
    });
    let seen = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
    Ok((open, seen))
}
