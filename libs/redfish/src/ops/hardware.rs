//! Everything that a system consists of, as far as it can be read.

use ironyard_types::{
    MacAddress, Timestamp,
    hardware::{Hardware, MemoryModule, NetworkInterface, PciDevice, Processor},
    is_placeholder_serial,
};

use super::{
    drives,
    systems::{serial, uuid},
};
use crate::{Client, Doc, Members, Result};

/// Reads a system's hardware. Parts that cannot be read are named in `unreadable`; the rest is there.
pub async fn read(client: &Client, system: &Doc, now: Timestamp) -> Result<Hardware> {
    let members = Members::new(client);
    // Drives have a budget of their own: they decide what is to be wiped.
    let storage = Members::new(client);
    let chassis = members.linked(system.part("Links").links("Chassis")).await;
    let memory_modules = memory(&members, system).await;
    let total_gib = system.part("MemorySummary").number("TotalSystemMemoryGiB").unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, reason = "a sum of memory modules is far below 2^53")]
    let summary = (total_gib.clamp(0.0, 1e9) * 1024.0) as i64;
    let sum: i64 = memory_modules.iter().map(|m| m.capacity_mib).sum();
    let chassis_serial = || {
        chassis
            .iter()
            .filter_map(|c| c.text("SerialNumber"))
            .find(|s| !is_placeholder_serial(s))
    };
    let serial_number = serial(system);
    Ok(Hardware {
        system_uuid: uuid(system),
        manufacturer: system.text_or_empty("Manufacturer"),
        model: system.text_or_empty("Model"),
        serial_number: if serial_number.is_empty() {
            chassis_serial().unwrap_or_default()
        } else {
            serial_number
        },
        sku: system.text_or_empty("SKU"),
        bios_version: system.text_or_empty("BiosVersion"),
        host_name: system.text_or_empty("HostName"),
        health: drives::health(system),
        processors: processors(&members, system).await,
        memory_mib: if sum > 0 { sum } else { summary },
        memory_modules,
        drives: drives::read(client, &storage, system).await,
        network_interfaces: interfaces(&members, system, &chassis).await,
        pci_devices: pci(&members, system, &chassis).await,
        unreadable: [members.unreadable(), storage.unreadable()].concat(),
        unreadable_storage: if storage.is_incomplete() { storage.unreadable() } else { vec![] },
        read_at: now,
    })
}

async fn processors(members: &Members<'_>, system: &Doc) -> Vec<Processor> {
    let Some(link) = system.link("Processors") else { return vec![] };
    let docs = members.of(&link).await;
    // Dell and others list GPUs and FPGAs here too.
    let cpus = docs
        .iter()
        .filter(|d| d.is_present() && matches!(d.text("ProcessorType").as_deref(), Some("CPU") | None));
    cpus.map(|d| Processor {
        socket: d.text("Socket").unwrap_or_else(|| d.id()),
        manufacturer: d.text_or_empty("Manufacturer"),
        model: d.text_or_empty("Model"),
        cores: d.integer("TotalCores").unwrap_or(0),
        threads: d.integer("TotalThreads").unwrap_or(0),
        max_speed_mhz: d.integer("MaxSpeedMHz").unwrap_or(0),
    })
    .collect()
}

async fn memory(members: &Members<'_>, system: &Doc) -> Vec<MemoryModule> {
    let Some(link) = system.link("Memory") else { return vec![] };
    let docs = members.of(&link).await;
    // Empty slots are listed as well: a module has a capacity.
    let modules = docs.iter().filter(|d| d.is_present()).map(|d| MemoryModule {
        slot: d.text("DeviceLocator").unwrap_or_else(|| d.id()),
        manufacturer: d.text_or_empty("Manufacturer"),
        part_number: d.text_or_empty("PartNumber"),
        serial_number: d.text_or_empty("SerialNumber"),
        capacity_mib: d.integer("CapacityMiB").unwrap_or(0),
        speed_mhz: d.integer("OperatingSpeedMhz").unwrap_or(0),
    });
    modules.filter(|m| m.capacity_mib > 0).collect()
}

async fn interfaces(members: &Members<'_>, system: &Doc, chassis: &[Doc]) -> Vec<NetworkInterface> {
    let mut found: Vec<NetworkInterface> = Vec::new();
    let mut add = |name: String, mac: Option<String>, speed: Option<i32>, up: bool| {
        let Some(mac) = mac.and_then(|m| MacAddress::parse(&m).ok()).map(|m| m.to_string()) else {
            return;
        };
        if mac != "00:00:00:00:00:00" && !found.iter().any(|n| n.mac_address == mac) {
            found.push(NetworkInterface {
                name,
                mac_address: mac,
                speed_mbps: speed.unwrap_or(0),
                link_up: up,
                neighbors: vec![],
            });
        }
    };
    if let Some(link) = system.link("EthernetInterfaces") {
        for d in members.of(&link).await {
            // The USB interface between host and BMC is no network interface of the server.
            if d.part("Links").link("HostInterface").is_some() || d.id() == "ToManager" {
                continue;
            }
            let mac = d
                .text("PermanentMACAddress")
                .filter(|m| MacAddress::parse(m).is_ok())
                .or_else(|| d.text("MACAddress"));
            add(
                d.text("Name").unwrap_or_else(|| d.id()),
                mac,
                d.integer("SpeedMbps"),
                d.text("LinkStatus").as_deref() == Some("LinkUp"),
            );
        }
    }
    for link in chassis.iter().filter_map(|c| c.link("NetworkAdapters")) {
        for adapter in members.of(&link).await {
            let Some(functions) = adapter.link("NetworkDeviceFunctions") else {
                continue;
            };
            for d in members.of(&functions).await {
                let ethernet = d.part("Ethernet");
                let mac = ethernet.text("PermanentMACAddress").or_else(|| ethernet.text("MACAddress"));
                add(format!("{} {}", adapter.id(), d.id()), mac, None, false);
            }
        }
    }
    found
}

async fn pci(members: &Members<'_>, system: &Doc, chassis: &[Doc]) -> Vec<PciDevice> {
    let mut links = system.links("PCIeDevices");
    for collection in chassis.iter().filter_map(|c| c.link("PCIeDevices")) {
        if let Some(doc) = members.get(&collection).await {
            links.extend(doc.links("Members"));
        }
    }
    let docs = members.linked(links).await;
    docs.iter()
        .filter(|d| d.is_present())
        .map(|d| PciDevice {
            address: d.id(),
            vendor_id: String::new(),
            device_id: String::new(),
            manufacturer: d.text_or_empty("Manufacturer"),
            name: d.text("Name").or_else(|| d.text("Model")).unwrap_or_default(),
        })
        .collect()
}
