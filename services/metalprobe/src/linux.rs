//! A real machine under Linux, seen through sysfs.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use ironyard_types::{
    Clock, MacAddress, SystemClock, SystemUuid,
    hardware::{Drive, Hardware, NetworkInterface, PciDevice, Processor},
};

use crate::{BLOCK, Machine, Problem, dmi};

/// A machine whose `/sys`, `/proc` and `/dev` lie under a root (`/`, or a copy of them in a test).
pub struct Linux {
    root: PathBuf,
}

impl Linux {
    /// The machine under this root.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path))
            .map(|t| t.trim().to_owned())
            .unwrap_or_default()
    }

    fn entries(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn drives(&self) -> Vec<Drive> {
        // Only whole disks that have hardware behind them: no partitions, loops, RAM disks or device mappers.
        let names = self
            .entries("sys/block")
            .into_iter()
            .filter(|n| self.root.join(format!("sys/block/{n}/device")).exists());
        let names = names.filter(|n| self.text(&format!("sys/block/{n}/removable")) != "1");
        names
            .map(|name| {
                let at = |file: &str| self.text(&format!("sys/block/{name}/{file}"));
                let serial = [
                    at("device/serial"),
                    at("serial"),
                    self.vpd_serial(&name),
                    at("device/wwid"),
                    at("wwid"),
                ];
                let sectors: i64 = at("size").parse().unwrap_or(0);
                Drive {
                    name: name.clone(),
                    serial_number: serial.into_iter().find(|s| !s.is_empty()).unwrap_or_default(),
                    manufacturer: at("device/vendor"),
                    model: at("device/model"),
                    revision: [at("device/firmware_rev"), at("device/rev")].concat(),
                    media_type: if at("queue/rotational") == "1" { "HDD" } else { "SSD" }.to_owned(),
                    protocol: if name.starts_with("nvme") {
                        "NVMe".to_owned()
                    } else {
                        String::new()
                    },
                    capacity_bytes: sectors.saturating_mul(512),
                    device: format!("/dev/{name}"),
                    ..Drive::default()
                }
            })
            .collect()
    }

    /// The unit serial number of a SCSI or SATA disk: page 0x80 of its vital product data, after four bytes of header.
    fn vpd_serial(&self, name: &str) -> String {
        let page = std::fs::read(self.root.join(format!("sys/block/{name}/device/vpd_pg80"))).unwrap_or_default();
        String::from_utf8_lossy(page.get(4..).unwrap_or_default())
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned()
    }

    fn interfaces(&self) -> Vec<NetworkInterface> {
        let names = self
            .entries("sys/class/net")
            .into_iter()
            .filter(|n| self.root.join(format!("sys/class/net/{n}/device")).exists());
        names
            .filter_map(|name| {
                let at = |file: &str| self.text(&format!("sys/class/net/{name}/{file}"));
                let mac = MacAddress::parse(&at("address")).ok()?;
                Some(NetworkInterface {
                    mac_address: mac.to_string(),
                    speed_mbps: at("speed").parse().ok().filter(|s| *s > 0).unwrap_or(0),
                    link_up: at("operstate") == "up",
                    neighbors: vec![],
                    name,
                })
            })
            .collect()
    }

    fn processors(&self) -> Vec<Processor> {
        let mut sockets: std::collections::BTreeMap<String, Processor> = std::collections::BTreeMap::new();
        for block in self.text("proc/cpuinfo").split("\n\n") {
            let field = |name: &str| {
                let lines = block.lines().filter_map(|l| l.split_once(':'));
                lines
                    .filter(|(key, _)| key.trim() == name)
                    .map(|(_, v)| v.trim().to_owned())
                    .next()
                    .unwrap_or_default()
            };
            if field("processor").is_empty() {
                continue;
            }
            let socket = sockets.entry(field("physical id")).or_insert_with(|| Processor {
                socket: field("physical id"),
                manufacturer: field("vendor_id"),
                model: field("model name"),
                cores: field("cpu cores").parse().unwrap_or(0),
                ..Processor::default()
            });
            socket.threads += 1;
        }
        sockets.into_values().collect()
    }

    fn pci(&self) -> Vec<PciDevice> {
        let id = |path: String| self.text(&path).trim_start_matches("0x").to_owned();
        let each = |address: String| PciDevice {
            vendor_id: id(format!("sys/bus/pci/devices/{address}/vendor")),
            device_id: id(format!("sys/bus/pci/devices/{address}/device")),
            address,
            ..PciDevice::default()
        };
        self.entries("sys/bus/pci/devices").into_iter().map(each).collect()
    }

    fn open(&self, serial: &str, write: bool) -> Result<(File, PathBuf), Problem> {
        let drive = self.drives().into_iter().find(|d| !serial.is_empty() && d.serial_number == serial);
        let drive = drive.ok_or_else(|| Problem(format!("no drive has serial number {serial}")))?;
        let path = self.root.join(drive.device.trim_start_matches('/'));
        let file = OpenOptions::new().read(true).write(write).open(&path);
        Ok((file.map_err(|e| problem(&path, &e))?, path))
    }

    /// What was written before an erase must not be read from the kernel's cache after it.
    fn drop_cache(&self) -> Result<(), Problem> {
        let path = self.root.join("proc/sys/vm/drop_caches");
        std::fs::write(&path, "3").map_err(|e| problem(&path, &e))
    }
}

fn problem(path: &Path, error: &std::io::Error) -> Problem {
    Problem(format!("{}: {error}", path.display()))
}

impl Machine for Linux {
    fn hardware(&self) -> Hardware {
        let dmi = |name: &str| self.text(&format!("sys/class/dmi/id/{name}"));
        let table = std::fs::read(self.root.join("sys/firmware/dmi/tables/DMI")).unwrap_or_default();
        let memory_modules = dmi::memory_modules(&table);
        let meminfo = self.text("proc/meminfo");
        let total_kib = meminfo.lines().find_map(|l| {
            l.strip_prefix("MemTotal:")?
                .trim()
                .trim_end_matches(" kB")
                .trim()
                .parse::<i64>()
                .ok()
        });
        let sum: i64 = memory_modules.iter().map(|m| m.capacity_mib).sum();
        Hardware {
            system_uuid: SystemUuid::from_hardware(&dmi("product_uuid"))
                .map(|u| u.to_string())
                .unwrap_or_default(),
            manufacturer: dmi("sys_vendor"),
            model: dmi("product_name"),
            serial_number: dmi("product_serial"),
            sku: dmi("product_sku"),
            bios_version: dmi("bios_version"),
            host_name: String::new(),
            health: None,
            processors: self.processors(),
            memory_mib: if sum > 0 { sum } else { total_kib.unwrap_or(0) / 1024 },
            memory_modules,
            drives: self.drives(),
            network_interfaces: self.interfaces(),
            pci_devices: self.pci(),
            unreadable: vec![],
            read_at: SystemClock.now(),
        }
    }

    fn blocks(&self, serial: &str) -> Result<u64, Problem> {
        let drive = self.drives().into_iter().find(|d| d.serial_number == serial);
        let drive = drive.ok_or_else(|| Problem(format!("no drive has serial number {serial}")))?;
        Ok(u64::try_from(drive.capacity_bytes).unwrap_or(0) / BLOCK as u64)
    }

    fn read(&self, serial: &str, block: u64) -> Result<[u8; BLOCK], Problem> {
        self.drop_cache()?;
        let (file, path) = self.open(serial, false)?;
        let mut out = [0; BLOCK];
        file.read_exact_at(&mut out, block * BLOCK as u64).map_err(|e| problem(&path, &e))?;
        Ok(out)
    }

    fn write(&self, serial: &str, block: u64, bytes: &[u8; BLOCK]) -> Result<(), Problem> {
        let (file, path) = self.open(serial, true)?;
        file.write_all_at(bytes, block * BLOCK as u64)
            .and_then(|()| file.sync_all())
            .map_err(|e| problem(&path, &e))
    }

    fn overwrite(&self, serial: &str) -> Result<(), Problem> {
        let blocks = self.blocks(serial)?;
        let (mut file, path) = self.open(serial, true)?;
        let zeros = vec![0; 1 << 20];
        let mut left = blocks * BLOCK as u64;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all(&zeros[..now]).map_err(|e| problem(&path, &e))?;
            left -= now as u64;
        }
        file.sync_all().map_err(|e| problem(&path, &e))
    }

    fn power_off(&self) {
        if let Err(error) = std::process::Command::new("poweroff").arg("-f").status() {
            tracing::error!(%error, "could not switch off");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_sysfs_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("sys/class/dmi/id/product_uuid", "123E4567-E89B-12D3-A456-426614174000\n");
        put("sys/block/sda/device/model", "Disk\n");
        put("sys/block/sda/device/vpd_pg80", "\0\u{1}\0\u{4} S42\0");
        put("sys/block/sda/size", "16\n");
        put("sys/block/loop0/size", "8\n");
        put("sys/class/net/eth0/device/x", "");
        put("sys/class/net/eth0/address", "02:00:00:00:00:01\n");
        put("sys/bus/pci/devices/0000:00:01.0/vendor", "0x8086\n");
        put(
            "proc/cpuinfo",
            "processor : 0\nphysical id : 0\nmodel name : M\ncpu cores : 2\n\nprocessor : 1\nphysical id : 0\n",
        );
        put("proc/sys/vm/drop_caches", "");
        put("dev/sda", &"x".repeat(16 * 512));
        let machine = Linux::new(folder.path());
        let seen = machine.hardware();
        assert_eq!(seen.system_uuid, "123e4567-e89b-12d3-a456-426614174000");
        assert_eq!(
            seen.drives
                .iter()
                .map(|d| (d.serial_number.as_str(), d.capacity_bytes))
                .collect::<Vec<_>>(),
            [("S42", 8192)]
        );
        assert_eq!(
            (
                seen.processors.len(),
                seen.processors[0].threads,
                seen.network_interfaces.len(),
                seen.pci_devices.len()
            ),
            (1, 2, 1, 1)
        );
        assert!(crate::sampling::verify(&machine, "run", "S42", "Overwrite").is_err());
        crate::sampling::mark(&machine, "run", "S42").unwrap();
        assert!(crate::sampling::verify(&machine, "run", "S42", "CryptographicErase").is_err());
        machine.overwrite("S42").unwrap();
        assert!(crate::sampling::verify(&machine, "run", "S42", "Overwrite").is_ok());
        assert!(machine.blocks("nothing").is_err());
    }
}
