//! What a machine consists of.

use serde::{Deserialize, Serialize};

use crate::{EraseCommand, MachineIdentity, Timestamp};

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerState {
    /// Running.
    On,
    /// Not running.
    Off,
    /// On its way to On.
    PoweringOn,
    /// On its way to Off.
    PoweringOff,
}

impl std::fmt::Display for PowerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::On => "On",
            Self::Off => "Off",
            Self::PoweringOn => "PoweringOn",
            Self::PoweringOff => "PoweringOff",
        })
    }
}

/// What happens to a machine that runs when it is discovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunningMachines {
    /// It is left alone until it is off.
    Wait,
    /// A claim takes it as it is.
    Adopt,
    /// It is switched off.
    PowerOff,
}

/// What a machine that was never wiped here owes before it is offered for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FirstWipe {
    /// It is not offered until somebody says which of the other two.
    Wait,
    /// It is wiped first; all that is on its drives is lost.
    Wipe,
    /// It is offered as it is.
    Waive,
}

/// Redfish health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    /// Normal.
    Ok,
    /// Needs attention.
    Warning,
    /// Needs immediate attention.
    Critical,
}

/// What a machine consists of, as seen from outside, from inside, or merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// System UUID; empty when none or a placeholder.
    pub system_uuid: String,
    /// Maker.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial_number: String,
    /// Stock keeping unit.
    pub sku: String,
    /// BIOS version.
    pub bios_version: String,
    /// Host name.
    pub host_name: String,
    /// Health.
    pub health: Option<Health>,
    /// Processors.
    pub processors: Vec<Processor>,
    /// Memory modules.
    pub memory_modules: Vec<MemoryModule>,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// Drives.
    pub drives: Vec<Drive>,
    /// Network interfaces.
    pub network_interfaces: Vec<NetworkInterface>,
    /// PCI devices.
    pub pci_devices: Vec<PciDevice>,
    /// Other parts: accelerators, adapters, controllers, power supplies, chassis, …
    pub parts: Vec<Part>,
    /// What could not be read: `path: reason`.
    pub unreadable: Vec<String>,
    /// Of that, what may hide drives: there may be more of them than are listed.
    pub unreadable_storage: Vec<String>,
    /// When it was read.
    pub read_at: Timestamp,
}

/// A processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processor {
    /// Socket.
    pub socket: String,
    /// Maker.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Cores.
    pub cores: i32,
    /// Threads.
    pub threads: i32,
    /// Highest speed, MHz.
    pub max_speed_mhz: i32,
}

/// A memory module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryModule {
    /// Slot.
    pub slot: String,
    /// Maker.
    pub manufacturer: String,
    /// Part number.
    pub part_number: String,
    /// Serial number.
    pub serial_number: String,
    /// Capacity, MiB.
    pub capacity_mib: i64,
    /// Speed, MHz.
    pub speed_mhz: i32,
}

/// A drive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drive {
    /// Path in the BMC's tree.
    pub uri: String,
    /// Name.
    pub name: String,
    /// Serial number.
    pub serial_number: String,
    /// Maker.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Firmware revision.
    pub revision: String,
    /// HDD, SSD, …
    pub media_type: String,
    /// NVMe, SATA, …
    pub protocol: String,
    /// Capacity, bytes.
    pub capacity_bytes: i64,
    /// Whether the BMC offers to erase it.
    pub secure_erase: bool,
    /// How.
    pub sanitization_types: Vec<String>,
    /// Device path on the host.
    pub device: String,
    /// Health.
    pub health: Option<Health>,
    /// Commands of the drive by which the agent can erase it.
    pub erase_commands: Vec<EraseCommand>,
}

impl Drive {
    /// How to call the drive in a sentence.
    pub fn label(&self) -> String {
        let name = [&self.name, &self.device, &self.uri].into_iter().find(|n| !n.is_empty());
        match (name, self.serial_number.is_empty()) {
            (Some(name), false) => format!("{name} (serial {})", self.serial_number),
            (Some(name), true) => format!("{name} (no serial)"),
            (None, false) => format!("serial {}", self.serial_number),
            (None, true) => "a drive without name and serial".to_owned(),
        }
    }
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkInterface {
    /// Name.
    pub name: String,
    /// MAC address, canonical.
    pub mac_address: String,
    /// Speed, Mbit/s.
    pub speed_mbps: i32,
    /// Link.
    pub link_up: bool,
    /// LLDP neighbours.
    pub neighbors: Vec<Neighbor>,
}

/// What a network interface is plugged into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Neighbor {
    /// Chassis id.
    pub chassis_id: String,
    /// System name.
    pub system_name: String,
    /// Port id.
    pub port_id: String,
}

/// A PCI device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PciDevice {
    /// Address.
    pub address: String,
    /// Vendor id.
    pub vendor_id: String,
    /// Device id.
    pub device_id: String,
    /// Maker.
    pub manufacturer: String,
    /// Name.
    pub name: String,
    /// Class, subclass and interface, six hexadecimal digits; empty: unknown.
    pub class_code: String,
}

/// A part that can be replaced, or told apart, and has no list of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// `GPU`, `FPGA`, `NetworkAdapter`, `StorageController`, `PowerSupply`, `TPM`, `Chassis`, …
    pub kind: String,
    /// Name.
    pub name: String,
    /// Maker.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Part number.
    pub part_number: String,
    /// Serial number.
    pub serial_number: String,
    /// Firmware version.
    pub firmware_version: String,
    /// Memory, MiB.
    pub capacity_mib: i64,
    /// Health.
    pub health: Option<Health>,
    /// Path in the BMC's tree.
    pub uri: String,
}

impl Hardware {
    /// What makes the machine this one.
    pub fn identity(&self) -> MachineIdentity {
        MachineIdentity::new(&self.system_uuid, &self.manufacturer, &self.serial_number)
    }

    /// Why there may be drives that are not seen from inside, though the driver of each controller is there: drives behind hardware RAID show
    /// themselves as volumes, or not at all.
    pub fn hides_drives(&self) -> Option<String> {
        const RAID: &str = "0104";
        if self.pci_devices.is_empty() || self.pci_devices.iter().any(|device| device.class_code.is_empty()) {
            return Some("it does not tell which controllers the machine has".to_owned());
        }
        let raid = self.pci_devices.iter().find(|device| device.class_code.starts_with(RAID))?;
        Some(format!(
            "RAID controller {} ({}:{}) may hide drives",
            raid.address, raid.vendor_id, raid.device_id
        ))
    }

    /// Adds the drives of an earlier read that this one does not list.
    pub fn keep_drives_of(&mut self, earlier: &Self) {
        for drive in &earlier.drives {
            let same = |d: &&Drive| match drive.serial_number.as_str() {
                "" => d.serial_number.is_empty() && (&d.uri, &d.device) == (&drive.uri, &drive.device),
                serial => d.serial_number == serial,
            };
            if !self.drives.iter().any(|d| same(&d)) {
                self.drives.push(drive.clone());
            }
        }
    }

    /// Both views as one: the outside one is the base, the inside one fills its gaps and adds what only it saw. Drives are the same
    /// by serial number, interfaces by MAC address.
    pub fn merge(outside: Option<&Self>, inside: Option<&Self>) -> Self {
        let (mut base, other) = match (outside, inside) {
            (Some(o), Some(i)) => (o.clone(), i),
            (Some(one), None) | (None, Some(one)) => return one.clone(),
            (None, None) => return Self::default(),
        };
        let fill = |to: &mut String, from: &String| {
            if to.is_empty() {
                to.clone_from(from);
            }
        };
        fill(&mut base.system_uuid, &other.system_uuid);
        fill(&mut base.manufacturer, &other.manufacturer);
        fill(&mut base.model, &other.model);
        fill(&mut base.serial_number, &other.serial_number);
        fill(&mut base.sku, &other.sku);
        fill(&mut base.bios_version, &other.bios_version);
        fill(&mut base.host_name, &other.host_name);
        if base.processors.is_empty() {
            base.processors.clone_from(&other.processors);
        }
        if base.memory_modules.is_empty() {
            base.memory_modules.clone_from(&other.memory_modules);
        }
        if base.memory_mib == 0 {
            base.memory_mib = other.memory_mib;
        }
        if base.pci_devices.is_empty() {
            base.pci_devices.clone_from(&other.pci_devices);
        }
        if base.parts.is_empty() {
            base.parts.clone_from(&other.parts);
        }
        for drive in &other.drives {
            match base
                .drives
                .iter_mut()
                .find(|d| !d.serial_number.is_empty() && d.serial_number == drive.serial_number)
            {
                Some(known) => {
                    fill(&mut known.device, &drive.device);
                    known.erase_commands.clone_from(&drive.erase_commands);
                }
                None => base.drives.push(drive.clone()),
            }
        }
        for nic in &other.network_interfaces {
            match base
                .network_interfaces
                .iter_mut()
                .find(|n| !n.mac_address.is_empty() && n.mac_address == nic.mac_address)
            {
                Some(known) => {
                    known.link_up |= nic.link_up;
                    if !nic.neighbors.is_empty() {
                        known.neighbors.clone_from(&nic.neighbors);
                    }
                }
                None => base.network_interfaces.push(nic.clone()),
            }
        }
        base.unreadable.extend(other.unreadable.iter().cloned());
        // What one view misses of the drives, the other shows, if it misses none itself.
        if base.unreadable_storage.is_empty() || other.unreadable_storage.is_empty() {
            base.unreadable_storage.clear();
        }
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_raid_hides_drives() {
        let device = |class: &&str| PciDevice {
            class_code: (*class).to_owned(),
            ..PciDevice::default()
        };
        let with = |classes: &[&str]| Hardware {
            pci_devices: classes.iter().map(device).collect(),
            ..Hardware::default()
        };
        assert_eq!(with(&["010601", "010802", "020000"]).hides_drives(), None);
        for hides in [&[][..], &["010601", "010400"], &["010601", ""]] {
            assert!(with(hides).hides_drives().is_some(), "{hides:?}");
        }
    }

    #[test]
    fn views_merge_by_serial_and_mac() {
        let drive = |serial: &str, uri: &str, device: &str| Drive {
            serial_number: serial.into(),
            uri: uri.into(),
            device: device.into(),
            ..Drive::default()
        };
        let outside = Hardware {
            drives: vec![drive("A", "/1", ""), drive("B", "/2", "")],
            ..Hardware::default()
        };
        let inside = Hardware {
            drives: vec![drive("B", "", "/dev/sdb"), drive("C", "", "/dev/sdc")],
            ..Hardware::default()
        };
        let merged = Hardware::merge(Some(&outside), Some(&inside));
        let seen: Vec<_> = merged
            .drives
            .iter()
            .map(|d| (d.serial_number.as_str(), d.uri.as_str(), d.device.as_str()))
            .collect();
        assert_eq!(seen, [("A", "/1", ""), ("B", "/2", "/dev/sdb"), ("C", "", "/dev/sdc")]);
    }

    #[test]
    fn an_earlier_drive_is_kept_once() {
        let drive = |serial: &str, uri: &str| Drive {
            serial_number: serial.into(),
            uri: uri.into(),
            ..Drive::default()
        };
        let of = |drives: &[Drive]| Hardware {
            drives: drives.to_vec(),
            ..Hardware::default()
        };
        let earlier = of(&[drive("A", "/1"), drive("B", "/2"), drive("", "/3"), drive("", "/4")]);
        let mut now = of(&[drive("B", "/9"), drive("", "/3")]);
        now.keep_drives_of(&earlier);
        let uris: Vec<_> = now.drives.iter().map(|d| d.uri.as_str()).collect();
        assert_eq!(uris, ["/9", "/3", "/1", "/4"]);
    }
}
