//! UEFI Secure Boot.

use serde_json::json;

use super::power::allowable;
use crate::{Client, Doc, Error, Result};

/// Secure Boot as the BMC shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecureBoot {
    /// Whether the next boot is to be secure; absent when the BMC does not know.
    pub enabled: Option<bool>,
    /// `Enabled` or `Disabled`: how the present boot was.
    pub current_boot: String,
    /// `SetupMode`, `UserMode`, `AuditMode`, `DeployedMode`.
    pub mode: String,
    /// What the keys may be reset to.
    pub reset_keys: Vec<String>,
}

async fn document(client: &Client, system: &Doc) -> Result<Doc> {
    let link = system
        .link("SecureBoot")
        .ok_or_else(|| Error::Unsupported("Secure Boot".to_owned()))?;
    client.get(&link).await
}

/// Reads it.
pub async fn read(client: &Client, system: &Doc) -> Result<SecureBoot> {
    let doc = document(client, system).await?;
    let reset_keys = match doc.action("#SecureBoot.ResetKeys") {
        Some(action) => allowable(client, &action, "ResetKeysType").await,
        None => vec![],
    };
    Ok(SecureBoot {
        enabled: doc.boolean("SecureBootEnable"),
        current_boot: doc.text_or_empty("SecureBootCurrentBoot"),
        mode: doc.text_or_empty("SecureBootMode"),
        reset_keys,
    })
}

/// Switches it for the next boot unless it is so; true when something was written.
pub async fn set(client: &Client, system: &Doc, on: bool) -> Result<bool> {
    let doc = document(client, system).await?;
    if doc.boolean("SecureBootEnable") == Some(on) {
        return Ok(false);
    }
    super::change(client, &doc.uri, &json!({"SecureBootEnable": on})).await?;
    let differs = || async {
        let shown = client.get(&doc.uri).await?.boolean("SecureBootEnable");
        let settings = super::settings_of(client, &doc).await;
        let pending = settings.as_ref().and_then(|s| s.boolean("SecureBootEnable"));
        // A value that waits for the next boot may be shown only there, or nowhere at all.
        let not = shown == Some(!on) && pending != Some(on) && (pending.is_some() || settings.is_none());
        Ok(not.then(|| format!("SecureBootEnable {}", !on)))
    };
    super::shows(super::SHOWS, differs).await.map(|()| true)
}

/// Resets the keys.
pub async fn reset_keys(client: &Client, system: &Doc, kind: &str) -> Result<()> {
    let doc = document(client, system).await?;
    let action = doc.action("#SecureBoot.ResetKeys");
    let target = action.and_then(|a| a.text("target"));
    let target = target.ok_or_else(|| Error::Unsupported("SecureBoot.ResetKeys".to_owned()))?;
    client.post(&target, &json!({"ResetKeysType": kind})).await.map(|_| ())
}
