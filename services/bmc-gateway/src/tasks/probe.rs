use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_operation::Request;
use ironyard_reconcile::{Next, Reconcile};
use ironyard_redfish::ops::systems;
use ironyard_resource::{Context, update};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{Condition, ConditionStatus, Timestamp};

use crate::{
    device::{Device, DeviceError, Devices},
    domain::bmc::{Bmc, Observed, TlsTrust},
};

/// How often a BMC that is well is looked at; one that is not, sooner (with the breaker in between).
const WELL: Duration = Duration::from_secs(60);
const UNWELL: Duration = Duration::from_secs(3);
/// Longest look: a BMC that answers drop by drop must not hold a place that others need.
const LOOK: Duration = Duration::from_secs(120);
/// How old the stored time of the last contact may be: every write wakes all watchers.
const CONTACT: Duration = Duration::from_secs(300);

/// Looks at each BMC: whether it answers, who it is, which systems it has.
pub struct Probe {
    /// Database and time.
    pub cx: Context,
    /// Owners.
    pub devices: Devices,
}

impl Reconcile for Probe {
    type Error = Fault;

    async fn reconcile(&self, name: &str) -> Result<Next, Fault> {
        let Some(bmc) = record::get::<Bmc>(&self.cx.db, name).await.map_err(|e| Fault::internal(&e))? else {
            self.devices.forget(name);
            return Ok(Next::Done);
        };
        let outcome = match self.devices.of(&bmc).await {
            Ok(device) => match tokio::time::timeout(LOOK, look(&device)).await {
                Ok(outcome) => outcome.map_err(Fault::from),
                Err(_) => Err(Fault::new(Reason::BmcUnreachable, "the BMC takes too long to answer")),
            },
            Err(fault) => Err(fault),
        };
        let well = outcome.is_ok();
        let now = self.cx.now();
        update::<Bmc>(&self.cx, &Request::default(), name, "", |bmc| {
            record_outcome(bmc, &outcome, now);
            Ok(())
        })
        .await?;
        Ok(Next::After(if well { WELL } else { UNWELL }))
    }
}

async fn look(device: &Device) -> Result<Observed, DeviceError> {
    let root = device.read(|client| async move { client.root().await }).await?;
    let certificate_sha256 = device.certificate_sha256().unwrap_or_default();
    let systems = device.read(|client| async move { systems::list(&client).await }).await?;
    let manager = root.link("Managers");
    let firmware = match manager {
        None => String::new(),
        Some(link) => {
            let read = device.read(|client| async move {
                let managers = client.get(&link).await?;
                match managers.links("Members").first() {
                    Some(first) => Ok(client.get(first).await?.text_or_empty("FirmwareVersion")),
                    None => Ok(String::new()),
                }
            });
            read.await.unwrap_or_default()
        }
    };
    Ok(Observed {
        vendor: root.text_or_empty("Vendor"),
        product: root.text_or_empty("Product"),
        redfish_version: root.text_or_empty("RedfishVersion"),
        firmware_version: firmware,
        certificate_sha256,
        systems: systems.iter().map(ironyard_redfish::Doc::id).collect(),
        last_contact: None,
    })
}

fn record_outcome(bmc: &mut Bmc, outcome: &Result<Observed, Fault>, now: Timestamp) {
    let mut set = |kind: &str, status, reason: &str, message: &str| {
        Condition::set(&mut bmc.conditions, kind, status, reason, message, now);
    };
    let (yes, no, unknown) = (ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown);
    match outcome {
        Ok(observed) => {
            set("Reachable", yes, "Answered", "the BMC answers");
            set("Authenticated", yes, "LoggedIn", "the credential is accepted");
            set("Ready", yes, "Ready", "the BMC can be used");
            let fresh = bmc.observed.last_contact.filter(|at| now.since(*at) < CONTACT);
            let pinned = bmc.spec.trust != Some(TlsTrust::Ca) && !bmc.observed.certificate_sha256.is_empty();
            let certificate_sha256 = if pinned {
                bmc.observed.certificate_sha256.clone()
            } else {
                observed.certificate_sha256.clone()
            };
            bmc.observed = Observed {
                last_contact: fresh.or(Some(now)),
                certificate_sha256,
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
                Reason::BmcTlsRefused => set("Reachable", no, "CertificateRefused", message),
                Reason::BmcUnreachable => set("Reachable", no, "NoAnswer", message),
                _ => set("Reachable", yes, "Answered", "the BMC answers"),
            }
            set("Ready", no, fault.reason.as_str(), message);
        }
    }
}

/// A BMC that another one has just described; for tests.
pub fn is_ready(bmc: &Stored<Bmc>) -> bool {
    bmc.value
        .conditions
        .iter()
        .any(|c| c.kind == "Ready" && c.status == ConditionStatus::True)
}
