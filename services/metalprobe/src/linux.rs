//! A real machine under Linux, seen through sysfs.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ironyard_types::{
    Clock, EraseCommand, MacAddress, SystemClock, SystemUuid,
    hardware::{Drive, Hardware, NetworkInterface, PciDevice, Processor},
};

use crate::{
    BLOCK, Block, Machine, Problem, dmi,
    erase::Tools,
    sysfs::{Extent, Sysfs},
};

/// Nothing new for so long, and nothing missing: this is all.
const SETTLED: Duration = Duration::from_secs(10);
/// What has not come by then is told as missing.
const LATEST: Duration = Duration::from_secs(60);

/// A machine whose `/sys`, `/proc` and `/dev` lie under a root (`/`, or a copy of them in a test).
pub struct Linux {
    sysfs: Sysfs,
    pub(crate) tools: Tools,
}

impl Linux {
    /// The machine under this root.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            sysfs: Sysfs(root.into()),
            tools: Tools::default(),
        }
    }

    /// Waits until drives and their controllers have come up, or do not any more: drivers look for them in their own time.
    pub async fn settle(&self) {
        let (began, mut before, mut since) = (Instant::now(), None, Instant::now());
        loop {
            let now = (self.sysfs.entries("sys/block"), self.sysfs.unreachable_storage());
            let missing = !now.1.is_empty();
            if before.as_ref() != Some(&now) {
                (before, since) = (Some(now), Instant::now());
            }
            if since.elapsed() >= if missing { LATEST } else { SETTLED } || began.elapsed() >= LATEST {
                return;
            }
            tokio::time::sleep(SETTLED / 20).await;
        }
    }

    fn text(&self, path: &str) -> String {
        self.sysfs.text(path)
    }

    fn entries(&self, path: &str) -> Vec<String> {
        self.sysfs.entries(path)
    }

    fn interfaces(&self) -> Vec<NetworkInterface> {
        let names = self
            .entries("sys/class/net")
            .into_iter()
            .filter(|n| self.sysfs.path(&format!("sys/class/net/{n}/device")).exists());
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
            class_code: id(format!("sys/bus/pci/devices/{address}/class")),
            address,
            ..PciDevice::default()
        };
        self.entries("sys/bus/pci/devices").into_iter().map(each).collect()
    }

    /// The drives, with what they can do to erase themselves.
    fn drives(&self) -> Vec<Drive> {
        let drives = self.sysfs.drives().into_iter().map(|mut found| {
            if let Some(first) = found.extents.first().filter(|_| is_nvme(&found.extents)) {
                found.drive.erase_commands = self.tools.nvme_commands(&self.device(first));
            }
            found.drive
        });
        drives.collect()
    }

    fn device(&self, extent: &Extent) -> PathBuf {
        self.sysfs.path(&format!("dev/{}", extent.name))
    }

    /// The block devices of a drive, in the order of its blocks.
    fn extents(&self, serial: &str) -> Result<Vec<Extent>, Problem> {
        let mut drives = self.sysfs.drives();
        let at = drives.iter().position(|d| !serial.is_empty() && d.drive.serial_number == serial);
        let at = at.ok_or_else(|| Problem(format!("no drive has serial number {serial}")))?;
        Ok(drives.swap_remove(at).extents)
    }

    fn open(&self, extent: &Extent, write: bool) -> Result<(File, PathBuf), Problem> {
        if write {
            self.sysfs.allow_writing(&extent.name)?;
        }
        let path = self.device(extent);
        let file = OpenOptions::new().read(true).write(write).open(&path);
        Ok((file.map_err(|e| problem(&path, &e))?, path))
    }

    /// Whether what was written to a block device is there by each of its other names: else they are drives of their own, which nobody can tell apart.
    fn same_by_all_paths(&self, serial: &str, extent: &Extent, start: u64, written: &[&(u64, Block)]) -> Result<(), Problem> {
        if extent.paths.is_empty() || written.is_empty() {
            return Ok(());
        }
        self.drop_cache()?;
        for name in &extent.paths {
            let path = self.sysfs.path(&format!("dev/{name}"));
            let file = File::open(&path).map_err(|e| problem(&path, &e))?;
            for (block, bytes) in written {
                let mut read = [0; BLOCK];
                file.read_exact_at(&mut read, (block - start) * BLOCK as u64)
                    .map_err(|e| problem(&path, &e))?;
                if read != *bytes {
                    let (one, other) = (&extent.name, name);
                    return Err(Problem(format!(
                        "{one} and {other} are two drives that both show serial number {serial}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// What was written before an erase must not be read from the kernel's cache after it.
    fn drop_cache(&self) -> Result<(), Problem> {
        let path = self.sysfs.path("proc/sys/vm/drop_caches");
        std::fs::write(&path, "3").map_err(|e| problem(&path, &e))
    }
}

pub(crate) fn problem(path: &Path, error: &std::io::Error) -> Problem {
    Problem(format!("{}: {error}", path.display()))
}

impl Machine for Linux {
    fn hardware(&self) -> Hardware {
        let dmi = |name: &str| self.text(&format!("sys/class/dmi/id/{name}"));
        let table = std::fs::read(self.sysfs.path("sys/firmware/dmi/tables/DMI")).unwrap_or_default();
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
        let unreachable = self.sysfs.unreachable_storage();
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
            parts: vec![],
            unreadable: unreachable.clone(),
            unreadable_storage: unreachable,
            read_at: SystemClock.now(),
        }
    }

    fn blocks(&self, serial: &str) -> Result<u64, Problem> {
        Ok(self.extents(serial)?.iter().map(|e| e.blocks).sum())
    }

    fn read(&self, serial: &str, blocks: &[u64]) -> Result<Vec<Block>, Problem> {
        self.drop_cache()?;
        let mut out = vec![[0; BLOCK]; blocks.len()];
        let mut start = 0;
        for extent in self.extents(serial)? {
            let end = start + extent.blocks;
            let here = blocks.iter().zip(&mut out).filter(|(block, _)| (start..end).contains(*block));
            let (file, path) = self.open(&extent, false)?;
            for (block, bytes) in here {
                file.read_exact_at(bytes, (block - start) * BLOCK as u64)
                    .map_err(|e| problem(&path, &e))?;
            }
            start = end;
        }
        match blocks.iter().find(|block| **block >= start) {
            Some(block) => Err(Problem(format!("drive {serial} has {start} blocks, and none {block}"))),
            None => Ok(out),
        }
    }

    fn write(&self, serial: &str, blocks: &[(u64, Block)]) -> Result<(), Problem> {
        let mut start = 0;
        for extent in self.extents(serial)? {
            let end = start + extent.blocks;
            let (file, path) = self.open(&extent, true)?;
            for (block, bytes) in blocks.iter().filter(|(block, _)| (start..end).contains(block)) {
                file.write_all_at(bytes, (block - start) * BLOCK as u64)
                    .map_err(|e| problem(&path, &e))?;
            }
            file.sync_all().map_err(|e| problem(&path, &e))?;
            let here: Vec<_> = blocks.iter().filter(|(block, _)| (start..end).contains(block)).collect();
            self.same_by_all_paths(serial, &extent, start, &here)?;
            start = end;
        }
        match blocks.iter().find(|(block, _)| *block >= start) {
            Some((block, _)) => Err(Problem(format!("drive {serial} has {start} blocks, and none {block}"))),
            None => Ok(()),
        }
    }

    fn erase(&self, serial: &str, command: EraseCommand) -> Result<(), Problem> {
        if command == EraseCommand::Overwrite {
            return self.overwrite(serial);
        }
        let extents = self.extents(serial)?;
        if !is_nvme(&extents) {
            return Err(Problem(format!("drive {serial} is no NVMe drive")));
        }
        let namespaces: Vec<PathBuf> = extents.iter().map(|extent| self.device(extent)).collect();
        self.tools.nvme_erase(&namespaces, command)
    }

    fn power_off(&self) {
        crate::init::power_off();
    }
}

impl Linux {
    /// Overwrites every block with zeros.
    fn overwrite(&self, serial: &str) -> Result<(), Problem> {
        let zeros = vec![0; 1 << 20];
        for extent in self.extents(serial)? {
            let (mut file, path) = self.open(&extent, true)?;
            let mut left = extent.blocks * BLOCK as u64;
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                file.write_all(&zeros[..now]).map_err(|e| problem(&path, &e))?;
                left -= now as u64;
            }
            file.sync_all().map_err(|e| problem(&path, &e))?;
        }
        Ok(())
    }
}

/// Whether these are namespaces of an NVMe drive.
fn is_nvme(extents: &[Extent]) -> bool {
    !extents.is_empty() && extents.iter().all(|extent| extent.name.starts_with("nvme"))
}

#[cfg(test)]
mod tests {
    use ironyard_types::sampling::digest;

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
        let old = digest(&[b'x'; BLOCK]);
        let before = crate::sampling::mark_drive(&machine, "seed", "S42").unwrap();
        assert!(before.len() == 16 && before.iter().all(|s| s.digest == old));
        let marked = crate::sampling::read_again(&machine, "seed", "fresh", "S42").unwrap();
        assert!(marked.iter().all(|s| s.digest != old));
        machine.overwrite("S42").unwrap();
        let after = crate::sampling::read_again(&machine, "seed", "fresh", "S42").unwrap();
        assert!(after.len() == 16 && after.iter().all(|s| s.digest == digest(&[0; BLOCK])));
        assert!(machine.read("S42", &[16]).is_err() && machine.write("S42", &[(16, [0; BLOCK])]).is_err());
        assert!(machine.blocks("nothing").is_err());
    }

    #[test]
    fn two_drives_that_look_like_one_are_told_from_two_paths_to_one() {
        for two_drives in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let put = |path: &str, text: &str| {
                let path = folder.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            };
            put("proc/sys/vm/drop_caches", "");
            for name in ["sda", "sdb"] {
                put(&format!("sys/block/{name}/device/wwid"), "naa.5000\n");
                put(&format!("sys/block/{name}/device/vpd_pg80"), "\0\u{1}\0\u{4} S42\0");
                put(&format!("sys/block/{name}/size"), "16\n");
            }
            put("dev/sda", &"x".repeat(16 * 512));
            let other = folder.path().join("dev/sdb");
            if two_drives {
                std::fs::copy(folder.path().join("dev/sda"), other).unwrap();
            } else {
                std::os::unix::fs::symlink("sda", other).unwrap();
            }
            let machine = Linux::new(folder.path());
            assert_eq!(machine.hardware().drives.len(), 1);
            let marked = crate::sampling::mark_drive(&machine, "seed", "S42");
            assert_eq!(marked.is_err(), two_drives, "{marked:?}");
        }
    }

    #[test]
    fn a_drive_of_several_block_devices_is_read_and_erased_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("proc/sys/vm/drop_caches", "");
        for (name, blocks) in [("mmcblk0", 8), ("mmcblk0boot0", 4)] {
            put(&format!("sys/block/{name}/device/serial"), "0xabc\n");
            put(&format!("sys/block/{name}/size"), &format!("{blocks}\n"));
            put(&format!("dev/{name}"), &"x".repeat(blocks * 512));
        }
        put("sys/block/mmcblk0boot0/force_ro", "1\n");
        let machine = Linux::new(folder.path());
        assert_eq!(machine.blocks("0xabc").unwrap(), 12);
        machine.write("0xabc", &[(7, [1; BLOCK]), (8, [2; BLOCK])]).unwrap();
        assert_eq!(machine.read("0xabc", &[7, 8, 11]).unwrap(), [[1; BLOCK], [2; BLOCK], [b'x'; BLOCK]]);
        machine.overwrite("0xabc").unwrap();
        for name in ["mmcblk0", "mmcblk0boot0"] {
            let bytes = std::fs::read(folder.path().join("dev").join(name)).unwrap();
            assert!(bytes.iter().all(|b| *b == 0), "{name}");
        }
    }
}
