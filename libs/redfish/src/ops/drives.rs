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
    drives.retain(Doc::is_present);
    drives
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
    }
}

/// Drives as far as they can be read; the reader remembers the rest.
pub async fn read(client: &Client, members: &Members<'_>, system: &Doc) -> Vec<Drive> {
    let mut drives = Vec::new();
    for doc in documents(members, system).await {
        drives.push(drive_of(client, &doc, false).await);
    }
    drives
}

/// All drives, or the reason why not all of them can be read: an erase that misses a drive is worse than none.
pub async fn read_all(client: &Client, system: &Doc) -> Result<std::result::Result<Vec<Drive>, String>> {
    if system.link("Storage").is_none() && system.link("SimpleStorage").is_none() {
        return Ok(Err("the BMC shows no storage".to_owned()));
    }
    let members = Members::new(client);
    let mut drives = Vec::new();
    for doc in documents(&members, system).await {
        drives.push(drive_of(client, &doc, true).await);
    }
    let unreadable = members.unreadable();
    Ok(if unreadable.is_empty() {
        Ok(drives)
    } else {
        Err(unreadable.join("; "))
    })
}

/// Asks for an erase; the task to follow, if the BMC began one.
pub async fn secure_erase(client: &Client, drive_uri: &str, sanitization_type: &str) -> Result<Option<tasks::Handle>> {
    let target = erase_target(client, drive_uri).await?;
    let body = if sanitization_type.is_empty() {
        json!({})
    } else {
        json!({"SanitizationType": sanitization_type})
    };
    let reply = client.post(&target, &body).await?;
    Ok(tasks::begun(&reply))
}

/// Where an erase is asked for.
pub async fn erase_target(client: &Client, drive_uri: &str) -> Result<String> {
    let drive = client.get(drive_uri).await?;
    let action = drive.action("#Drive.SecureErase").and_then(|a| a.text("target"));
    action.ok_or_else(|| Error::Unsupported("Drive.SecureErase".to_owned()))
}
