//! Drives and their erasure.

use ironyard_types::{
    hardware::{Drive, Health},
    is_placeholder_serial,
};
use serde_json::json;

use super::{power::allowable, tasks};
use crate::{Client, Doc, Error, Members, Result};

/// Health, from `Status`.
pub fn health(doc: &Doc) -> Option<Health> {
    match doc.part("Status").text("Health").as_deref() {
        Some("OK" | "Ok") => Some(Health::Ok),
        Some("Warning") => Some(Health::Warning),
        Some("Critical") => Some(Health::Critical),
        Some(_) | None => None,
    }
}

/// The documents of a system's drives.
async fn documents(members: &Members<'_>, system: &Doc) -> Vec<Doc> {
    let mut links = Vec::new();
    if let Some(storage) = system.link("Storage") {
        for unit in members.of(&storage).await {
            // An array of links, or (XCC3, some OpenBMC) a link to a collection.
            links.extend(unit.links("Drives"));
            if let Some(collection) = unit.link("Drives") {
                links.extend(members.of(&collection).await.iter().map(Doc::id_path));
            }
        }
    }
    let mut drives = members.linked(links).await;
    drives.retain(|drive| !is_virtual(drive));
    if drives.is_empty()
        && let Some(simple) = system.link("SimpleStorage")
    {
        for unit in members.of(&simple).await {
            let devices = unit
                .value
                .get("Devices")
                .and_then(serde_json::Value::as_array)
                .cloned()
                .unwrap_or_default();
            drives.extend(devices.into_iter().map(|value| Doc {
                uri: unit.uri.clone(),
                etag: None,
                size: 0,
                value,
            }));
        }
    }
    drives.retain(|drive| drive.is_present() && !is_virtual(drive));
    drives
}

/// Whether a drive is one that the BMC plays to the host over USB: virtual media, which hold nothing of the machine's.
fn is_virtual(drive: &Doc) -> bool {
    let name = [drive.text_or_empty("Model"), drive.text_or_empty("Name")]
        .join(" ")
        .to_ascii_lowercase();
    let kinds = [
        "cdrom",
        "cd-rom",
        "cd/dvd",
        "virtual cd",
        "virtual dvd",
        "hdisk",
        "floppy",
        "virtual media",
    ];
    drive.text("SerialNumber").is_none() && name.contains("virtual") && kinds.iter().any(|kind| name.contains(kind))
}

async fn drive_of(client: &Client, doc: &Doc, with_actions: bool) -> Drive {
    let action = doc.action("#Drive.SecureErase");
    let sanitization_types = match &action {
        Some(action) if with_actions => allowable(client, action, "SanitizationType").await,
        Some(action) => action.texts("SanitizationType@Redfish.AllowableValues"),
        None => vec![],
    };
    Drive {
        uri: doc.id_path(),
        name: doc.text("Name").unwrap_or_else(|| doc.id()),
        serial_number: doc.text("SerialNumber").filter(|s| !is_placeholder_serial(s)).unwrap_or_default(),
        manufacturer: doc.text_or_empty("Manufacturer"),
        model: doc.text_or_empty("Model"),
        revision: doc.text_or_empty("Revision"),
        media_type: doc.text_or_empty("MediaType"),
        protocol: doc.text_or_empty("Protocol"),
        capacity_bytes: doc.integer("CapacityBytes").unwrap_or(0),
        secure_erase: action.is_some(),
        sanitization_types,
        device: String::new(),
        health: health(doc),
        erase_commands: vec![],
    }
}

/// The drives of a system, and what may hide more of them.
#[derive(Debug, Default)]
pub struct Found {
    /// Drives.
    pub drives: Vec<Drive>,
    /// Why there may be more: an erase that misses a drive is worse than none. Empty: these are all.
    pub unreadable: Vec<String>,
}

/// Reads the drives of a system; with what each can do to erase itself, where that is asked for.
pub async fn read(client: &Client, system: &Doc, with_actions: bool) -> Found {
    let members = Members::new(client);
    let mut found = Found::default();
    for doc in documents(&members, system).await {
        found.drives.push(drive_of(client, &doc, with_actions).await);
    }
    found.unreadable = members.unreadable();
    if system.link("Storage").is_none() && system.link("SimpleStorage").is_none() {
        found.unreadable.push("the BMC shows no storage".to_owned());
    }
    if members.is_incomplete() && found.unreadable.is_empty() {
        found.unreadable.push("the BMC lists more than is read of it".to_owned());
    }
    found
}

/// Asks for an erase where `erase_target` says; the task to follow, if the BMC began one.
pub async fn secure_erase(client: &Client, target: &str, sanitization_type: &str) -> Result<Option<tasks::Handle>> {
    let body = if sanitization_type.is_empty() {
        json!({})
    } else {
        json!({"SanitizationType": sanitization_type})
    };
    let reply = client.post(target, &body).await?;
    Ok(tasks::begun(&reply))
}

/// Where an erase is asked for.
pub async fn erase_target(client: &Client, drive_uri: &str) -> Result<String> {
    let drive = client.get(drive_uri).await?;
    let action = drive.action("#Drive.SecureErase").and_then(|a| a.text("target"));
    action.ok_or_else(|| Error::Unsupported("Drive.SecureErase".to_owned()))
}
