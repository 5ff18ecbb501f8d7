//! The way into a console: SSH with a pinned host key, the login, and the commands that the family wants.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ironyard_redfish::Login;
use russh::{
    ChannelMsg,
    client::{self, Handle, KeyboardInteractiveAuthResponse},
    keys::{Algorithm, EcdsaCurve, HashAlg, PublicKeyOrCertificate},
};

use super::console::{CONNECT, ConsoleError, Place, REMEMBERED};

/// Checks the host key, and notes which one it was.
pub(super) struct HostKey {
    pinned: String,
    seen: Arc<Mutex<String>>,
}

impl client::Handler for HostKey {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        let shown = key.fingerprint(HashAlg::Sha256).to_string();
        if let Ok(mut seen) = self.seen.lock() {
            shown.clone_into(&mut seen);
        }
        Ok(self.pinned.is_empty() || self.pinned == shown)
    }
}

fn unreachable(error: &dyn std::fmt::Display) -> ConsoleError {
    ConsoleError::Unreachable(error.to_string().chars().filter(|c| !c.is_control()).take(200).collect())
}

pub(super) type Connection = (Handle<HostKey>, russh::Channel<client::Msg>, Vec<u8>);

pub(super) async fn open(place: &Place, seen: Arc<Mutex<String>>) -> Result<Connection, ConsoleError> {
    let mut config = client::Config {
        keepalive_interval: Some(Duration::from_secs(30)),
        nodelay: true,
        ..client::Config::default()
    };
    // No RSA: what there is of it in pure Rust leaks its timing.
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
    let keys = std::iter::once(Algorithm::Ed25519).chain(curves.map(|curve| Algorithm::Ecdsa { curve }));
    config.preferred.key = keys.collect::<Vec<_>>().into();
    let at = SocketAddr::new(place.address, place.entry.port);
    let host_key = HostKey {
        pinned: place.host_key.clone(),
        seen: seen.clone(),
    };
    let socket = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(at)).await;
    let socket = socket.map_err(|_| ConsoleError::Unreachable("no connection in time".to_owned()))?;
    let socket = socket.map_err(|e| unreachable(&e))?;
    let connected = client::connect_stream(Arc::new(config), socket, host_key).await;
    let mut handle = connected.map_err(|e| match e {
        russh::Error::UnknownKey => ConsoleError::HostKey(seen.lock().map(|s| s.clone()).unwrap_or_default()),
        other => unreachable(&other),
    })?;
    log_in(&mut handle, &place.login).await?;
    let channel = handle.channel_open_session().await.map_err(|e| unreachable(&e))?;
    let mut channel = channel;
    channel
        .request_pty(false, "vt100", 80, 24, 0, 0, &[])
        .await
        .map_err(|e| unreachable(&e))?;
    channel.request_shell(false).await.map_err(|e| unreachable(&e))?;
    let mut already = Vec::new();
    for (prompt, command) in place.entry.steps {
        let mut since = Vec::new();
        let shown = tokio::time::timeout(CONNECT, async {
            while !String::from_utf8_lossy(&since).contains(prompt) {
                match channel.wait().await {
                    Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => since.extend_from_slice(&data),
                    Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return false,
                    Some(_) => {}
                }
                if since.len() > REMEMBERED {
                    return false;
                }
            }
            true
        });
        if shown.await != Ok(true) {
            return Err(ConsoleError::NoPrompt((*prompt).to_owned()));
        }
        already.extend(since);
        channel.data_bytes(command.as_bytes().to_vec()).await.map_err(|e| unreachable(&e))?;
    }
    Ok((handle, channel, already))
}

/// With the password; where that is not offered, as the answer to the one question that is asked.
async fn log_in(handle: &mut Handle<HostKey>, login: &Login) -> Result<(), ConsoleError> {
    let password = || login.password.expose().clone();
    let answer = handle
        .authenticate_password(login.username.clone(), password())
        .await
        .map_err(|e| unreachable(&e))?;
    let client::AuthResult::Failure { remaining_methods, .. } = answer else {
        return Ok(());
    };
    // A second try with a password that was refused counts towards a lockout.
    if remaining_methods.contains(&russh::MethodKind::Password) || !remaining_methods.contains(&russh::MethodKind::KeyboardInteractive) {
        return Err(ConsoleError::Refused);
    }
    let mut step = handle
        .authenticate_keyboard_interactive_start(login.username.clone(), None)
        .await
        .map_err(|e| unreachable(&e))?;
    let mut told = false;
    for _ in 0..3 {
        match step {
            KeyboardInteractiveAuthResponse::Success => return Ok(()),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Err(ConsoleError::Refused),
            // One that asks again has refused it.
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } if told && !prompts.is_empty() => {
                return Err(ConsoleError::Refused);
            }
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                told |= !prompts.is_empty();
                let answers = prompts.iter().map(|_| password()).collect();
                step = handle
                    .authenticate_keyboard_interactive_respond(answers)
                    .await
                    .map_err(|e| unreachable(&e))?;
            }
        }
    }
    Err(ConsoleError::Refused)
}
