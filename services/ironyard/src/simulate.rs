//! Simulated machines that run the real agent when they boot from its medium.

use std::{path::PathBuf, sync::Arc};

use ironyard_bmc_simulator::{Machine as Simulated, OnBoot};
use ironyard_metalprobe::{BLOCK, Machine, Problem};
use ironyard_rpc::{Channel, client::TlsConfig};
use ironyard_types::{
    Clock, SystemClock,
    hardware::{Drive, Hardware, MemoryModule, Neighbor, NetworkInterface, PciDevice, Processor},
};

struct Inside(Arc<Simulated>);

impl Inside {
    fn drive<R>(&self, serial: &str, work: impl FnOnce(&mut ironyard_bmc_simulator::Drive) -> R) -> Result<R, Problem> {
        self.0
            .with_drive(serial, work)
            .ok_or_else(|| Problem(format!("no drive has serial number {serial}")))
    }
}

impl Machine for Inside {
    fn hardware(&self) -> Hardware {
        let config = &self.0.config;
        let drives = self.0.drives().into_iter().enumerate().map(|(n, drive)| Drive {
            name: format!("disk{n}"),
            device: if drive.model.contains("NVMe") {
                format!("/dev/nvme{n}n1")
            } else {
                format!("/dev/sd{}", char::from(b'a' + u8::try_from(n % 26).unwrap_or(0)))
            },
            serial_number: drive.serial,
            model: drive.model,
            media_type: "SSD".to_owned(),
            capacity_bytes: i64::try_from(drive.capacity).unwrap_or(i64::MAX),
            ..Drive::default()
        });
        let nic = |port: u8| NetworkInterface {
            name: format!("eth{}", port - 1),
            mac_address: config.mac(port),
            speed_mbps: 25000,
            link_up: true,
            neighbors: vec![Neighbor {
                chassis_id: "leaf".to_owned(),
                system_name: format!("leaf-{port}"),
                port_id: format!("Ethernet{}", config.number),
            }],
        };
        let cpu = |n: i32| Processor {
            socket: n.to_string(),
            model: "Simulated 32-Core".to_owned(),
            cores: 32,
            threads: 64,
            ..Processor::default()
        };
        let dimm = |n: i32| MemoryModule {
            slot: format!("DIMM{n}"),
            capacity_mib: 32768,
            speed_mhz: 4800,
            ..MemoryModule::default()
        };
        Hardware {
            system_uuid: config.uuid.clone(),
            manufacturer: "Ironyard".to_owned(),
            model: "Simulated 1U".to_owned(),
            serial_number: config.serial(),
            bios_version: config.bios_version.clone(),
            processors: (0..2).map(cpu).collect(),
            memory_modules: (1..=4).map(dimm).collect(),
            memory_mib: 4 * 32768,
            drives: drives.collect(),
            network_interfaces: vec![nic(1), nic(2)],
            pci_devices: vec![PciDevice {
                address: "0000:01:00.0".to_owned(),
                vendor_id: "1b36".to_owned(),
                device_id: "0010".to_owned(),
                ..PciDevice::default()
            }],
            read_at: SystemClock.now(),
            ..Hardware::default()
        }
    }

    fn blocks(&self, serial: &str) -> Result<u64, Problem> {
        self.drive(serial, |d| d.capacity / BLOCK as u64)
    }

    fn read(&self, serial: &str, block: u64) -> Result<[u8; BLOCK], Problem> {
        self.drive(serial, |d| d.read(block))
    }

    fn write(&self, serial: &str, block: u64, bytes: &[u8; BLOCK]) -> Result<(), Problem> {
        self.drive(serial, |d| d.write(block, *bytes))
    }

    fn overwrite(&self, serial: &str) -> Result<(), Problem> {
        // A drive that fails or lies does so from inside too.
        self.drive(serial, |d| match d.behaviour {
            ironyard_bmc_simulator::EraseBehaviour::Good => {
                d.overwrite();
                Ok(())
            }
            ironyard_bmc_simulator::EraseBehaviour::Lies => Ok(()),
            ironyard_bmc_simulator::EraseBehaviour::Fails => Err(Problem(format!("drive {serial}: input/output error"))),
        })?
    }

    fn power_off(&self) {
        self.0.shut_down();
    }
}

/// What a simulated machine does with a medium: the agent's is `http(s)://DISCOVERY/agent/TOKEN.iso`; any other boots into nothing.
pub fn boot_agent(ca: Option<PathBuf>) -> OnBoot {
    Arc::new(move |machine, medium, _powered| {
        let ca = ca.clone();
        Box::pin(async move {
            let Some((discovery, token)) = medium.split_once("/agent/") else {
                return;
            };
            let tls = ca.map(|ca| TlsConfig {
                server_name: None,
                ca,
                certificate: None,
                key: None,
            });
            match Channel::new(discovery, tls.as_ref()) {
                Ok(channel) => {
                    let outcome = ironyard_metalprobe::run(Arc::new(Inside(machine)), channel, token.trim_end_matches(".iso")).await;
                    tracing::debug!(?outcome, "the agent ended");
                }
                Err(error) => tracing::warn!(%error, "the agent cannot reach discovery"),
            }
        })
    })
}
