//! RAID volumes.

use serde_json::json;

use super::tasks;
use crate::{Client, Doc, Error, Members, Result};

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Id within its controller.
    pub id: String,
    /// Controller.
    pub storage: String,
    /// Name.
    pub name: String,
    /// `RAID0`, `RAID1`, …
    pub raid_type: String,
    /// Bytes.
    pub capacity_bytes: i64,
    /// Serial numbers cost a request each; paths do not.
    pub drives: Vec<String>,
    /// Path.
    pub uri: String,
}

async fn units(client: &Client, members: &Members<'_>, system: &Doc) -> Result<Vec<Doc>> {
    let storage = system.link("Storage").ok_or_else(|| Error::Unsupported("storage".to_owned()))?;
    client.get(&storage).await?;
    Ok(members.of(&storage).await)
}

fn volume_of(storage: &str, doc: &Doc) -> Volume {
    Volume {
        id: doc.id(),
        storage: storage.to_owned(),
        name: doc.text("Name").or_else(|| doc.text("DisplayName")).unwrap_or_default(),
        raid_type: doc.text("RAIDType").or_else(|| doc.text("VolumeType")).unwrap_or_default(),
        capacity_bytes: doc.integer("CapacityBytes").unwrap_or(0),
        drives: doc.part("Links").links("Drives"),
        uri: doc.id_path(),
    }
}

/// All volumes, and what could not be read.
pub async fn list(client: &Client, system: &Doc) -> Result<(Vec<Volume>, Vec<String>)> {
    let members = Members::new(client);
    let mut found = Vec::new();
    for unit in units(client, &members, system).await? {
        if let Some(link) = unit.link("Volumes") {
            let id = unit.id();
            found.extend(members.of(&link).await.iter().map(|doc| volume_of(&id, doc)));
        }
    }
    Ok((found, members.unreadable()))
}

/// A volume that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Controller; empty: the only one that has volumes.
    pub storage: String,
    /// Name.
    pub name: String,
    /// `RAID0`, `RAID1`, …
    pub raid_type: String,
    /// Bytes; 0: all there are.
    pub capacity_bytes: i64,
    /// Serial numbers of the drives.
    pub drives: Vec<String>,
}

/// Where volumes of a controller are made.
pub async fn collection(client: &Client, system: &Doc, storage: &str) -> Result<(Doc, String)> {
    let members = Members::new(client);
    let mut units = units(client, &members, system).await?;
    units.retain(|u| u.link("Volumes").is_some() && (storage.is_empty() || u.id() == storage));
    let names: Vec<String> = units.iter().map(Doc::id).collect();
    match (units.pop(), units.is_empty()) {
        (Some(unit), true) => {
            let link = unit.link("Volumes").unwrap_or_default();
            Ok((unit, link))
        }
        (Some(_), false) => Err(Error::Unsupported(format!(
            "a choice among {}: name the controller",
            names.join(", ")
        ))),
        (None, _) => Err(Error::NotFound(format!("a controller {storage:?} that has volumes"))),
    }
}

/// Asks for a volume; the task to follow, if the BMC began one.
pub async fn create(client: &Client, system: &Doc, wanted: &Wanted) -> Result<Option<tasks::Handle>> {
    let (unit, collection) = collection(client, system, &wanted.storage).await?;
    let members = Members::new(client);
    let drives = members.linked(unit.links("Drives")).await;
    let mut links = Vec::new();
    for serial in &wanted.drives {
        let drive = drives.iter().find(|d| d.text("SerialNumber").as_deref() == Some(serial));
        let drive = drive.ok_or_else(|| Error::NotFound(format!("a drive {serial} at controller {}", unit.id())))?;
        links.push(json!({"@odata.id": drive.id_path()}));
    }
    let mut body = json!({"RAIDType": wanted.raid_type, "Name": wanted.name, "Links": {"Drives": links}});
    if wanted.capacity_bytes > 0 {
        body["CapacityBytes"] = json!(wanted.capacity_bytes);
    }
    match client.post(&collection, &body).await {
        Ok(reply) => Ok(tasks::begun(&reply)),
        // Before 2019 the type had other names.
        Err(Error::Refused { .. } | Error::InvalidValue { .. }) => {
            let older = match wanted.raid_type.as_str() {
                "RAID0" => "NonRedundant",
                "RAID1" => "Mirrored",
                "RAID5" => "StripedWithParity",
                "RAID10" => "SpannedMirrors",
                other => other,
            };
            let drives = body["Links"]["Drives"].clone();
            let body = json!({"VolumeType": older, "Name": wanted.name, "Drives": drives});
            client.post(&collection, &body).await.map(|reply| tasks::begun(&reply))
        }
        Err(error) => Err(error),
    }
}

/// Deletes a volume; the task to follow, if the BMC began one.
pub async fn delete(client: &Client, uri: &str) -> Result<Option<tasks::Handle>> {
    client.delete(uri).await.map(|reply| tasks::begun(&reply))
}
