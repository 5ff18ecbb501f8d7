//! BIOS attributes.

use std::collections::BTreeMap;

use ironyard_types::Secret;
use serde_json::{Map, Value, json};

use super::registry::{self, Registry};
use crate::{Client, Doc, Error, Result};

/// The BIOS as the BMC shows it.
#[derive(Debug, Clone, Default)]
pub struct Bios {
    /// Document.
    pub doc: Doc,
    /// Present attributes.
    pub attributes: Map<String, Value>,
    /// What the next boot applies.
    pub pending: Map<String, Value>,
    /// Where to write.
    pub settings: Option<Doc>,
    /// Whether the next boot resets to defaults.
    pub reset_pending: bool,
}

/// Reads the BIOS.
pub async fn read(client: &Client, system: &Doc) -> Result<Bios> {
    let link = system
        .link("Bios")
        .ok_or_else(|| Error::Unsupported("BIOS attributes".to_owned()))?;
    let doc = client.get(&link).await?;
    let attributes = object(&doc, "Attributes");
    let settings = match doc.part("@Redfish.Settings").link("SettingsObject") {
        Some(path) => Some(client.get(&path).await?),
        None => None,
    };
    let mut pending = settings.as_ref().map(|s| object(s, "Attributes")).unwrap_or_default();
    // Some pending objects hold everything; what is as it is now is not pending.
    pending.retain(|name, value| attributes.get(name) != Some(value));
    let reset_pending = doc.boolean("ResetBiosToDefaultsPending").unwrap_or(false);
    Ok(Bios {
        doc,
        attributes,
        pending,
        settings,
        reset_pending,
    })
}

fn object(doc: &Doc, key: &str) -> Map<String, Value> {
    doc.value.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Sets attributes for the next boot unless they are so or will be; true when something was written. What the BMC stored is read back.
pub async fn set(client: &Client, system: &Doc, wanted: &BTreeMap<String, String>, registry: Option<&Registry>) -> Result<bool> {
    let bios = read(client, system).await?;
    let change = registry::difference(&bios.attributes, &bios.pending, registry, wanted)?;
    if change.is_empty() {
        return Ok(false);
    }
    let settings = bios
        .settings
        .as_ref()
        .ok_or_else(|| Error::Unsupported("pending BIOS settings".to_owned()))?;
    let times = bios.doc.part("@Redfish.Settings").texts("SupportedApplyTimes");
    let plain = json!({"Attributes": change});
    let timed = times.iter().any(|t| t == "OnReset").then(|| {
        let mut timed = plain.clone();
        timed["@Redfish.SettingsApplyTime"] = json!({"ApplyTime": "OnReset"});
        timed
    });
    let written = match timed {
        Some(timed) => match super::change(client, &settings.uri, &timed).await {
            // Lenovo lists OnReset and refuses to be told so.
            Err(Error::Refused { .. } | Error::InvalidValue { .. }) => super::change(client, &settings.uri, &plain).await,
            outcome => outcome,
        },
        None => super::change(client, &settings.uri, &plain).await,
    };
    written?;
    let differs = || async {
        let after = read(client, system).await?;
        // Taken at once, or pending; a BMC that shows no pending values at all has to be believed.
        let shows_pending = after.settings.as_ref().is_some_and(|s| {
            s.value
                .get("Attributes")
                .and_then(Value::as_object)
                .is_some_and(|all| !all.is_empty())
        });
        let missing = change
            .iter()
            .find(|(name, value)| shows_pending && after.attributes.get(*name) != Some(value) && after.pending.get(*name) != Some(value));
        Ok(missing.map(|(name, _)| format!("another value of {name}")))
    };
    super::shows(super::SHOWS, differs).await.map(|()| true)
}

/// Changes one of the BIOS's own passwords, at the next boot.
pub async fn change_password(client: &Client, system: &Doc, name: &str, old: &Secret<String>, new: &Secret<String>) -> Result<()> {
    let bios = read(client, system).await?;
    let action = bios
        .doc
        .action("#Bios.ChangePassword")
        .or_else(|| bios.settings.as_ref().and_then(|s| s.action("#Bios.ChangePassword")));
    let target = action
        .and_then(|a| a.text("target"))
        .ok_or_else(|| Error::Unsupported("Bios.ChangePassword".to_owned()))?;
    let body = json!({"PasswordName": name, "OldPassword": old.expose(), "NewPassword": new.expose()});
    client.post(&target, &body).await.map(|_| ())
}

/// Resets to defaults at the next boot, unless that is pending; true when something was written.
pub async fn reset(client: &Client, system: &Doc) -> Result<bool> {
    let bios = read(client, system).await?;
    if bios.reset_pending {
        return Ok(false);
    }
    let action = bios
        .doc
        .action("#Bios.ResetBios")
        .or_else(|| bios.settings.as_ref().and_then(|s| s.action("#Bios.ResetBios")));
    let target = action
        .and_then(|a| a.text("target"))
        .ok_or_else(|| Error::Unsupported("Bios.ResetBios".to_owned()))?;
    match client.post(&target, &json!({})).await {
        Ok(_) => Ok(true),
        Err(Error::Refused { .. } | Error::InvalidValue { .. }) => client.post(&target, &json!({"ResetType": "Reset"})).await.map(|_| true),
        Err(error) => Err(error),
    }
}
