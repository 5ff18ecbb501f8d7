use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use ipnet::IpNet;
use ironyard_db::Stored;
use ironyard_redfish::{Client, Limits, Login, SavedSession, SessionKeeper, Target, Trust};
use ironyard_resource::{Context, get};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::Secret;
use tokio::task::JoinHandle;

use super::{Device, DeviceError};
use crate::{
    domain::{
        address,
        bmc::{Bmc, TlsTrust},
    },
    store::{credential, session},
    vault::Vault,
};

/// What all devices share.
#[derive(Clone)]
pub struct Settings {
    /// Addresses that may be reached.
    pub allowed: Vec<IpNet>,
    /// How certificates are trusted unless a BMC says otherwise.
    pub default_trust: TlsTrust,
    /// Authorities for `Ca`, DER.
    pub authorities: Vec<Vec<u8>>,
    /// What one BMC may cost.
    pub limits: Limits,
}

/// The owners of all BMCs that were needed so far. A change of address, credential or trust starts a new one.
#[derive(Clone)]
pub struct Devices {
    cx: Context,
    vault: Arc<Vault>,
    settings: Settings,
    running: Arc<Mutex<HashMap<String, (String, Device)>>>,
    owners: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Devices {
    /// No devices yet.
    pub fn new(cx: Context, vault: Arc<Vault>, settings: Settings) -> Self {
        Self {
            cx,
            vault,
            settings,
            running: Arc::default(),
            owners: Arc::default(),
        }
    }

    /// The vault, to seal credentials.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Addresses that may be reached.
    pub fn allowed(&self) -> &[IpNet] {
        &self.settings.allowed
    }

    /// The owner of a BMC.
    pub async fn get(&self, name: &str) -> Result<Device, Fault> {
        let bmc = get::<Bmc>(&self.cx, name).await?;
        self.of(&bmc).await
    }

    /// The owner of a BMC that was read.
    pub async fn of(&self, bmc: &Stored<Bmc>) -> Result<Device, Fault> {
        let spec = &bmc.value.spec;
        let not_ready = |why: String| Fault::from(DeviceError::NotReady(why));
        if spec.address.is_empty() {
            return Err(not_ready(match &spec.endpoint {
                Some(endpoint) => format!("waiting for the address of endpoint {}", endpoint.name),
                None => "it has no address".to_owned(),
            }));
        }
        let credential = match spec.credential.as_str() {
            "" => None,
            name => {
                let row = credential::get(&self.cx.db, name).await.map_err(|e| Fault::internal(&e))?;
                Some(row.ok_or_else(|| not_ready(format!("credential {name} does not exist")))?)
            }
        };
        let trust = spec.trust.unwrap_or(self.settings.default_trust);
        let pin = match trust {
            TlsTrust::Pin => spec.certificate_sha256.clone(),
            TlsTrust::FirstUse => bmc.value.observed.certificate_sha256.clone(),
            TlsTrust::Ca => String::new(),
        };
        // The sealed data key is another one with every write, also after a credential was deleted and set again.
        let version = credential
            .as_ref()
            .map_or(String::new(), |c| ironyard_types::sha256_hex(c.sealed.key.as_bytes()));
        // Resolved anew each time: a name that has moved is another device.
        let address = resolve(&spec.address, &self.settings.allowed).await?;
        let key = format!(
            "{}|{}://{}:{}|{}@{version}|{trust:?}{pin}",
            bmc.value.metadata.uid,
            spec.scheme,
            address,
            spec.port_or_default(),
            spec.credential
        );
        let name = &bmc.value.metadata.name;
        if let Ok(running) = self.running.lock()
            && let Some((known, device)) = running.get(name)
            && *known == key
        {
            return Ok(device.clone());
        }
        let login = match credential {
            Some(row) => Some(self.open(&row.name, &row)?),
            None => None,
        };
        let trust = match (trust, pin.is_empty()) {
            (TlsTrust::Ca, _) => Trust::Ca(self.settings.authorities.clone()),
            (TlsTrust::FirstUse, true) => Trust::FirstUse,
            (TlsTrust::Pin | TlsTrust::FirstUse, _) => Trust::Pin(pin),
        };
        let target = Target {
            scheme: spec.scheme.clone(),
            address,
            port: spec.port_or_default(),
        };
        let client = Client::new(&target, &trust, login, self.settings.limits.clone()).map_err(|e| Fault::from(DeviceError::Redfish(e)))?;
        let uid = bmc.value.metadata.uid.clone();
        let client = client.with_keeper(self.keeper(&uid, &key));
        if let Some(saved) = self.saved_session(&uid, &key).await {
            client.resume(saved).await;
        }
        let (device, owner) = Device::start(client, self.cx.clock.clone());
        if let Ok(mut owners) = self.owners.lock() {
            owners.retain(|owner| !owner.is_finished());
            owners.push(owner);
        }
        if let Ok(mut running) = self.running.lock() {
            // Two calls may have started one each; the first one stays, the other ends unused.
            let entry = running.entry(name.clone()).or_insert_with(|| (key.clone(), device.clone()));
            if entry.0 != key {
                *entry = (key, device.clone());
            }
            return Ok(entry.1.clone());
        }
        Ok(device)
    }

    fn open(&self, name: &str, row: &credential::StoredCredential) -> Result<Login, Fault> {
        let secret = self.vault.open_sealed(name, &row.sealed).map_err(|e| Fault::internal(&e))?;
        let text = String::from_utf8_lossy(secret.expose());
        let (username, password) = text.split_once('\0').unwrap_or((&text, ""));
        Ok(Login {
            username: username.to_owned(),
            password: Secret::new(password.to_owned()),
        })
    }

    /// The session of an earlier process with the same address, credential and trust.
    async fn saved_session(&self, uid: &str, device: &str) -> Option<SavedSession> {
        let sealed = session::get(&self.cx.db, uid, device).await.ok().flatten()?;
        let secret = self.vault.open_sealed(&format!("session/{uid}"), &sealed).ok()?;
        let text = String::from_utf8_lossy(secret.expose()).into_owned();
        let (token, location) = text.split_once('\0').unwrap_or((&text, ""));
        let location = (!location.is_empty()).then(|| location.to_owned());
        Some(SavedSession {
            token: Secret::new(token.to_owned()),
            location,
        })
    }

    /// Saves sessions as they are opened and forgets them as they are ended. A session that could not be saved is one that a crash leaks.
    fn keeper(&self, uid: &str, device: &str) -> SessionKeeper {
        let (cx, vault, uid, device) = (self.cx.clone(), self.vault.clone(), uid.to_owned(), device.to_owned());
        Box::new(move |saved| {
            let (cx, vault, uid, device) = (cx.clone(), vault.clone(), uid.clone(), device.clone());
            tokio::spawn(async move {
                let outcome = match saved {
                    None => session::delete(&cx.db, &uid, &device).await,
                    Some(SavedSession { token, location }) => {
                        let text = format!("{}\0{}", token.expose(), location.unwrap_or_default());
                        match vault.seal(&format!("session/{uid}"), text.as_bytes()) {
                            Ok(sealed) => session::put(&cx.db, &uid, &device, &sealed, cx.now()).await,
                            Err(_) => Ok(()),
                        }
                    }
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "could not keep a session");
                }
            });
        })
    }

    /// Forgets a BMC: its owner ends and logs out.
    pub fn forget(&self, name: &str) {
        if let Ok(mut running) = self.running.lock() {
            running.remove(name);
        }
    }

    /// Forgets all BMCs, and waits (not for long) until their owners have logged out.
    pub async fn clear(&self) {
        if let Ok(mut running) = self.running.lock() {
            running.clear();
        }
        let owners = self
            .owners
            .lock()
            .map(|mut owners| std::mem::take(&mut *owners))
            .unwrap_or_default();
        let all = async {
            for owner in owners {
                let _ = owner.await;
            }
        };
        if tokio::time::timeout(std::time::Duration::from_secs(6), all).await.is_err() {
            tracing::warn!("some BMCs did not let us log out in time; their sessions are kept for the next start");
        }
    }
}

/// Resolves once and checks what was found; the checked address is the one that is used.
pub(crate) async fn resolve(host: &str, allowed: &[IpNet]) -> Result<IpAddr, Fault> {
    let refused = |why: String| Fault::new(Reason::AddressRefused, why);
    let found = match host.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            let mut found = tokio::net::lookup_host((host, 0))
                .await
                .map_err(|_| refused(format!("{host:?} does not resolve to an address")))?;
            found
                .next()
                .map(|a| a.ip())
                .ok_or_else(|| refused(format!("{host:?} does not resolve to an address")))?
        }
    };
    address::check(found, allowed).map_err(refused)?;
    Ok(found)
}
