//! What is sealed: logins, and sessions that outlive their process.

use std::sync::Mutex;

use ironyard_redfish::{Login, SavedSession, SessionKeeper};
use ironyard_rpc::Fault;
use ironyard_types::Secret;

use super::Devices;
use crate::{
    store::{credential::StoredCredential, session},
    vault::Sealed,
};

impl Devices {
    /// The login of a credential.
    pub fn open_credential(&self, row: &StoredCredential) -> Result<Login, Fault> {
        let mut login = self.open_sealed(&row.name, &row.sealed)?;
        if let Some(pending) = &row.pending {
            login.pending = Some(self.open_sealed(&row.name, pending)?.password);
        }
        Ok(login)
    }

    /// The login in a sealed record of a credential.
    pub fn open_sealed(&self, name: &str, sealed: &Sealed) -> Result<Login, Fault> {
        let secret = self.vault.open_sealed(name, sealed).map_err(|e| Fault::internal(&e))?;
        let text = String::from_utf8_lossy(secret.expose());
        let (username, password) = text.split_once('\0').unwrap_or((&text, ""));
        Ok(Login {
            username: username.to_owned(),
            password: Secret::new(password.to_owned()),
            pending: None,
        })
    }

    /// Seals a login.
    pub fn seal(&self, name: &str, username: &str, password: &str) -> Result<Sealed, Fault> {
        let secret = format!("{username}\0{password}");
        self.vault.seal(name, secret.as_bytes()).map_err(|e| Fault::internal(&e))
    }

    /// The session of an earlier process with the same address, credential and trust, and the key that it is sealed with.
    pub(super) async fn saved_session(&self, uid: &str, device: &str) -> Option<(String, SavedSession)> {
        let sealed = session::get(&self.cx.db, uid, device).await.ok().flatten()?;
        let secret = self.vault.open_sealed(&format!("session/{uid}"), &sealed).ok()?;
        let text = String::from_utf8_lossy(secret.expose()).into_owned();
        let (token, location) = text.split_once('\0').unwrap_or((&text, ""));
        let location = (!location.is_empty()).then(|| location.to_owned());
        let saved = SavedSession {
            token: Secret::new(token.to_owned()),
            location,
        };
        Some((sealed.key, saved))
    }

    /// Saves sessions as they are opened and forgets them as they are ended. A session that could not be saved is one that a crash leaks. What
    /// another gateway has saved since, when the BMC became its own, is not forgotten.
    pub(super) fn keeper(&self, uid: &str, device: &str, saved: Option<String>) -> SessionKeeper {
        let (cx, vault, uid, device) = (self.cx.clone(), self.vault.clone(), uid.to_owned(), device.to_owned());
        let last = Mutex::new(saved);
        Box::new(move |session| {
            let sealed = session.and_then(|SavedSession { token, location }| {
                let text = format!("{}\0{}", token.expose(), location.unwrap_or_default());
                vault.seal(&format!("session/{uid}"), text.as_bytes()).ok()
            });
            let before = last
                .lock()
                .map(|mut last| std::mem::replace(&mut *last, sealed.as_ref().map(|s| s.key.clone())));
            let (cx, uid, device, before) = (cx.clone(), uid.clone(), device.clone(), before.ok().flatten());
            tokio::spawn(async move {
                let outcome = match (sealed, before) {
                    (Some(sealed), _) => session::put(&cx.db, &uid, &device, &sealed, cx.now()).await,
                    (None, Some(key)) => session::delete(&cx.db, &uid, &key).await,
                    (None, None) => Ok(()),
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "could not keep a session");
                }
            });
        })
    }
}
