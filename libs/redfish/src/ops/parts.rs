//! Parts that have no list of their own: whatever can be replaced, or told apart.

use std::collections::HashSet;

use ironyard_types::{hardware::Part, is_placeholder_serial};

use super::{drives::health, topology::Surroundings};
use crate::{Doc, Members};

fn part(kind: &str, doc: &Doc, uri: String) -> Part {
    let version = doc.text("FirmwareVersion").or_else(|| doc.text("FirmwarePackageVersion"));
    Part {
        kind: kind.to_owned(),
        name: doc.text("Name").unwrap_or_else(|| doc.id()),
        manufacturer: doc.text_or_empty("Manufacturer"),
        model: doc.text_or_empty("Model"),
        part_number: doc.text_or_empty("PartNumber"),
        serial_number: doc.text("SerialNumber").filter(|s| !is_placeholder_serial(s)).unwrap_or_default(),
        firmware_version: version.unwrap_or_default(),
        capacity_mib: doc.integer("CapacityMiB").unwrap_or(0),
        health: health(doc),
        uri,
    }
}

fn whole(kind: &str, doc: &Doc) -> Part {
    part(kind, doc, doc.id_path())
}

/// Whether a document says which part it is, beyond a name.
fn tells(part: &Part) -> bool {
    [&part.serial_number, &part.part_number, &part.model, &part.manufacturer]
        .into_iter()
        .any(|text| !text.is_empty())
}

/// Accelerators and their memory: of the system, and of the systems that are parts of it.
pub(super) fn accelerators(processors: &[Doc], memory: &[Doc]) -> Vec<Part> {
    let kind = |doc: &Doc| doc.text("ProcessorType").unwrap_or_else(|| "Accelerator".to_owned());
    let found = processors.iter().map(|doc| whole(&kind(doc), doc));
    found.chain(memory.iter().map(|doc| whole("AcceleratorMemory", doc))).collect()
}

/// Everything else.
pub(super) async fn read(
    members: &Members<'_>,
    system: &Doc,
    around: &Surroundings,
    adapters: &[Doc],
    pci: &[Doc],
    drives: &HashSet<String>,
) -> Vec<Part> {
    let mut found: Vec<Part> = Vec::new();
    for chassis in around.chassis().filter(|c| c.is_present()) {
        let own = whole("Chassis", chassis);
        if tells(&own) {
            found.push(own);
        }
    }
    for chassis in around.chassis() {
        supplies(members, chassis, &mut found).await;
    }
    found.extend(adapters.iter().map(|doc| {
        let mut adapter = whole("NetworkAdapter", doc);
        if adapter.firmware_version.is_empty() {
            let versions = doc.parts("Controllers").into_iter();
            adapter.firmware_version = versions.filter_map(|c| c.text("FirmwarePackageVersion")).next().unwrap_or_default();
        }
        adapter
    }));
    if let Some(link) = system.link("Storage") {
        for unit in members.of(&link).await {
            controllers(members, &unit, drives, &mut found).await;
        }
    }
    for (n, module) in system
        .parts("TrustedModules")
        .iter()
        .enumerate()
        .filter(|(_, module)| module.is_present())
    {
        let mut tpm = part("TPM", module, format!("{}#/TrustedModules/{n}", system.id_path()));
        if module.text("Model").is_none() {
            tpm.model = module.text_or_empty("InterfaceType");
        }
        if tells(&tpm) || !tpm.firmware_version.is_empty() {
            found.push(tpm);
        }
    }
    // A device with a serial number that nothing above has: a riser, a retimer, a card of a kind of its own.
    for device in pci {
        let card = whole("PCIeDevice", device);
        if !card.serial_number.is_empty() && !found.iter().any(|known| known.serial_number == card.serial_number) {
            found.push(card);
        }
    }
    found
}

/// Rows of one document of power supplies.
const MOST_SUPPLIES: usize = 64;

/// Power supplies: documents of their own, and rows of the old document that are none of these. Empty bays are listed as well.
async fn supplies(members: &Members<'_>, chassis: &Doc, found: &mut Vec<Part>) {
    let mut docs = Vec::new();
    if let Some(link) = chassis.link("PowerSubsystem")
        && let Some(power) = members.get(&link).await
        && let Some(link) = power.link("PowerSupplies")
    {
        docs.extend(members.of(&link).await.into_iter().map(|doc| (doc.id_path(), doc)));
    }
    if let Some(link) = chassis.link("Power")
        && let Some(power) = members.get(&link).await
    {
        let rows = power.parts("PowerSupplies").into_iter().enumerate();
        docs.extend(
            rows.take(MOST_SUPPLIES)
                .map(|(n, row)| (format!("{}#/PowerSupplies/{n}", power.id_path()), row)),
        );
    }
    let with_documents = docs.iter().any(|(uri, _)| !uri.contains('#'));
    for (uri, doc) in docs.into_iter().filter(|(_, doc)| doc.is_present()) {
        let row = uri.contains('#');
        let supply = part("PowerSupply", &doc, uri);
        let same =
            |known: &Part| known.uri == supply.uri || !supply.serial_number.is_empty() && known.serial_number == supply.serial_number;
        // Without a serial number nobody can tell whether a row is a supply of its own.
        let doubtful = row && with_documents && supply.serial_number.is_empty();
        if !doubtful && !found.iter().any(same) {
            found.push(supply);
        }
    }
}

/// Controllers of a storage unit: rows of it, or documents of their own.
async fn controllers(members: &Members<'_>, unit: &Doc, drives: &HashSet<String>, found: &mut Vec<Part>) {
    let rows = unit.parts("StorageControllers");
    let mut parts: Vec<Part> = rows
        .iter()
        .enumerate()
        .map(|(n, row)| part("StorageController", row, format!("{}#/StorageControllers/{n}", unit.id_path())))
        .collect();
    if parts.is_empty()
        && let Some(link) = unit.link("Controllers")
    {
        parts = members.of(&link).await.iter().map(|doc| whole("StorageController", doc)).collect();
    }
    // The controller of an NVMe drive is the drive.
    parts.retain(|part| part.serial_number.is_empty() || !drives.contains(&part.serial_number));
    found.extend(parts);
}
