//! Virtual media.

use serde_json::json;

use super::raw::without_login;
use crate::{Client, Doc, Error, Members, Result};

/// All virtual drives, of the system itself or of its managers.
async fn all(client: &Client, system: &Doc) -> Result<Vec<Doc>> {
    let members = Members::new(client);
    let mut found = Vec::new();
    if let Some(link) = system.link("VirtualMedia") {
        found = members.of(&link).await;
    }
    if found.is_empty() {
        for manager in members.linked(system.part("Links").links("ManagedBy")).await {
            if let Some(link) = manager.link("VirtualMedia") {
                found.extend(members.of(&link).await);
            }
        }
    }
    Ok(found)
}

/// Those that take a CD.
async fn slots(client: &Client, system: &Doc) -> Result<Vec<Doc>> {
    let mut found = all(client, system).await?;
    found.retain(|slot| {
        let types = slot.texts("MediaTypes");
        types.is_empty() || types.iter().any(|t| t == "CD" || t == "DVD")
    });
    Ok(found)
}

fn image_of(slot: &Doc) -> Option<String> {
    let inserted = slot.boolean("Inserted").unwrap_or(false);
    slot.text("Image").filter(|_| inserted)
}

/// A virtual drive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slot {
    /// Id.
    pub id: String,
    /// What it takes: `CD`, `DVD`, `Floppy`, `USBStick`.
    pub types: Vec<String>,
    /// The image in it; empty: none.
    pub image: String,
}

/// All virtual drives, those that take a CD first.
pub async fn list(client: &Client, system: &Doc) -> Result<Vec<Slot>> {
    let mut found: Vec<Slot> = all(client, system)
        .await?
        .iter()
        .map(|slot| Slot {
            id: slot.id(),
            types: slot.texts("MediaTypes"),
            image: image_of(slot).map(|image| without_login(&image)).unwrap_or_default(),
        })
        .collect();
    found.sort_by_key(|slot| !slot.types.iter().any(|t| t == "CD" || t == "DVD"));
    Ok(found)
}

/// The image that is inserted, in whatever drive; empty for none.
pub async fn inserted(client: &Client, system: &Doc) -> Result<String> {
    let slots = list(client, system).await?;
    Ok(slots
        .into_iter()
        .map(|slot| slot.image)
        .find(|image| !image.is_empty())
        .unwrap_or_default())
}

/// How many virtual drives take a CD.
pub async fn count(client: &Client, system: &Doc) -> Result<usize> {
    match slots(client, system).await?.len() {
        0 => Err(Error::Unsupported("virtual media".to_owned())),
        n => Ok(n),
    }
}

/// Inserts an image unless it is there; another one is ejected first. True when something was written.
pub async fn insert(client: &Client, system: &Doc, image: &str) -> Result<bool> {
    let slots = slots(client, system).await?;
    if slots.iter().any(|slot| image_of(slot).as_deref() == Some(image)) {
        return Ok(false);
    }
    let slot = slots
        .iter()
        .find(|s| s.action("#VirtualMedia.InsertMedia").is_some())
        .or_else(|| slots.first());
    let slot = slot.ok_or_else(|| Error::Unsupported("virtual media".to_owned()))?;
    if image_of(slot).is_some() {
        eject_slot(client, slot).await?;
    }
    let long = json!({"Image": image, "Inserted": true, "WriteProtected": true});
    let mut last = Error::Unsupported("virtual media".to_owned());
    if let Some(target) = slot.action("#VirtualMedia.InsertMedia").and_then(|a| a.text("target")) {
        let mut wordy = long.clone();
        wordy["TransferProtocolType"] = json!(image.split(':').next().unwrap_or_default().to_ascii_uppercase());
        for body in [json!({"Image": image}), long.clone(), wordy] {
            match client.post(&target, &body).await {
                Ok(reply) => {
                    super::settled(client, reply).await?;
                    return inserted_shows(client, slot).await;
                }
                Err(error) if error.is_refusal() => last = error,
                Err(error) => return Err(error),
            }
        }
        return Err(last);
    }
    super::change(client, &slot.uri, &long).await?;
    inserted_shows(client, slot).await
}

/// Some show the image under another name, or without its query: that there is one is what counts.
async fn inserted_shows(client: &Client, slot: &Doc) -> Result<bool> {
    let differs = || async {
        let inserted = client.get(&slot.uri).await?.boolean("Inserted");
        Ok((inserted == Some(false)).then(|| "no medium".to_owned()))
    };
    super::shows(super::INSERT_SHOWS, differs).await.map(|()| true)
}

/// Ejects what is inserted; true when something was written.
pub async fn eject(client: &Client, system: &Doc) -> Result<bool> {
    let (mut written, mut first) = (false, None);
    for slot in all(client, system).await? {
        if image_of(&slot).is_some() {
            // One that refuses keeps the others in for nothing.
            match eject_slot(client, &slot).await {
                Ok(()) => written = true,
                Err(error) => first = first.or(Some(error)),
            }
        }
    }
    first.map_or(Ok(written), Err)
}

async fn eject_slot(client: &Client, slot: &Doc) -> Result<()> {
    match slot.action("#VirtualMedia.EjectMedia").and_then(|a| a.text("target")) {
        Some(target) => super::settled(client, client.post(&target, &json!({})).await?).await?,
        None => super::change(client, &slot.uri, &json!({"Image": null, "Inserted": false})).await?,
    };
    let differs = || async {
        let image = image_of(&client.get(&slot.uri).await?);
        Ok(image.map(|image| format!("the image {}", without_login(&image))))
    };
    match super::shows(super::EJECT_SHOWS, differs).await {
        Err(Error::NotApplied(_)) => Ok(()),
        outcome => outcome,
    }
}
