//! PCI devices and their functions.

use std::collections::HashMap;

use ironyard_types::hardware::PciDevice;
use serde_json::Value;

use super::topology::Surroundings;
use crate::{Doc, Members, uri::identity};

/// The documents of the PCI devices of a server and of its parts, each once: some show a device below the system and below its chassis.
pub(super) async fn devices(members: &Members<'_>, system: &Doc, around: &Surroundings) -> Vec<Doc> {
    let mut links = system.links("PCIeDevices");
    links.extend(around.parts.iter().flat_map(|part| part.links("PCIeDevices")));
    for collection in around.chassis().filter_map(|c| c.link("PCIeDevices")) {
        if let Some(doc) = members.get(&collection).await {
            links.extend(doc.links("Members"));
        }
    }
    let mut found: Vec<Doc> = Vec::new();
    for device in members.linked(links).await {
        let same = |d: &Doc| d.id() == device.id() && d.text("Name") == device.text("Name") && below_system(d) != below_system(&device);
        if device.is_present() && !found.iter().any(same) {
            found.push(device);
        }
    }
    found
}

fn below_system(doc: &Doc) -> bool {
    identity(&doc.id_path()).contains("/systems/")
}

/// One row for each function; a device that shows none is a row too. What has no standard document is read from the maker's own.
pub(super) async fn read(members: &Members<'_>, system: &Doc, devices: &[Doc]) -> Vec<PciDevice> {
    let mut links = Vec::new();
    for device in devices {
        let listed = device.part("Links").links("PCIeFunctions");
        match device.link("PCIeFunctions") {
            Some(collection) if listed.is_empty() => {
                if let Some(doc) = members.get(&collection).await {
                    links.extend(doc.links("Members"));
                }
            }
            _ => links.extend(listed),
        }
    }
    let mut functions: HashMap<String, Vec<Doc>> = HashMap::new();
    for function in members.linked(links).await.into_iter().filter(Doc::is_present) {
        let path = function.id_path();
        let above = path.split("/PCIeFunctions/").next().unwrap_or_default();
        let device = function.part("Links").link("PCIeDevice").unwrap_or_else(|| above.to_owned());
        let id = device
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        functions.entry(id).or_default().push(function);
    }
    let mut found = Vec::new();
    for device in devices {
        let own = functions.remove(&device.id().to_ascii_lowercase()).unwrap_or_default();
        let row = |address: String, function: Option<&Doc>| {
            let (vendor_id, device_id) = function.map(ids).unwrap_or_default();
            PciDevice {
                address,
                vendor_id,
                device_id,
                manufacturer: device.text_or_empty("Manufacturer"),
                name: name(device),
                class_code: function.map(class_code).unwrap_or_default(),
            }
        };
        match own.as_slice() {
            [] => found.push(row(device.id(), None)),
            [only] => found.push(row(device.id(), Some(only))),
            several => found.extend(several.iter().map(|f| row(format!("{}/{}", device.id(), f.id()), Some(f)))),
        }
    }
    if found.is_empty() {
        found = of_maker(members, system).await;
    }
    found
}

/// Six hexadecimal digits, with or without the prefix that the standard wants.
fn class_code(function: &Doc) -> String {
    let code = function.text_or_empty("ClassCode").to_ascii_lowercase();
    let digits = code.strip_prefix("0x").unwrap_or(&code);
    let is_code = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_code { digits.to_owned() } else { String::new() }
}

/// What a device is called. Some call each by its address, or by the kind of document that it is, and have its name elsewhere.
fn name(device: &Doc) -> String {
    let name = device
        .text("Name")
        .filter(|name| *name != device.id() && name != "PCIeDevices" && name != "PCIeDevice");
    let others = ["Model", "Description", "AssetTag"].into_iter().find_map(|key| device.text(key));
    name.or(others).unwrap_or_else(|| device.id())
}

/// HPE's newest list PCI devices in a form of their own only.
async fn of_maker(members: &Members<'_>, system: &Doc) -> Vec<PciDevice> {
    let oem = system.part("Oem");
    let link = ["Hpe", "Hp"].into_iter().find_map(|key| {
        let links = oem.part(key).part("Links");
        links.link("PCIDevices").or_else(|| links.links("PCIDevices").into_iter().next())
    });
    let Some(link) = link else { return vec![] };
    let hex = |doc: &Doc, key: &str| doc.integer::<u16>(key).map(|n| format!("{n:04x}")).unwrap_or_default();
    let rows = members.of(&link).await;
    rows.iter()
        .map(|d| PciDevice {
            address: d.id(),
            vendor_id: hex(d, "VendorID"),
            device_id: hex(d, "DeviceID"),
            manufacturer: String::new(),
            class_code: String::new(),
            name: d.text("Name").or_else(|| d.text("LocationString")).unwrap_or_default(),
        })
        .collect()
}

/// Vendors whose ids tell whether a number without a prefix is decimal, as HPE's iLO 5 writes them.
const VENDORS: [u16; 22] = [
    0x1000, 0x1002, 0x1022, 0x1028, 0x102b, 0x103c, 0x1077, 0x10de, 0x10df, 0x1344, 0x144d, 0x14e4, 0x1590, 0x15b3, 0x15d9, 0x1912, 0x19a2,
    0x1a03, 0x1b4b, 0x1b96, 0x1c5c, 0x8086,
];

/// Vendor and device, four hex digits each.
fn ids(function: &Doc) -> (String, String) {
    let text = |key: &str| match function.value.get(key) {
        Some(Value::String(text)) => text.trim().to_ascii_lowercase(),
        // A number is no text in hex.
        Some(Value::Number(number)) => number.as_u64().map(|n| format!("0x{n:04x}")).unwrap_or_default(),
        Some(_) | None => String::new(),
    };
    let vendor = text("VendorId");
    // Five digits are none in hex.
    let decimal = vendor.parse::<u16>().is_ok_and(|n| VENDORS.contains(&n) || vendor.len() == 5);
    let hex = |text: &str| {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16),
            None if decimal => text.parse(),
            None => u16::from_str_radix(text, 16),
        };
        number
            .ok()
            .filter(|n| !matches!(n, 0 | 0xffff))
            .map(|n| format!("{n:04x}"))
            .unwrap_or_default()
    };
    (hex(&vendor), hex(&text("DeviceId")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_four_hex_digits_whatever_they_are_written_in() {
        for (vendor, device, wanted) in [
            (json!("0x8086"), json!("0xA1D2"), ("8086", "a1d2")),
            (json!("4139"), json!("1336"), ("102b", "0538")),
            (json!("8086"), json!("1572"), ("8086", "1572")),
            (json!("32902"), json!("5490"), ("8086", "1572")),
            (json!("36869"), json!("655"), ("9005", "028f")),
            (json!(4139), json!(1338), ("102b", "053a")),
            (json!("0x0000"), json!(null), ("", "")),
            (json!("ffff"), json!([]), ("", "")),
        ] {
            let function = Doc {
                value: json!({"VendorId": vendor, "DeviceId": device}),
                ..Doc::default()
            };
            let (vendor, device) = ids(&function);
            assert_eq!((vendor.as_str(), device.as_str()), wanted, "{}", function.value);
        }
    }
}
