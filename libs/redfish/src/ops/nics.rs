//! Network interfaces: from the system's own list, from the adapters of its chassis, and from what it can boot from.

use ironyard_types::{
    MacAddress,
    hardware::{Neighbor, NetworkInterface},
};

use super::{boot, topology::Surroundings};
use crate::{Client, Doc, Members, uri::identity};

/// What a port says of its link.
#[derive(Default)]
struct Port {
    path: String,
    macs: Vec<String>,
    speed_mbps: i32,
    up: bool,
    neighbor: Option<Neighbor>,
}

fn mac(text: &str) -> Option<String> {
    let mac = MacAddress::parse(text).ok()?.to_string();
    (mac != "00:00:00:00:00:00").then_some(mac)
}

fn port(doc: &Doc) -> Port {
    let ethernet = doc.part("Ethernet");
    let addresses = [ethernet.texts("AssociatedMACAddresses"), doc.texts("AssociatedNetworkAddresses")].concat();
    let gbps = doc.number("CurrentSpeedGbps").map(|speed| speed * 1000.0);
    let mbps = gbps.or_else(|| doc.number("CurrentLinkSpeedMbps")).unwrap_or(0.0);
    let heard = ethernet.part("LLDPReceive");
    let neighbor = Neighbor {
        chassis_id: heard.text_or_empty("ChassisId"),
        system_name: heard.text_or_empty("SystemName"),
        port_id: heard.text_or_empty("PortId"),
    };
    Port {
        path: identity(&doc.id_path()),
        macs: addresses.iter().filter_map(|a| mac(a)).collect(),
        #[expect(clippy::cast_possible_truncation, reason = "clamped just here")]
        speed_mbps: mbps.clamp(0.0, 1e9) as i32,
        up: matches!(doc.text("LinkStatus").as_deref(), Some("Up" | "LinkUp")),
        neighbor: (!neighbor.chassis_id.is_empty()).then_some(neighbor),
    }
}

#[derive(Default)]
struct Found(Vec<NetworkInterface>);

impl Found {
    /// Adds an interface, or what is new about one that is known.
    fn add(&mut self, name: String, address: Option<String>, speed: i32, up: bool, neighbor: Option<Neighbor>) {
        let Some(mac_address) = address.and_then(|a| mac(&a)) else { return };
        match self.0.iter_mut().find(|nic| nic.mac_address == mac_address) {
            Some(known) => {
                known.link_up |= up;
                known.speed_mbps = known.speed_mbps.max(speed);
                if known.neighbors.is_empty() {
                    known.neighbors.extend(neighbor);
                }
            }
            None => self.0.push(NetworkInterface {
                name,
                mac_address,
                speed_mbps: speed,
                link_up: up,
                neighbors: neighbor.into_iter().collect(),
            }),
        }
    }
}

/// Adapters of all chassis, each once.
pub(super) async fn adapters(members: &Members<'_>, around: &Surroundings) -> Vec<Doc> {
    let mut found: Vec<Doc> = Vec::new();
    for link in around.chassis().filter_map(|c| c.link("NetworkAdapters")) {
        for adapter in members.of(&link).await {
            let path = identity(&adapter.id_path());
            if adapter.is_present() && !found.iter().any(|known| identity(&known.id_path()) == path) {
                found.push(adapter);
            }
        }
    }
    found
}

/// All interfaces, by MAC address.
pub(super) async fn read(client: &Client, members: &Members<'_>, system: &Doc, adapters: &[Doc]) -> Vec<NetworkInterface> {
    let mut found = Found::default();
    if let Some(link) = system.link("EthernetInterfaces") {
        for d in members.of(&link).await {
            // The USB interface between host and BMC is no network interface of the server.
            if d.part("Links").link("HostInterface").is_some() || d.id() == "ToManager" {
                continue;
            }
            let address = d
                .text("PermanentMACAddress")
                .filter(|m| MacAddress::parse(m).is_ok())
                .or_else(|| d.text("MACAddress"));
            let name = d.text("Name").unwrap_or_else(|| d.id());
            let up = d.text("LinkStatus").as_deref() == Some("LinkUp");
            found.add(name, address, d.integer("SpeedMbps").unwrap_or(0), up, None);
        }
    }
    for adapter in adapters {
        let mut ports = Vec::new();
        // The newer list first; some show both.
        for key in ["Ports", "NetworkPorts"] {
            if let (Some(link), true) = (adapter.link(key), ports.is_empty()) {
                ports.extend(members.of(&link).await.iter().map(port));
            }
        }
        if let Some(functions) = adapter.link("NetworkDeviceFunctions") {
            for d in members.of(&functions).await {
                let ethernet = d.part("Ethernet");
                let address = ethernet.text("PermanentMACAddress").or_else(|| ethernet.text("MACAddress"));
                let links = d.part("Links");
                let assigned = ["PhysicalNetworkPortAssignment", "PhysicalPortAssignment"];
                let assigned: Vec<String> = assigned
                    .into_iter()
                    .filter_map(|key| links.link(key))
                    .map(|l| identity(&l))
                    .collect();
                let own = address.as_deref().and_then(mac);
                let port = ports
                    .iter()
                    .find(|port| own.as_ref().is_some_and(|own| port.macs.contains(own)))
                    .or_else(|| ports.iter().find(|port| assigned.contains(&port.path)));
                let (speed, up) = port.map_or((0, false), |port| (port.speed_mbps, port.up));
                let neighbor = port.and_then(|port| port.neighbor.clone());
                found.add(format!("{} {}", adapter.id(), d.id()), address, speed, up, neighbor);
            }
        }
        for port in ports {
            // A second address of a port is that of a function that is not shown, or of the BMC beside it.
            if let [first, ..] = port.macs.as_slice() {
                let id = port.path.rsplit('/').next().unwrap_or_default();
                found.add(
                    format!("{} {id}", adapter.id()),
                    Some(first.clone()),
                    port.speed_mbps,
                    port.up,
                    port.neighbor,
                );
            }
        }
    }
    // Some machines show the addresses of their interfaces only where they boot from.
    for option in boot::options(client, system).await {
        // A locally administered one is the USB interface to the BMC.
        let global = MacAddress::parse(&option.mac).is_ok_and(|mac| !mac.is_local());
        found.add(option.display_name, Some(option.mac).filter(|_| global), 0, false, None);
    }
    found.0
}
