use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use ipnet::IpNet;
use ironyard_db::Stored;
use ironyard_redfish::{Client, Limits, Login, Target, Trust};
use ironyard_resource::{Context, get, update};
use ironyard_rpc::{Fault, Reason};
use tokio::task::JoinHandle;

use super::{Device, DeviceError, Place};
use crate::{
    domain::{
        address,
        bmc::{Bmc, TlsTrust},
        breaker::Breaker,
        console,
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

fn not_ready(why: String) -> Fault {
    Fault::from(DeviceError::NotReady(why))
}

/// A credential as it is stored, and what tells it from any other.
pub struct Credential {
    row: StoredCredential,
    version: String,
}

impl Credential {
    /// The sealed data key is another one with every write, also after a credential was deleted and set again.
    pub fn new(row: StoredCredential) -> Self {
        let pending = row.pending.as_ref().map_or("", |p| p.key.as_str());
        let version = ironyard_types::sha256_hex(format!("{}{pending}", row.sealed.key).as_bytes());
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
}

/// The owners of all BMCs that were needed so far. A change of address, credential or trust starts a new one.
#[derive(Clone)]
pub struct Devices {
    pub(super) cx: Context,
    pub(super) vault: Arc<Vault>,
    settings: Settings,
    running: Arc<Mutex<HashMap<String, Running>>>,
    /// One is started at a time: two for one BMC would go on with one session, and end it for each other.
    starting: Arc<tokio::sync::Mutex<()>>,
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
            starting: Arc::default(),
            owners: Arc::default(),
        }
    }

    /// What a BMC shows when it posts events.
    pub fn token(&self, uid: &str) -> String {
        self.vault.token(&format!("event/{uid}"))
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
        let saved = self.saved_session(&uid, &key).await;
        let client = client.with_keeper(self.keeper(&uid, &key, saved.as_ref().map(|(key, _)| key.clone())));
        tracing::debug!(bmc.name = name, server.address = %target.address, resumes = saved.is_some(), "has a BMC");
        if let Some((_, saved)) = saved {
            client.resume(saved).await;
        }
        // What was refused before a restart is not tried because of it.
        let refused = !version.is_empty() && bmc.value.observed.refused_credential == version;
        let breaker = if refused {
            Breaker::refused_before(self.cx.now())
        } else {
            Breaker::default()
        };
        let (device, owner) = Device::start(client, self.cx.clock.clone(), breaker, version);
        if let Ok(mut owners) = self.owners.lock() {
            owners.retain(|owner| !owner.is_finished());
            owners.push(owner);
        }
        if let Ok(mut running) = self.running.lock() {
            let device = device.clone();
            if let Some(old) = running.insert(name.clone(), Running { device, key, of }) {
                old.device.retire();
            }
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

    /// Where a BMC is and how its certificate is trusted. A name is resolved anew each time: one that has moved is another device.
    async fn target(&self, bmc: &Stored<Bmc>) -> Result<(Target, Trust), Fault> {
        let (spec, observed) = (&bmc.value.spec, &bmc.value.observed);
        if spec.address.is_empty() {
            return Err(not_ready(match (&spec.endpoint, spec.mac) {
                (Some(endpoint), _) => format!("waiting for the address of endpoint {}", endpoint.name),
                (None, Some(mac)) => format!("waiting for an endpoint that has the MAC address {mac}"),
                (None, None) => "it has no address".to_owned(),
            }));
        }
        let with_next = |pin: &String| {
            let next = Some(&observed.next_certificate_sha256).filter(|next| !next.is_empty());
            Trust::Pin([Some(pin), next].into_iter().flatten().cloned().collect())
        };
        let trust = match spec.trust.unwrap_or(self.settings.default_trust) {
            TlsTrust::Ca => Trust::Ca(self.settings.authorities.clone()),
            TlsTrust::Pin => with_next(&spec.certificate_sha256),
            TlsTrust::FirstUse if observed.certificate_sha256.is_empty() => Trust::Any,
            TlsTrust::FirstUse => with_next(&observed.certificate_sha256),
            TlsTrust::Insecure if self.settings.allow_insecure => Trust::Any,
            TlsTrust::Insecure => {
                return Err(not_ready(
                    "TLS_TRUST_INSECURE is not allowed by the gateway's configuration".to_owned(),
                ));
            }
        };
        let address = resolve(&spec.address, &self.settings.allowed).await?;
        if spec.scheme == "http" {
            address::check_plaintext(address, &self.settings.plaintext).map_err(|why| Fault::new(Reason::AddressRefused, why))?;
        }
        let target = Target {
            scheme: spec.scheme.clone(),
            address,
            name: spec.address.parse::<IpAddr>().is_err().then(|| spec.address.to_ascii_lowercase()),
            port: spec.port_or_default(),
        };
        Ok((target, trust))
    }

    /// A connection of its own, beside the owner's: nothing of it is kept.
    async fn aside(&self, name: &str, login: Option<Login>) -> Result<Client, DeviceError> {
        let bmc = get::<Bmc>(&self.cx, name).await.map_err(|f| DeviceError::NotReady(f.message))?;
        let (target, trust) = self.target(&bmc).await.map_err(|f| DeviceError::NotReady(f.message))?;
        Ok(Client::new(&target, &trust, login, self.settings.limits.clone())?)
    }

    /// Whether a BMC takes a login, tried once.
    pub async fn try_login(&self, name: &str, login: Login) -> Result<(), DeviceError> {
        Ok(self.aside(name, Some(login)).await?.try_login().await?)
    }

    /// The fingerprint of the certificate that a BMC shows to a new connection.
    pub async fn shown_certificate(&self, name: &str) -> Result<Option<String>, DeviceError> {
        let client = self.aside(name, None).await?;
        client.root().await?;
        Ok(client.certificate_sha256())
    }

    /// Makes a second certificate good, for as long as it takes to put it in place of the first.
    pub async fn expect_certificate(&self, name: &str, sha256: &str) -> Result<(), Fault> {
        let expect = |bmc: &mut Bmc| {
            sha256.clone_into(&mut bmc.observed.next_certificate_sha256);
            Ok(())
        };
        update::<Bmc>(&self.cx, &ironyard_operation::Request::default(), name, "", expect)
            .await
            .map(|_| ())
    }

    /// Makes the second certificate the only one.
    pub async fn adopt_certificate(&self, name: &str, sha256: &str) -> Result<(), Fault> {
        let default_trust = self.settings.default_trust;
        let adopt = |bmc: &mut Bmc| {
            if bmc.spec.trust.unwrap_or(default_trust) == TlsTrust::Pin {
                sha256.clone_into(&mut bmc.spec.certificate_sha256);
            }
            sha256.clone_into(&mut bmc.observed.certificate_sha256);
            bmc.observed.next_certificate_sha256.clear();
            Ok(())
        };
        update::<Bmc>(&self.cx, &ironyard_operation::Request::default(), name, "", adopt)
            .await
            .map(|_| ())
    }

    /// Where the console of a BMC is, and how it is opened.
    pub async fn console(&self, name: &str) -> Result<Place, Fault> {
        let bmc = get::<Bmc>(&self.cx, name).await?;
        let (spec, observed) = (&bmc.value.spec, &bmc.value.observed);
        let unsupported = |why: String| Fault::new(Reason::BmcUnsupported, format!("the BMC does not offer {why}"));
        let mut entry = console::entry(&spec.console_protocol, &observed.family).map_err(unsupported)?;
        if spec.console_port != 0 {
            entry.port = spec.console_port;
        }
        let row = credential::get(&self.cx.db, &spec.credential)
            .await
            .map_err(|e| Fault::internal(&e))?;
        let row = row.ok_or_else(|| not_ready("it has no credential".to_owned()))?;
        let host_key = [&spec.console_host_key, &observed.console_host_key]
            .into_iter()
            .find(|k| !k.is_empty());
        Ok(Place {
            address: resolve(&spec.address, &self.settings.allowed).await?,
            entry,
            login: self.open_credential(&row)?,
            host_key: host_key.cloned().unwrap_or_default(),
        })
    }

    /// Pins the host key that a console showed first.
    pub async fn pin_console(&self, name: &str, key: &str) -> Result<(), Fault> {
        let pin = |bmc: &mut Bmc| {
            key.clone_into(&mut bmc.observed.console_host_key);
            Ok(())
        };
        update::<Bmc>(&self.cx, &ironyard_operation::Request::default(), name, "", pin)
            .await
            .map(|_| ())
    }

    /// Forgets a BMC: its owner ends and logs out.
    pub fn forget(&self, name: &str) {
        if let Ok(mut running) = self.running.lock()
            && let Some(old) = running.remove(name)
        {
            old.device.retire();
        }
    }

    /// Forgets the BMCs that are not to be kept.
    pub fn keep(&self, mut kept: impl FnMut(&str) -> bool) {
        if let Ok(mut running) = self.running.lock() {
            running.retain(|name, old| {
                let stays = kept(name);
                if !stays {
                    old.device.retire();
                }
                stays
            });
        }
    }

    /// Forgets all BMCs, and waits (not for long) until their owners have logged out.
    pub async fn clear(&self) {
        if let Ok(mut running) = self.running.lock() {
            running.drain().for_each(|(_, old)| old.device.retire());
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
