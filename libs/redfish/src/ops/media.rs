//! Virtual media.

use serde_json::json;

use crate::{Client, Doc, Error, Members, Result};

/// The virtual drives that take a CD, of the system itself or of its managers.
async fn slots(client: &Client, system: &Doc) -> Result<Vec<Doc>> {
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

/// The image that is inserted; empty for none.
pub async fn inserted(client: &Client, system: &Doc) -> Result<String> {
    Ok(slots(client, system).await?.iter().find_map(image_of).unwrap_or_default())
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
                Ok(_) => return Ok(true),
                Err(error) if error.is_refusal() => last = error,
                Err(error) => return Err(error),
            }
        }
        return Err(last);
    }
    client.patch(&slot.uri, &long).await.map(|_| true)
}

/// Ejects what is inserted; true when something was written.
pub async fn eject(client: &Client, system: &Doc) -> Result<bool> {
    let mut written = false;
    for slot in slots(client, system).await? {
        if image_of(&slot).is_some() {
            eject_slot(client, &slot).await?;
            written = true;
        }
    }
    Ok(written)
}

async fn eject_slot(client: &Client, slot: &Doc) -> Result<()> {
    match slot.action("#VirtualMedia.EjectMedia").and_then(|a| a.text("target")) {
        Some(target) => client.post(&target, &json!({})).await.map(|_| ()),
        None => client
            .patch(&slot.uri, &json!({"Image": null, "Inserted": false}))
            .await
            .map(|_| ()),
    }
}
