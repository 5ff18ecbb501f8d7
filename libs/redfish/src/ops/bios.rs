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

/// Whether what is called so is a secret, or a hash that one can be guessed from.
pub(crate) fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 30] = [
        "password",
        "passwd",
        "passphrase",
        "passcode",
        "secret",
        "salt",
        "token",
        "community",
        "credential",
        "privatekey",
        "privkey",
        "encryptionkey",
        "authkey",
        "authenticationkey",
        "ipmikey",
        "v3key",
        "keystring",
        "licensekey",
        "activationkey",
        "productkey",
        "presharedkey",
        "signingkey",
        "unlockkey",
        "masterkey",
        "sessionkey",
        "authorizationheader",
        "pwd",
        "apikey",
        "accesskey",
        "sharedkey",
    ];
    // What is said of secrets, and what each member of a schema may be.
    const ABOUT: [&str; 6] = [
        "passwordstatus",
        "passwordexpiration",
        "passwordchangerequired",
        "passwordname",
        "keyidentifier",
        "@",
    ];
    let letters = |c: &char| c.is_ascii_alphanumeric() || *c == '@';
    let name: String = name.to_ascii_lowercase().chars().filter(letters).collect();
    name == "authorization"
        || name.ends_with("psk")
        || WORDS.iter().any(|word| name.contains(word)) && !ABOUT.iter().any(|word| name.contains(word))
}

/// An attribute's value as text; absent for nulls and structures.
pub fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(crate::error::clean(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// All attributes as text, without secrets.
pub fn as_texts(attributes: &Map<String, Value>) -> BTreeMap<String, String> {
    let keep = attributes.iter().filter(|(name, _)| !is_secret(name));
    keep.filter_map(|(name, value)| Some((name.clone(), as_text(value)?))).collect()
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
    let change = registry::difference(&bios, registry, wanted)?;
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
        Some(timed) => match client.patch(&settings.uri, &timed).await {
            // Lenovo lists OnReset and refuses to be told so.
            Err(Error::Refused { .. } | Error::InvalidValue { .. }) => client.patch(&settings.uri, &plain).await,
            outcome => outcome,
        },
        None => client.patch(&settings.uri, &plain).await,
    };
    written?;
    let after = read(client, system).await?;
    let missing = change.iter().find(|(name, value)| {
        let pending = after.pending.get(*name);
        // Taken at once, or pending; a BMC that shows no pending values at all has to be believed.
        after.attributes.get(*name) != Some(value) && pending != Some(value) && (pending.is_some() || !after.pending.is_empty())
    });
    match missing {
        Some((name, _)) => Err(Error::NotApplied(format!("another value of {name}"))),
        None => Ok(true),
    }
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
