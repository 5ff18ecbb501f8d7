//! Everything that a system consists of, as far as it can be read.

use ironyard_types::{
    Timestamp,
    hardware::{Hardware, MemoryModule, Processor},
    is_placeholder_serial,
};

use super::{
    drives, nics, parts, pci,
    systems::{serial, uuid},
    topology,
};
use crate::{Client, Doc, Members, Result};

/// Parts that are told of.
const MOST_PARTS: usize = 2048;

/// Reads a system's hardware. Parts that cannot be read are named in `unreadable`; the rest is there.
pub async fn read(client: &Client, system: &Doc, now: Timestamp) -> Result<Hardware> {
    let members = Members::new(client);
    let around = topology::surroundings(client, &members, system).await;
    let memory = documents(&members, system, "Memory").await;
    let memory_modules = memory_modules(&memory);
    let total_gib = system.part("MemorySummary").number("TotalSystemMemoryGiB").unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, reason = "a sum of memory modules is far below 2^53")]
    let summary = (total_gib.clamp(0.0, 1e9) * 1024.0) as i64;
    let sum: i64 = memory_modules.iter().map(|m| m.capacity_mib).sum();
    let serial_number = serial(system);
    // Drives have a budget of their own: they decide what is to be wiped.
    let storage = drives::read(client, system, false).await;
    let (cpus, mut others): (Vec<Doc>, Vec<Doc>) = documents(&members, system, "Processors").await.into_iter().partition(is_cpu);
    let mut other_memory = Vec::new();
    for part in &around.parts {
        // Its CPUs are those of the host, shown a second time.
        let more = documents(&members, part, "Processors").await.into_iter();
        others.extend(more.filter(|processor| !is_cpu(processor)));
        other_memory.extend(documents(&members, part, "Memory").await);
    }
    let adapters = nics::adapters(&members, &around).await;
    let pci = pci::devices(&members, system, &around).await;
    let mut parts = parts::accelerators(&others, &other_memory);
    let serials = storage.drives.iter().map(|drive| drive.serial_number.clone()).collect();
    parts.extend(parts::read(&members, system, &around, &adapters, &pci, &serials).await);
    parts.truncate(MOST_PARTS);
    let mut hardware = Hardware {
        system_uuid: uuid(system),
        manufacturer: system.text_or_empty("Manufacturer"),
        model: system.text_or_empty("Model"),
        serial_number: if serial_number.is_empty() || around.shares_serial {
            chassis_serial(around.private_chassis())
        } else {
            serial_number
        },
        sku: system.text_or_empty("SKU"),
        bios_version: system.text_or_empty("BiosVersion"),
        host_name: system.text_or_empty("HostName"),
        health: drives::health(system),
        processors: cpus.iter().map(processor).collect(),
        memory_mib: if sum > 0 { sum } else { summary },
        memory_modules,
        drives: storage.drives,
        network_interfaces: nics::read(client, &members, system, &adapters).await,
        pci_devices: pci::read(&members, system, &pci).await,
        parts,
        unreadable: [members.unreadable(), storage.unreadable.clone()].concat(),
        unreadable_storage: storage.unreadable,
        read_at: now,
    };
    if hardware.processors.is_empty()
        && hardware.memory_modules.is_empty()
        && hardware.drives.is_empty()
        && hardware.network_interfaces.is_empty()
        && hardware.unreadable_storage.is_empty()
    {
        let why = "the BMC shows no processor, memory, drive or interface: some know them only once the machine has been started";
        hardware.unreadable_storage.push(why.to_owned());
    }
    Ok(hardware)
}

/// The serial number of what a server is built into: not that of a module or a card in it, which goes when that is replaced.
fn chassis_serial<'a>(mut chassis: impl Iterator<Item = &'a Doc>) -> String {
    let serial = |chassis: &Doc| chassis.text("SerialNumber").filter(|s| !is_placeholder_serial(s));
    let kind = |chassis: &Doc| chassis.text_or_empty("ChassisType");
    let whole = |chassis: &Doc| {
        !matches!(
            kind(chassis).as_str(),
            "Component" | "Module" | "Card" | "Expansion" | "Cartridge" | "IPBasedDrive"
        )
    };
    chassis
        .find_map(|chassis| serial(chassis).filter(|_| whole(chassis)))
        .unwrap_or_default()
}

/// What a system lists under this link and has: empty sockets and slots are listed as well.
async fn documents(members: &Members<'_>, system: &Doc, key: &str) -> Vec<Doc> {
    let Some(link) = system.link(key) else { return vec![] };
    members.of(&link).await.into_iter().filter(Doc::is_present).collect()
}

/// Dell and others list GPUs and FPGAs among the processors.
fn is_cpu(doc: &Doc) -> bool {
    matches!(doc.text("ProcessorType").as_deref(), Some("CPU") | None)
}

fn processor(doc: &Doc) -> Processor {
    Processor {
        socket: doc.text("Socket").unwrap_or_else(|| doc.id()),
        manufacturer: doc.text_or_empty("Manufacturer"),
        model: doc.text_or_empty("Model"),
        cores: doc.integer("TotalCores").unwrap_or(0),
        threads: doc.integer("TotalThreads").unwrap_or(0),
        max_speed_mhz: doc.integer("MaxSpeedMHz").unwrap_or(0),
    }
}

/// A module has a capacity.
fn memory_modules(docs: &[Doc]) -> Vec<MemoryModule> {
    let modules = docs.iter().map(|d| MemoryModule {
        slot: d.text("DeviceLocator").unwrap_or_else(|| d.id()),
        manufacturer: d.text_or_empty("Manufacturer"),
        part_number: d.text_or_empty("PartNumber"),
        serial_number: d.text_or_empty("SerialNumber"),
        capacity_mib: d.integer("CapacityMiB").unwrap_or(0),
        speed_mhz: d.integer("OperatingSpeedMhz").unwrap_or(0),
    });
    modules.filter(|m| m.capacity_mib > 0).collect()
}
