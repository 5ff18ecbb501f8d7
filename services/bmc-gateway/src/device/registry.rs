use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ipnet::IpNet;
use ironyard_db::Stored;
use ironyard_reconcile::{Membership, Writing};
use ironyard_redfish::{Client, Limits};
use ironyard_resource::{Context, get};
use ironyard_rpc::Fault;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Device, DeviceError,
    target::{for_address, not_ready},
    writes::{Owner, Share},
};
use crate::{
    domain::{
        bmc::{Bmc, TlsTrust},
        breaker::Breaker,
    },
    store::credential::{self, StoredCredential},
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
    /// Networks whose BMCs may be spoken to over plain http.
    pub plaintext: Vec<IpNet>,
    /// Whether a BMC may be trusted whatever it shows.
    pub allow_insecure: bool,
    /// What one BMC may cost.
    pub limits: Limits,
}

/// A credential as it is stored, and what tells it from any other.
pub struct Credential {
    row: StoredCredential,
    version: String,
}

impl Credential {
    /// What is sealed is another one with every write, also after a credential was deleted and set again; which networks it is for may change by
    /// itself. The key that it is sealed under is not part of it.
    pub fn new(row: StoredCredential) -> Self {
        let pending = row.pending.as_ref().map_or("", |p| p.secret.as_str());
        let version = ironyard_types::sha256_hex(format!("{}{pending}{}", row.sealed.secret, row.networks).as_bytes());
        Self { row, version }
    }
}

/// One owner, and what it was started for.
struct Running {
    device: Device,
    /// Address, credential and trust.
    key: String,
    /// The record that the key was made of, and the version of the credential.
    of: (String, i64, String),
    /// Whether it was started while this gateway might not write to the BMC, and so has no session that others may go on with.
    passing: bool,
}

/// The owners of all BMCs that were needed so far. A change of address, credential or trust starts a new one.
#[derive(Clone)]
pub struct Devices {
    pub(super) cx: Context,
    pub(super) vault: Arc<Vault>,
    pub(super) settings: Settings,
    running: Arc<Mutex<HashMap<String, Running>>>,
    /// One is started at a time: two for one BMC would go on with one session, and end it for each other.
    starting: Arc<tokio::sync::Mutex<()>>,
    membership: Membership,
    /// Owners that were retired and may still write what they had begun, by BMC.
    retired: Arc<Mutex<HashMap<String, CancellationToken>>>,
    owners: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Devices {
    /// No devices yet.
    pub fn new(cx: Context, vault: Arc<Vault>, settings: Settings, membership: Membership) -> Self {
        Self {
            cx,
            membership,
            vault,
            settings,
            running: Arc::default(),
            starting: Arc::default(),
            owners: Arc::default(),
            retired: Arc::default(),
        }
    }

    /// What a BMC shows when it posts events.
    pub fn token(&self, uid: &str) -> String {
        self.vault.token(&format!("event/{uid}"))
    }

    /// The same, and what it shows that was told so before the present key.
    pub fn tokens(&self, uid: &str) -> Vec<String> {
        self.vault.tokens(&format!("event/{uid}"))
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
        let name = bmc.value.spec.credential.as_str();
        let credential = if name.is_empty() {
            None
        } else {
            credential::get(&self.cx.db, name).await.map_err(|e| Fault::internal(&e))?
        };
        self.of_with(bmc, credential.map(Credential::new).as_ref()).await
    }

    /// The owner of a BMC that was read some time ago, if one was started for just that record and credential, or a later record.
    pub fn running(&self, bmc: &Stored<Bmc>, credential: Option<&Credential>) -> Option<Device> {
        self.known(bmc, credential.map_or("", |c| c.version.as_str()))
    }

    /// The owner of a BMC, given its credential.
    async fn of_with(&self, bmc: &Stored<Bmc>, credential: Option<&Credential>) -> Result<Device, Fault> {
        let spec = &bmc.value.spec;
        if credential.is_none() && !spec.credential.is_empty() {
            return Err(not_ready(format!("credential {} does not exist", spec.credential)));
        }
        let version = credential.map(|c| c.version.clone()).unwrap_or_default();
        let name = &bmc.value.metadata.name;
        if let Some(device) = self.known(bmc, &version) {
            return Ok(device);
        }
        let (target, trust) = self.target(bmc).await?;
        if let Some(credential) = credential {
            for_address(&credential.row, target.address)?;
        }
        let of = (bmc.value.metadata.uid.clone(), bmc.version, version.clone());
        let key = format!("{}|{target:?}|{}@{version}|{trust:?}", of.0, spec.credential);
        let _starting = self.starting.lock().await;
        if let Ok(mut running) = self.running.lock()
            && let Some(known) = running.get_mut(name)
        {
            // What was read before somebody else started one for a later record is not gone back to.
            let overtaken = known.of.0 == of.0 && known.of.1 > of.1 && known.of.2 == of.2;
            if !overtaken && known.key == key {
                known.of = of.clone();
            }
            if overtaken || known.key == key {
                return Ok(known.device.clone());
            }
        }
        let login = credential.map(|c| self.open_credential(&c.row)).transpose()?;
        let client = Client::new(&target, &trust, login, self.settings.limits.clone()).map_err(|e| Fault::from(DeviceError::Redfish(e)))?;
        let uid = bmc.value.metadata.uid.clone();
        // Who answers a call about another gateway's BMC has a session of its own for that, and keeps none. Who has only just come keeps one apart:
        // the gateway before may still believe that the BMC is its own. What may be taken over is of who may write, of whom there is one.
        // What was held before this gateway was counted out is not held again: another may have taken it over.
        let epoch = self.membership.view().epoch;
        let right = self.membership.writing(name);
        let sessions = match right {
            Writing::Now => Some(self.sessions(&uid, &key)),
            Writing::From(_) => Some(self.sessions(&format!("{uid}/joining"), &key)),
            Writing::No => None,
        };
        let passing = right != Writing::Now;
        let (client, saved) = match sessions.clone() {
            Some(sessions) => {
                let saved = sessions.take_over().await;
                let (membership, name) = (self.membership.clone(), name.clone());
                let holds = move || membership.view().epoch == epoch && (passing || membership.writing(&name) == Writing::Now);
                let client = client
                    .with_keeper(Box::new(move |session| sessions.keep(session)))
                    .while_holding(Box::new(holds));
                (client, saved)
            }
            None => (client, None),
        };
        tracing::debug!(bmc.name = name, server.address = %target.address, resumes = saved.is_some(), "has a BMC");
        if let Some(saved) = saved {
            client.resume(saved).await;
        }
        // What was refused before a restart is not tried because of it.
        let refused = !version.is_empty() && bmc.value.observed.refused_credential == version;
        let breaker = if refused {
            Breaker::refused_before(self.cx.now())
        } else {
            Breaker::default()
        };
        self.forget(name);
        let before = self.retired.lock().ok().and_then(|mut retired| retired.remove(name));
        let owner = Owner {
            write_timeout: self.settings.limits.write,
            right: Arc::new(Share {
                membership: self.membership.clone(),
                name: name.clone(),
            }),
            sessions,
            after: before,
        };
        let (device, owner) = Device::start(client, self.cx.clock.clone(), breaker, version, owner);
        if let Ok(mut owners) = self.owners.lock() {
            owners.retain(|owner| !owner.is_finished());
            owners.push(owner);
        }
        if let Ok(mut running) = self.running.lock() {
            let device = device.clone();
            running.insert(name.clone(), Running { device, key, of, passing });
        }
        Ok(device)
    }

    /// The owner that was started for this very record, or for a later one. A name is resolved anew each time: it may have moved.
    fn known(&self, bmc: &Stored<Bmc>, credential: &str) -> Option<Device> {
        let running = self.running.lock().ok()?;
        let known = running.get(&bmc.value.metadata.name)?;
        let (uid, version, with) = &known.of;
        let same = *uid == bmc.value.metadata.uid && *version >= bmc.version && with == credential;
        (same && bmc.value.spec.address.parse::<IpAddr>().is_ok()).then(|| known.device.clone())
    }

    /// Forgets a BMC: its owner ends and logs out.
    pub fn forget(&self, name: &str) {
        self.keep(|other| other != name);
    }

    /// Forgets the BMCs that are not to be kept, and starts those anew that this gateway may write to by now, though not yet when they were started.
    pub fn keep(&self, mut kept: impl FnMut(&str) -> bool) {
        if let Ok(mut running) = self.running.lock() {
            running.retain(|name, old| {
                let stays = kept(name) && !(old.passing && !old.device.writes() && self.membership.writing(name) == Writing::Now);
                if !stays {
                    self.retire(name, &old.device);
                }
                stays
            });
        }
    }

    fn retire(&self, name: &str, device: &Device) {
        let over = device.retire();
        if let Ok(mut retired) = self.retired.lock() {
            retired.retain(|_, over| !over.is_cancelled());
            retired.insert(name.to_owned(), over);
        }
    }

    /// Forgets all BMCs, and waits (not for long) until their owners have logged out.
    pub async fn clear(&self) {
        self.keep(|_| false);
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
        if tokio::time::timeout(Duration::from_secs(6), all).await.is_err() {
            tracing::warn!("some BMCs did not let us log out in time; their sessions are kept for the next start");
        }
    }
}
