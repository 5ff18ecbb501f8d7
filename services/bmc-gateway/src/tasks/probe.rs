use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_operation::Request;
use ironyard_reconcile::{Next, Pass, Reconcile, SaveError};
use ironyard_redfish::{
    Doc,
    ops::{drives, family, power, systems, topology},
};
use ironyard_resource::{Context, update};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{Condition, ConditionStatus, Timestamp, random_fraction};
use serde::Deserialize;

use crate::{
    device::{Device, DeviceError, Devices},
    domain::bmc::{Bmc, Observed, SystemStatus, TlsTrust},
};

/// How often BMCs are looked at. Each has a due time of its own, spread at random: there is no batch that one of them could hold up.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Polling {
    /// Power and health of a BMC that is well: one request for each of its systems.
    #[serde(with = "humantime_serde")]
    pub power: Duration,
    /// Everything that is known of a BMC.
    #[serde(with = "humantime_serde")]
    pub full: Duration,
    /// A BMC that is not well, with the breaker in between.
    #[serde(with = "humantime_serde")]
    pub unwell: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            power: Duration::from_secs(60),
            full: Duration::from_secs(600),
            unwell: Duration::from_secs(3),
        }
    }
}

/// Longest look: a BMC that answers drop by drop must not hold a place that others need.
const LOOK: Duration = Duration::from_secs(120);
/// How old the stored time of the last contact may be: every write wakes all watchers.
const CONTACT: Duration = Duration::from_secs(300);

/// Looks at each BMC: whether it answers, who it is, which systems it has and how they are.
pub struct Probe {
    /// Database and time.
    pub cx: Context,
    /// Owners.
    pub devices: Devices,
    /// How often.
    pub polling: Polling,
}

impl Reconcile for Probe {
    type Error = Fault;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Fault> {
        let name = pass.key();
        let Some(mut bmc) = record::get::<Bmc>(&self.cx.db, name).await.map_err(|e| Fault::internal(&e))? else {
            self.devices.forget(name);
            return Ok(Next::Done);
        };
        let now = self.cx.now();
        let mut refused = String::new();
        let outcome = match self.devices.of(&bmc).await {
            Ok(device) => {
                let brief = is_ready(&bmc) && !device.full_look_due(now, self.polling.full);
                let look = async {
                    if brief {
                        statuses(&device, &bmc.value.observed).await
                    } else {
                        look(&device).await
                    }
                };
                let outcome = match tokio::time::timeout(LOOK, look).await {
                    Ok(outcome) => outcome.map_err(Fault::from),
                    Err(_) => Err(Fault::new(Reason::BmcUnreachable, "the BMC takes too long to answer")),
                };
                if outcome.is_ok() && !brief {
                    device.looked_fully(now);
                }
                refused = device.refused_credential();
                outcome
            }
            Err(fault) => Err(fault),
        };
        let wait = if outcome.is_ok() { self.polling.power } else { self.polling.unwell };
        // What somebody else wrote meanwhile is newer: a changed address, or what an operation saw.
        match pass.save(&mut bmc, now, |bmc| record_outcome(bmc, &outcome, &refused, now)).await {
            Ok(()) => {}
            Err(SaveError::Lost) => return Ok(Next::After(Duration::from_millis(100))),
            Err(SaveError::Store(error)) => return Err(Fault::internal(&error)),
        }
        Ok(Next::After(wait.mul_f64(0.9 + random_fraction() / 5.0)))
    }
}

/// Power and health of the systems that are known: everything else is as it was.
async fn statuses(device: &Device, before: &Observed) -> Result<Observed, DeviceError> {
    let mut statuses = Vec::new();
    for id in &before.systems {
        statuses.push(status(&device.read_status(id).await?));
    }
    Ok(Observed {
        statuses,
        ..before.clone()
    })
}

/// Notes how a system is, for those who do not ask the BMC itself.
pub(crate) async fn note_status(cx: &Context, bmc: &str, system: &Doc) {
    let seen = status(system);
    let noted = update::<Bmc>(cx, &Request::default(), bmc, "", |bmc| {
        for known in bmc.observed.statuses.iter_mut().filter(|known| known.id == seen.id) {
            *known = seen.clone();
        }
        Ok(())
    })
    .await;
    // The next look tells it too.
    if let Err(error) = noted {
        tracing::debug!(bmc.name = bmc, %error, "could not note how a system is");
    }
}

fn status(system: &Doc) -> SystemStatus {
    SystemStatus {
        id: system.id(),
        power: power::state(system),
        health: drives::health(system),
    }
}

async fn look(device: &Device) -> Result<Observed, DeviceError> {
    let root = device.read(|client| async move { client.root().await }).await?;
    let certificate_sha256 = device.certificate_sha256().unwrap_or_default();
    let systems = device.read(|client| async move { systems::list(&client).await }).await?;
    let servers = topology::split(systems.clone()).0;
    let (at, first) = (root.clone(), servers.first().cloned());
    // Of several servers none stands for the BMC.
    let only = first.clone().filter(|_| servers.len() == 1);
    let manager = device
        .read(|client| async move { Ok(topology::manager(&client, &at, only.as_ref()).await.ok()) })
        .await?;
    let of = |key: &str| manager.as_ref().map(|m| m.text_or_empty(key)).unwrap_or_default();
    Ok(Observed {
        vendor: root.text_or_empty("Vendor"),
        product: root.text_or_empty("Product"),
        redfish_version: root.text_or_empty("RedfishVersion"),
        firmware_version: of("FirmwareVersion"),
        model: of("Model"),
        family: family::detect(&root, manager.as_ref(), first.as_ref()).as_str().to_owned(),
        serial_number: first.as_ref().map(systems::serial).unwrap_or_default(),
        certificate_sha256,
        statuses: systems.iter().map(status).collect(),
        systems: systems.iter().map(Doc::id).collect(),
        ..Observed::default()
    })
}

fn record_outcome(bmc: &mut Bmc, outcome: &Result<Observed, Fault>, refused: &str, now: Timestamp) {
    let mut set = |kind: &str, status, reason: &str, message: &str| {
        Condition::set(&mut bmc.conditions, kind, status, reason, message, now);
    };
    let (yes, no, unknown) = (ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown);
    refused.clone_into(&mut bmc.observed.refused_credential);
    match outcome {
        Ok(observed) => {
            set("Reachable", yes, "Answered", "the BMC answers");
            set("Authenticated", yes, "LoggedIn", "the credential is accepted");
            set("Ready", yes, "Ready", "the BMC can be used");
            if bmc.spec.scheme == "http" {
                set(
                    "Encrypted",
                    no,
                    "PlainHttp",
                    "whoever is on the way to this BMC reads its password: use https",
                );
            } else {
                set("Encrypted", yes, "Tls", "the connection is encrypted");
            }
            let before = std::mem::take(&mut bmc.observed);
            let fresh = before.last_contact.filter(|at| now.since(*at) < CONTACT);
            let pinned = bmc.spec.trust != Some(TlsTrust::Ca) && !before.certificate_sha256.is_empty();
            bmc.observed = Observed {
                last_contact: fresh.or(Some(now)),
                certificate_sha256: if pinned {
                    before.certificate_sha256
                } else {
                    observed.certificate_sha256.clone()
                },
                next_certificate_sha256: before.next_certificate_sha256,
                refused_credential: before.refused_credential,
                console_host_key: before.console_host_key,
                ..observed.clone()
            };
        }
        Err(fault) => {
            let message = fault.message.as_str();
            match fault.reason {
                Reason::BmcNotReady | Reason::AddressRefused => {
                    set("Reachable", unknown, "NotAsked", "the BMC was not asked");
                    set("Authenticated", unknown, "NotAsked", "the BMC was not asked");
                }
                Reason::BmcAuthenticationFailed => {
                    set("Reachable", yes, "Answered", "the BMC answers");
                    set("Authenticated", no, "CredentialRefused", message);
                }
                Reason::BmcPasswordChangeRequired => {
                    set("Reachable", yes, "Answered", "the BMC answers");
                    set("Authenticated", no, "PasswordChangeRequired", message);
                }
                Reason::BmcTlsRefused => set("Reachable", no, "CertificateRefused", message),
                Reason::BmcUnreachable => set("Reachable", no, "NoAnswer", message),
                _ => set("Reachable", yes, "Answered", "the BMC answers"),
            }
            set("Ready", no, fault.reason.as_str(), message);
        }
    }
}

/// Whether a BMC can be used, as it was last seen.
pub fn is_ready(bmc: &Stored<Bmc>) -> bool {
    bmc.value
        .conditions
        .iter()
        .any(|c| c.kind == "Ready" && c.status == ConditionStatus::True)
}
