//! Simulated machines that run the real agent when they boot from its medium.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use ironyard_bmc_simulator::{Machine as Simulated, OnBoot};
use ironyard_metalprobe::{BLOCK, Block, Machine, Problem, channel};
use ironyard_types::{
    Clock, EraseCommand, SystemClock,
    agent_image::{AgentConfiguration, MARKER, WINDOW},
    hardware::{Drive, Hardware, MemoryModule, Neighbor, NetworkInterface, PciDevice, Processor},
};
use tokio::net::TcpSocket;

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
        let unreachable = if self.0.has_storage_without_driver() {
            vec!["storage controller 0000:00:17.0 (8086:a282): no driver for it in the agent's image".to_owned()]
        } else {
            vec![]
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
                class_code: "010802".to_owned(),
                ..PciDevice::default()
            }],
            unreadable: unreachable.clone(),
            unreadable_storage: unreachable,
            read_at: SystemClock.now(),
            ..Hardware::default()
        }
    }

    fn blocks(&self, serial: &str) -> Result<u64, Problem> {
        self.drive(serial, |d| d.capacity / BLOCK as u64)
    }

    fn read(&self, serial: &str, blocks: &[u64]) -> Result<Vec<Block>, Problem> {
        self.drive(serial, |d| blocks.iter().map(|block| d.read(*block)).collect())
    }

    fn write(&self, serial: &str, blocks: &[(u64, Block)]) -> Result<(), Problem> {
        self.drive(serial, |d| blocks.iter().for_each(|(block, bytes)| d.write(*block, *bytes)))
    }

    fn erase(&self, serial: &str, command: EraseCommand) -> Result<(), Problem> {
        if command != EraseCommand::Overwrite {
            return Err(Problem(format!("drive {serial} has no command {}", command.as_str())));
        }
        // A drive that fails or lies does so from inside too.
        self.drive(serial, |d| match d.behaviour {
            ironyard_bmc_simulator::EraseBehaviour::Good => {
                d.overwrite();
                Ok(())
            }
            ironyard_bmc_simulator::EraseBehaviour::Lies | ironyard_bmc_simulator::EraseBehaviour::Restores => Ok(()),
            ironyard_bmc_simulator::EraseBehaviour::Fails => Err(Problem(format!("drive {serial}: input/output error"))),
        })?
    }

    fn power_off(&self) {
        self.0.shut_down();
    }
}

/// What a simulated machine does with a medium: it fetches it from the address of its BMC, as a BMC does, and where it is an image of the
/// agent, runs the agent with the configuration in it. Any other boots into nothing.
pub fn boot_agent() -> OnBoot {
    Arc::new(move |machine, medium, _powered| {
        Box::pin(async move {
            if !medium.contains("/agent/") {
                return;
            }
            // A server that is away is waited for, as a firmware does that goes round its boot options.
            let mut tries = 0;
            let configuration = loop {
                match fetch(&machine, &medium).await {
                    Ok(configuration) => break configuration,
                    Err(Unbootable::Away(_)) if tries < 120 => tries += 1,
                    Err(Unbootable::Away(error) | Unbootable::Refused(error)) => {
                        return tracing::warn!(error, medium, "a simulated machine cannot boot from its medium");
                    }
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            };
            match channel(&configuration) {
                Ok(channel) => {
                    let outcome = ironyard_metalprobe::run(Arc::new(Inside(machine)), channel, configuration.token.expose()).await;
                    tracing::debug!(?outcome, "the agent ended");
                }
                Err(error) => tracing::warn!(%error, "the agent cannot reach discovery"),
            }
        })
    })
}

/// Why a machine cannot boot from a medium.
enum Unbootable {
    /// The server does not answer.
    Away(String),
    /// It does not give it, or it is no image of the agent.
    Refused(String),
}

/// The configuration in an image of the agent.
async fn fetch(machine: &Simulated, medium: &str) -> Result<AgentConfiguration, Unbootable> {
    let (status, image) = download(machine, medium).await.map_err(Unbootable::Away)?;
    if status.is_server_error() {
        return Err(Unbootable::Away(format!("the image is not served: {status}")));
    }
    if !status.is_success() {
        return Err(Unbootable::Refused(format!("the image is not served: {status}")));
    }
    let at = image.windows(MARKER.len()).position(|w| w == MARKER);
    let window = at.and_then(|at| image.get(at..at + WINDOW));
    let window = window.ok_or_else(|| Unbootable::Refused("it is no image of the agent".to_owned()))?;
    AgentConfiguration::from_window(window).map_err(|e| Unbootable::Refused(e.to_string()))
}

/// Gets a file over HTTP, from the address of the machine's BMC.
async fn download(machine: &Simulated, medium: &str) -> Result<(StatusCode, Bytes), String> {
    let address = medium
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    let mut found = tokio::net::lookup_host(address).await.map_err(|e| format!("{address:?}: {e}"))?;
    let server = found.next().ok_or_else(|| format!("{address:?} has no address"))?;
    let socket = if server.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(|e| e.to_string())?;
    // Simulated BMCs have addresses of their own on loopback; elsewhere they share the machine's.
    if server.ip().is_loopback() && server.is_ipv4() == machine.address().is_ipv4() {
        socket.bind(SocketAddr::new(machine.address(), 0)).map_err(|e| e.to_string())?;
    }
    let get = async {
        let stream = socket.connect(server).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let serving = tokio::spawn(connection);
        let request = Request::get(medium).header(header::HOST, address).body(Empty::<Bytes>::new());
        let response = sender
            .send_request(request.map_err(io::Error::other)?)
            .await
            .map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), 256 << 20)
            .collect()
            .await
            .map_err(io::Error::other)?;
        serving.abort();
        Ok::<_, io::Error>((status, body.to_bytes()))
    };
    get.await.map_err(|e| e.to_string())
}
