//! Drives, and storage that cannot be reached, as the kernel shows them in sysfs.
//!
//! What a tenant may have written to is either a drive here or named by [`Sysfs::unreachable_storage`]: a wipe that is silent about
//! a drive is the worst that can happen.

use std::path::PathBuf;

use ironyard_types::hardware::Drive;

use crate::{BLOCK, Problem, linux::problem};

/// `/sys`, `/proc` and `/dev` under a root.
pub(crate) struct Sysfs(pub(crate) PathBuf);

/// A block device that holds a part of a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Name, as in `/dev`.
    pub(crate) name: String,
    /// Blocks.
    pub(crate) blocks: u64,
    /// Other names that show the same serial number, world-wide name and size: other paths to it, if what is written here can be read there.
    pub(crate) paths: Vec<String>,
}

/// A drive and the block devices that it consists of: the namespaces of an NVMe drive, the boot areas of an eMMC.
#[derive(Debug, Clone)]
pub(crate) struct BlockDrive {
    pub(crate) drive: Drive,
    pub(crate) extents: Vec<Extent>,
}

/// One block device with hardware behind it.
struct Device {
    extent: Extent,
    serial: String,
    wwid: String,
}

/// `nvme2n1` comes before `nvme2n10`, and that before `nvme10n1`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let (mut parts, mut rest) = (Vec::new(), name);
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (digits, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        parts.push((word.to_owned(), digits.parse().unwrap_or(u64::MAX)));
        rest = tail;
    }
    parts
}

impl Sysfs {
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    pub(crate) fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path))
            .map(|t| t.trim().to_owned())
            .unwrap_or_default()
    }

    pub(crate) fn entries(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort_by_cached_key(|name| natural(name));
        names
    }

    /// Every drive that a tenant may have written to, fixed or removable.
    pub(crate) fn drives(&self) -> Vec<BlockDrive> {
        let mut devices: Vec<Device> = Vec::new();
        for device in self.entries("sys/block").iter().filter_map(|name| self.device(name)) {
            // The same namespace or logical unit by another path. The serial number counts too: some NVMe drives share a made-up EUI-64.
            let known = devices.iter_mut().find(|d| {
                !d.wwid.is_empty() && d.wwid == device.wwid && d.serial == device.serial && d.extent.blocks == device.extent.blocks
            });
            match known {
                Some(known) => known.extent.paths.push(device.extent.name),
                None => devices.push(device),
            }
        }
        let mut drives: Vec<BlockDrive> = Vec::new();
        for Device { extent, serial, wwid } in devices {
            let serial = if serial.is_empty() { wwid } else { serial };
            let bytes = i64::try_from(extent.blocks.saturating_mul(BLOCK as u64)).unwrap_or(i64::MAX);
            match drives.iter_mut().find(|d| !serial.is_empty() && d.drive.serial_number == serial) {
                Some(known) => {
                    known.drive.capacity_bytes = known.drive.capacity_bytes.saturating_add(bytes);
                    known.extents.push(extent);
                }
                None => drives.push(BlockDrive {
                    drive: self.describe(&extent.name, serial, bytes),
                    extents: vec![extent],
                }),
            }
        }
        drives
    }

    fn describe(&self, name: &str, serial_number: String, capacity_bytes: i64) -> Drive {
        let at = |file: &str| self.text(&format!("sys/block/{name}/{file}"));
        Drive {
            name: name.to_owned(),
            serial_number,
            manufacturer: at("device/vendor"),
            model: at("device/model"),
            revision: [at("device/firmware_rev"), at("device/rev")].concat(),
            media_type: if at("queue/rotational") == "1" { "HDD" } else { "SSD" }.to_owned(),
            protocol: if name.starts_with("nvme") { "NVMe" } else { "" }.to_owned(),
            capacity_bytes,
            device: format!("/dev/{name}"),
            ..Drive::default()
        }
    }

    fn device(&self, name: &str) -> Option<Device> {
        let at = |file: &str| self.text(&format!("sys/block/{name}/{file}"));
        // Only what has hardware behind it: no loops, RAM disks or device mappers.
        if !self.path(&format!("sys/block/{name}/device")).exists() {
            return None;
        }
        // Optical drives hold media of their own, floppies none any more; the flash that `mtdblock` shows holds firmware, and must live.
        let is = |prefix: &str| {
            name.strip_prefix(prefix)
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        if at("device/type") == "5" || is("sr") || is("fd") || is("mtdblock") {
            return None;
        }
        // One path of an NVMe drive whose paths the kernel joins.
        if at("hidden") == "1" {
            return None;
        }
        let blocks: u64 = at("size").parse().unwrap_or(0);
        // It is named instead.
        if name.starts_with("nvme") && blocks == 0 {
            return None;
        }
        // A reader without a card.
        let removable = at("removable") == "1";
        if (removable && blocks == 0) || self.is_own_medium(name) {
            return None;
        }
        // The boot areas of an eMMC hang below its main block device.
        let serial = [at("device/serial"), at("serial"), self.vpd_serial(name), at("device/device/serial")];
        let wwid = [at("device/wwid"), at("wwid")];
        Some(Device {
            extent: Extent {
                name: name.to_owned(),
                blocks,
                paths: vec![],
            },
            serial: serial.into_iter().find(|s| !s.is_empty()).unwrap_or_default(),
            wwid: wwid.into_iter().find(|s| !s.is_empty()).unwrap_or_default(),
        })
    }

    /// Whether it is the medium that the agent was booted from: write-protected, with the label of the agent, and no fixed drive of the
    /// machine, which a tenant could make look so.
    fn is_own_medium(&self, name: &str) -> bool {
        use std::os::unix::fs::FileExt;
        let at = |file: &str| self.text(&format!("sys/block/{name}/{file}"));
        let virtual_disk = name.starts_with("vd");
        if at("ro") != "1" || !(virtual_disk || at("removable") == "1") {
            return false;
        }
        let mut descriptor = [0; 72];
        let read = std::fs::File::open(self.path(&format!("dev/{name}"))).and_then(|file| file.read_exact_at(&mut descriptor, 32768));
        read.is_ok()
            && descriptor.get(1..6) == Some(b"CD001")
            && descriptor.get(40..).is_some_and(|id| id.trim_ascii() == b"IRONYARD AGENT")
    }

    /// The unit serial number of a SCSI or SATA disk: page 0x80 of its vital product data, after four bytes of header.
    fn vpd_serial(&self, name: &str) -> String {
        let page = std::fs::read(self.path(&format!("sys/block/{name}/device/vpd_pg80"))).unwrap_or_default();
        String::from_utf8_lossy(page.get(4..).unwrap_or_default())
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned()
    }

    /// Lets the boot area of an eMMC be written, which the kernel protects from accidents.
    pub(crate) fn allow_writing(&self, name: &str) -> Result<(), Problem> {
        let path = self.path(&format!("sys/block/{name}/force_ro"));
        if path.exists() {
            std::fs::write(&path, "0").map_err(|e| problem(&path, &e))?;
        }
        Ok(())
    }

    /// Whether the firmware describes a range of memory that keeps what is written to it. It describes its own RAM disks in the same table.
    fn has_persistent_memory(&self) -> bool {
        // 66f0d379-b4f3-4074-ac43-0d3318b78cdb, as it stands in the table.
        const PERSISTENT: [u8; 16] = [
            0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c, 0xdb,
        ];
        let path = self.path("sys/firmware/acpi/tables/NFIT");
        match std::fs::read(&path) {
            Ok(table) => table.windows(PERSISTENT.len()).any(|range| range == PERSISTENT),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    /// Storage hardware that is there and cannot be reached: what lies on it is unknown, and cannot be erased.
    pub(crate) fn unreachable_storage(&self) -> Vec<String> {
        let mut found = Vec::new();
        // Disks, of whatever kind, that the kernel knows and shows no blocks of: hidden members of a volume, or such as do not answer.
        for device in self.entries("sys/bus/scsi/devices") {
            let kind = self.text(&format!("sys/bus/scsi/devices/{device}/type"));
            let folder = format!("sys/bus/scsi/devices/{device}/block");
            if ["0", "7", "14", "20"].contains(&kind.as_str()) && self.entries(&folder).is_empty() {
                found.push(format!("disk {device}: it has no block device"));
            }
        }
        for card in self.entries("sys/bus/mmc/devices") {
            let kind = self.text(&format!("sys/bus/mmc/devices/{card}/type"));
            if ["MMC", "SD", "SDcombo"].contains(&kind.as_str()) && self.entries(&format!("sys/bus/mmc/devices/{card}/block")).is_empty() {
                found.push(format!("memory card {card}: it has no block device"));
            }
        }
        for interface in self.entries("sys/bus/usb/devices") {
            let class = self.text(&format!("sys/bus/usb/devices/{interface}/bInterfaceClass"));
            if class == "08" && !self.path(&format!("sys/bus/usb/devices/{interface}/driver")).exists() {
                found.push(format!("USB storage {interface}: no driver has it"));
            }
        }
        if self.has_persistent_memory() {
            found.push("persistent memory: the agent's image has no driver for it".to_owned());
        }
        for name in self.entries("sys/block").iter().filter(|name| name.starts_with("nvme")) {
            let at = |file: &str| self.text(&format!("sys/block/{name}/{file}"));
            // One path of several is hidden too, and its name tells it: `nvme0c1n1`. What else is hidden has a command set that the kernel does not know.
            let path = name.trim_start_matches("nvme").contains('c');
            if !path && (at("hidden") == "1" || at("size") == "0") {
                found.push(format!("namespace {name}: the kernel cannot read its format"));
            }
        }
        for address in self.entries("sys/bus/pci/devices") {
            let at = |file: &str| self.text(&format!("sys/bus/pci/devices/{address}/{file}"));
            let driver = self.path(&format!("sys/bus/pci/devices/{address}/driver")).read_link();
            // A driver that hands the controller to a virtual machine shows no drives.
            let shows_drives = driver.is_ok_and(|path| !path.ends_with("vfio-pci") && !path.ends_with("pciback"));
            let class = at("class");
            // What is kept in persistent memory over CXL has no driver here.
            if class.starts_with("0x0502") {
                found.push(format!(
                    "memory device {address}: the agent's image has no driver for it, and cannot erase it"
                ));
            }
            // A controller may keep NVMe drives from their driver.
            if at("remapped_nvme").parse::<u32>().is_ok_and(|count| count > 0) {
                found.push(format!("NVMe drives behind {address}: its RAID mode hides them"));
            }
            // Mass storage, hosts of SD cards, and USB. What hangs at Fibre Channel is no part of the machine.
            let storage = ["0x01", "0x0805", "0x0c03"].iter().any(|kind| class.starts_with(kind));
            if storage && !shows_drives {
                let (vendor, device) = (at("vendor"), at("device"));
                let id = [vendor, device].map(|id| id.trim_start_matches("0x").to_owned()).join(":");
                found.push(format!(
                    "storage controller {address} ({id}): no driver for it in the agent's image"
                ));
            }
        }
        let shown: Vec<String> = self
            .entries("sys/block")
            .iter()
            .filter_map(|n| self.device(n))
            .map(|d| d.serial)
            .collect();
        for controller in self.entries("sys/class/nvme") {
            let at = |file: &str| self.text(&format!("sys/class/nvme/{controller}/{file}"));
            let (state, serial) = (at("state"), at("serial"));
            if state != "live" {
                found.push(format!("NVMe controller {controller} (serial {serial}): its state is {state:?}"));
            } else if !shown.contains(&serial) {
                found.push(format!("NVMe controller {controller} (serial {serial}): it shows no namespace"));
            }
        }
        for link in self.entries("sys/class/ata_link") {
            let speed = self.text(&format!("sys/class/ata_link/{link}/sata_spd"));
            let device = link.replacen("link", "dev", 1) + ".0";
            let class = self.text(&format!("sys/class/ata_device/{device}/class"));
            if !speed.is_empty() && speed != "<unknown>" && (class == "none" || class == "unknown") {
                found.push(format!("SATA port {link}: {device} is connected ({speed}) and does not answer"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use serde::Deserialize;

    use super::*;

    /// A machine as the kernel shows it, and what is to be found on it; written from the kernel's documentation.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fixture {
        name: String,
        #[serde(default)]
        files: BTreeMap<String, String>,
        /// Hexadecimal; `00*512` is 512 zeros.
        #[serde(default)]
        bytes: BTreeMap<String, String>,
        #[serde(default)]
        links: BTreeMap<String, String>,
        #[serde(default)]
        dirs: Vec<String>,
        drives: Vec<Expected>,
        unreachable: Vec<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Expected {
        serial: String,
        capacity_bytes: i64,
        devices: Vec<String>,
    }

    fn bytes(text: &str) -> Vec<u8> {
        let part = |part: &str| match part.split_once('*') {
            Some((byte, times)) => hex::decode(byte).unwrap().repeat(times.parse().unwrap()),
            None => hex::decode(part).unwrap(),
        };
        text.split_whitespace().flat_map(part).collect()
    }

    fn build(root: &Path, fixture: &Fixture) {
        let at = |path: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for (path, target) in &fixture.links {
            std::os::unix::fs::symlink(target, at(path)).unwrap();
        }
        for dir in &fixture.dirs {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (path, text) in &fixture.files {
            std::fs::write(at(path), text).unwrap();
        }
        for (path, text) in &fixture.bytes {
            std::fs::write(at(path), bytes(text)).unwrap();
        }
    }

    #[test]
    fn every_drive_is_found_or_named() {
        let fixtures: Vec<Fixture> = serde_json::from_str(include_str!("../../../tests/fixtures/sysfs.json")).unwrap();
        assert!(fixtures.len() > 20);
        let mut wrong = Vec::new();
        for fixture in fixtures {
            let root = tempfile::tempdir().unwrap();
            build(root.path(), &fixture);
            let sysfs = Sysfs(root.path().to_owned());
            let found = sysfs.drives().into_iter().map(|d| Expected {
                serial: d.drive.serial_number,
                capacity_bytes: d.drive.capacity_bytes,
                devices: d.extents.iter().map(|e| format!("/dev/{}", e.name)).collect(),
            });
            let found: Vec<Expected> = found.collect();
            if found != fixture.drives {
                wrong.push(format!("{}: found {found:#?}, expected {:#?}", fixture.name, fixture.drives));
            }
            let named = sysfs.unreachable_storage();
            let all = fixture.unreachable.iter().all(|part| named.iter().any(|n| n.contains(part)));
            if !all || named.len() != fixture.unreachable.len() {
                wrong.push(format!("{}: named {named:#?}, expected {:#?}", fixture.name, fixture.unreachable));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
