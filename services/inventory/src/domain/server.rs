use std::collections::BTreeMap;

use ironyard_types::{
    Condition, ConditionStatus, MachineIdentity, Metadata, Reference, SystemUuid, Timestamp, Waiting,
    hardware::{FirstWipe, Hardware, Health, PowerState, RunningMachines},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    claimability::DRIVES_KNOWN,
    lifecycle::{Facts, State},
};

/// A bare-metal server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Head.
    pub metadata: Metadata,
    /// What the user wants.
    pub spec: Spec,
    /// Where it is in its life.
    pub state: State,
    /// What decides where it may go.
    pub facts: Facts,
    /// Hardware as seen from outside.
    pub out_of_band: Option<Hardware>,
    /// Hardware as seen from inside.
    pub in_band: Option<Hardware>,
    /// Power, as last seen.
    pub power_state: Option<PowerState>,
    /// Health, as last seen.
    #[serde(default)]
    pub health: Option<Health>,
    /// Id of the system within the BMC.
    pub system_id: String,
    /// When the agent last reported.
    pub in_band_at: Option<Timestamp>,
    /// Aspects.
    pub conditions: Vec<Condition>,
    /// Why it does not move.
    pub waiting: Option<Waiting>,
}

/// What the user wants of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Identity.
    pub system_uuid: Option<SystemUuid>,
    /// BMC, by name.
    pub bmc: Option<Reference>,
    /// BMC, inline.
    pub inline_bmc: Option<InlineBmc>,
    /// Id of the system within the BMC.
    pub system_id: String,
    /// Wanted power while Available.
    pub power: Option<PowerState>,
    /// Boot order.
    pub boot_order: Vec<BootOrderEntry>,
    /// BIOS settings.
    pub bios: Vec<BiosSettings>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Cordon.
    pub unclaimable: bool,
    /// Whether the server is kept unwiped after a claim until an operator lets it go.
    pub retain: bool,
    /// Locator LED.
    pub locator_led: bool,
    /// Least acceptable category of the wipe; empty: Clear.
    pub sanitization_minimum: String,
    /// Whether the agent is needed.
    pub in_band: Option<InBand>,
    /// What happens to the machine if it runs when it is discovered.
    pub running_machines: Option<RunningMachines>,
    /// What it owes before it is offered for the first time.
    #[serde(default)]
    pub first_wipe: Option<FirstWipe>,
}

/// Whether the agent is needed to complete discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InBand {
    /// Needed.
    Required,
    /// Tried.
    Optional,
    /// Not tried.
    Off,
}

/// A BMC described within a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineBmc {
    /// Protocol.
    pub protocol: String,
    /// Scheme.
    pub scheme: String,
    /// Address.
    pub address: String,
    /// Port.
    pub port: i32,
    /// Credential.
    pub credential: String,
}

/// One entry of the boot order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOrderEntry {
    /// Name.
    pub name: String,
    /// Lower boots first.
    pub priority: i32,
    /// Symbolic device.
    pub device: String,
}

/// BIOS settings for one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BiosSettings {
    /// Version; empty: any.
    pub version: String,
    /// Attributes.
    pub settings: BTreeMap<String, String>,
}

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Effect.
    pub effect: String,
}

/// Longest account of a change.
const MOST: usize = 4000;

impl Spec {
    /// Each field that differs from what it was, with its value before and after; `None` where none does.
    pub fn changes_since(&self, before: &Self) -> Option<String> {
        let [before, after] = [before, self].map(|spec| {
            let Self {
                system_uuid,
                bmc,
                inline_bmc,
                system_id,
                power,
                boot_order,
                bios,
                taints,
                unclaimable,
                retain,
                locator_led,
                sanitization_minimum,
                in_band,
                running_machines,
                first_wipe,
            } = spec;
            [
                ("system_uuid", json!(system_uuid)),
                ("bmc_ref", json!(bmc.as_ref().map(|b| &b.name))),
                ("bmc", json!(inline_bmc)),
                ("system_id", json!(system_id)),
                ("power", json!(power)),
                ("boot_order", json!(boot_order)),
                ("bios", json!(bios)),
                ("taints", json!(taints)),
                ("unclaimable", json!(unclaimable)),
                ("reclaim_policy", json!(if *retain { "Retain" } else { "Recycle" })),
                ("locator_led", json!(locator_led)),
                ("sanitization.minimum", json!(sanitization_minimum)),
                ("in_band", json!(in_band)),
                ("running_machines", json!(running_machines)),
                ("first_wipe", json!(first_wipe)),
            ]
        });
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
        let changed: Vec<String> = changed.map(|((field, from), (_, to))| format!("{field}: {from} → {to}")).collect();
        (!changed.is_empty()).then(|| changed.join("; ").chars().take(MOST).collect())
    }
}

/// The machine of a system UUID. Firmware and BMC may give the first groups in either byte order: both are the same machine.
pub fn identity_of(uuid: &SystemUuid) -> String {
    format!("uuid:{}", uuid.clone().min(uuid.swapped()))
}

impl Server {
    /// A new one.
    pub fn new(metadata: Metadata, spec: Spec) -> Self {
        Self {
            metadata,
            spec,
            state: State::Initial,
            facts: Facts::default(),
            out_of_band: None,
            in_band: None,
            power_state: None,
            health: None,
            system_id: String::new(),
            in_band_at: None,
            conditions: vec![],
            waiting: None,
        }
    }

    /// Both views of the hardware as one.
    pub fn hardware(&self) -> Hardware {
        Hardware::merge(self.out_of_band.as_ref(), self.in_band.as_ref())
    }

    /// What makes the machine this one, as far as it is known.
    pub fn machine(&self) -> MachineIdentity {
        let seen = self.hardware();
        let uuid = self
            .spec
            .system_uuid
            .as_ref()
            .map_or(seen.system_uuid.as_str(), |uuid| uuid.as_str());
        MachineIdentity::new(uuid, &seen.manufacturer, &seen.serial_number)
    }

    /// What makes it this machine and no other: the system UUID, or maker and serial number.
    pub fn identity(&self) -> Option<String> {
        if let Some(uuid) = &self.spec.system_uuid {
            return Some(identity_of(uuid));
        }
        let hardware = self.out_of_band.as_ref()?;
        (!hardware.serial_number.is_empty()).then(|| format!("serial:{}:{}", hardware.manufacturer, hardware.serial_number))
    }

    /// Which of the systems of its BMC it is.
    fn seat(&self) -> &str {
        if self.system_id.is_empty() {
            &self.spec.system_id
        } else {
            &self.system_id
        }
    }

    /// The place where it was found: one system of one BMC. Two records of the same place would be the same machine.
    pub fn place(&self) -> Option<String> {
        let bmc = &self.spec.bmc.as_ref()?.name;
        let id = self.seat();
        (!id.is_empty()).then(|| format!("{bmc}/{id}"))
    }

    /// The drives that were known are waived: which it has now is read again.
    pub fn forget_drives(&mut self, now: Timestamp) {
        for view in [&mut self.out_of_band, &mut self.in_band].into_iter().flatten() {
            view.drives.clear();
            view.read_at = Timestamp(0);
        }
        let why = "its drives were waived, and those that it has now are still to be read";
        Condition::set(&mut self.conditions, DRIVES_KNOWN, ConditionStatus::False, "Waived", why, now);
    }

    /// Serial numbers of the drives it is known to have; a wipe must cover every one.
    pub fn known_drives(&self) -> Vec<String> {
        let mut serials: Vec<String> = self
            .hardware()
            .drives
            .into_iter()
            .map(|d| d.serial_number)
            .filter(|s| !s.is_empty())
            .collect();
        serials.sort();
        serials.dedup();
        serials
    }
}
