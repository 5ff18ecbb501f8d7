//! What is sealed: logins, and sessions that outlive their process.

use std::sync::{Arc, Mutex};

use ironyard_redfish::{Login, SavedSession};
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason};
use ironyard_types::Secret;

use super::Devices;
use crate::{
    store::{
        credential::{self, StoredCredential},
        session,
    },
    vault::{Sealed, Vault},
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

    /// Id of the key that seals.
    pub fn sealing_key_id(&self) -> &str {
        self.vault.key_id()
    }

    /// Seals every credential and session under the present key that is not; how many were, and how many are so already. Those that cannot be opened
    /// do not keep the others from it: the first of them is told.
    pub async fn rewrap(&self) -> Result<(usize, usize), Fault> {
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let (mut done, mut already, mut missing) = (0, 0, None);
        let mut count = |outcome: Result<bool, Fault>| match outcome {
            Ok(true) => done += 1,
            Ok(false) => already += 1,
            Err(fault) => missing = missing.take().or(Some(fault)),
        };
        for row in credential::list(&self.cx.db).await.map_err(store)? {
            count(self.rewrap_credential(row).await);
        }
        for (uid, sealed) in session::list(&self.cx.db).await.map_err(store)? {
            match self.vault.rewrap(&format!("session/{uid}"), &sealed) {
                Ok(Some(new)) => count(
                    session::replace(&self.cx.db, &uid, &sealed.secret, &new, self.cx.now())
                        .await
                        .map_err(store),
                ),
                Ok(None) => count(Ok(false)),
                // It is opened anew when it is needed.
                Err(_) => {}
            }
        }
        match missing {
            Some(fault) => Err(fault),
            None => Ok((done, already)),
        }
    }

    async fn rewrap_credential(&self, mut row: StoredCredential) -> Result<bool, Fault> {
        let name = row.name.clone();
        let mut changed = false;
        // Whoever writes it meanwhile seals under the present key, or moves what is sealed: it is read again until nothing is left.
        loop {
            let mut left = None;
            for sealed in [Some(&row.sealed), row.pending.as_ref(), row.set.as_ref()].into_iter().flatten() {
                let missing = |e| Fault::new(Reason::SealingKeyMissing, format!("credential {name}: {e}"));
                if let Some(new) = self.vault.rewrap(&name, sealed).map_err(missing)? {
                    left = Some((sealed.key.clone(), new));
                }
            }
            let Some((before, new)) = left else { return Ok(changed) };
            let store = |e: ironyard_db::Error| Fault::internal(&e);
            changed |= credential::rewrap(&self.cx.db, &name, &before, &new).await.map_err(store)?;
            match credential::get(&self.cx.db, &name).await.map_err(store)? {
                Some(now) => row = now,
                None => return Ok(changed),
            }
        }
    }

    /// Where the sessions with a BMC are kept, by its record's uid and by the address, credential and trust that they were opened with.
    pub(super) fn sessions(&self, uid: &str, device: &str) -> Arc<Sessions> {
        Arc::new(Sessions {
            cx: self.cx.clone(),
            vault: self.vault.clone(),
            uid: uid.to_owned(),
            device: device.to_owned(),
            last: Mutex::default(),
        })
    }
}

/// The session of one BMC, kept beyond the process. Of the gateways, the one that saved it last has it: it alone ends it.
pub(super) struct Sessions {
    cx: Context,
    vault: Arc<Vault>,
    uid: String,
    device: String,
    /// What this process saved last: as it is sealed, which is another text with every write whatever key it is under, and the token.
    last: Mutex<Option<(String, Secret<String>)>>,
}

impl Sessions {
    fn record(&self) -> String {
        format!("session/{}", self.uid)
    }

    fn seal(&self, session: &SavedSession) -> Option<Sealed> {
        let text = format!("{}\0{}", session.token.expose(), session.location.as_deref().unwrap_or_default());
        self.vault.seal(&self.record(), text.as_bytes()).ok()
    }

    fn open(&self, sealed: &Sealed) -> Option<SavedSession> {
        let secret = self.vault.open_sealed(&self.record(), sealed).ok()?;
        let text = String::from_utf8_lossy(secret.expose()).into_owned();
        let (token, location) = text.split_once('\0').unwrap_or((&text, ""));
        Some(SavedSession {
            token: Secret::new(token.to_owned()),
            location: (!location.is_empty()).then(|| location.to_owned()),
        })
    }

    fn note(&self, now: Option<(String, Secret<String>)>) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::replace(&mut *last, now).map(|(sealed, _)| sealed)
    }

    /// Goes on with the session of an earlier process, or of the gateway that had this BMC before: it is this one's from now on.
    pub(super) async fn take_over(&self) -> Option<SavedSession> {
        let before = session::get(&self.cx.db, &self.uid, &self.device).await.ok().flatten()?;
        let saved = self.open(&before)?;
        let sealed = self.seal(&saved)?;
        let taken = session::replace(&self.cx.db, &self.uid, &before.secret, &sealed, self.cx.now()).await;
        taken.is_ok_and(|taken| taken).then(|| {
            self.note(Some((sealed.secret, saved.token.clone())));
            saved
        })
    }

    /// Saves a session as it is opened, and forgets it as it is ended. A session that could not be saved is one that a crash leaks. What another
    /// gateway has saved since, when the BMC became its own, is not forgotten.
    pub(super) fn keep(self: &Arc<Self>, session: Option<SavedSession>) {
        let saved = session.and_then(|session| Some((self.seal(&session)?, session.token)));
        let before = self.note(saved.as_ref().map(|(sealed, token)| (sealed.secret.clone(), token.clone())));
        let kept = self.clone();
        tokio::spawn(async move {
            let (db, uid) = (&kept.cx.db, &kept.uid);
            let outcome = match (saved, before) {
                (Some((sealed, _)), _) => session::put(db, uid, &kept.device, &sealed, kept.cx.now()).await,
                (None, Some(sealed)) => session::delete(db, uid, &sealed).await,
                (None, None) => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "could not keep a session");
            }
        });
    }

    /// Whether another gateway goes on with the session that this one had: it is not this one's to end.
    pub(super) async fn is_taken(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let Some((sealed, token)) = last else { return false };
        let now = match session::get(&self.cx.db, &self.uid, &self.device).await {
            Ok(now) => now,
            // Nobody knows: it stays for whoever reads the record next.
            Err(_) => return true,
        };
        now.is_some_and(|now| now.secret != sealed && self.open(&now).is_some_and(|other| other.token.expose() == token.expose()))
    }
}
