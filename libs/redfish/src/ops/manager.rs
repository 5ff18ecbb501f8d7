//! The BMC itself: its clock, its network services, its restart.

use serde_json::json;

use super::{power::allowable, topology};
use crate::{Client, Doc, Error, Result};

/// The BMC as it shows itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manager {
    /// Id.
    pub id: String,
    /// Model.
    pub model: String,
    /// Firmware version.
    pub firmware_version: String,
    /// Its clock, as it writes it.
    pub date_time: String,
    /// Offset of its clock from UTC.
    pub offset: String,
    /// NTP servers.
    pub ntp_servers: Vec<String>,
    /// Whether it asks them; absent when it does not say.
    pub ntp_enabled: Option<bool>,
    /// When it last started, as it writes it.
    pub last_reset: String,
    /// Path.
    pub uri: String,
}

async fn document(client: &Client, system: Option<&Doc>) -> Result<Doc> {
    let root = client.root().await?;
    topology::manager(client, &root, system).await
}

async fn protocol(client: &Client, manager: &Doc) -> Result<Option<Doc>> {
    match manager.link("NetworkProtocol") {
        Some(link) => client.get(&link).await.map(Some),
        None => Ok(None),
    }
}

/// HPE keeps the NTP servers beside the clock.
async fn clock(client: &Client, manager: &Doc) -> Option<Doc> {
    let oem = ["Hpe", "Hp"].into_iter().find_map(|key| {
        let links = manager.part("Oem").part(key).part("Links");
        links.link("DateTimeService")
    });
    client.get(&oem?).await.ok()
}

/// Reads the manager of a system, or the one that all share.
pub async fn read(client: &Client, system: Option<&Doc>) -> Result<Manager> {
    let doc = document(client, system).await?;
    let protocol = protocol(client, &doc).await.ok().flatten();
    let ntp = protocol.map(|p| p.part("NTP")).unwrap_or_default();
    let mut ntp_servers = ntp.texts("NTPServers");
    if ntp_servers.is_empty()
        && let Some(clock) = clock(client, &doc).await
    {
        ntp_servers = clock.texts("StaticNTPServers");
    }
    Ok(Manager {
        id: doc.id(),
        model: doc.text_or_empty("Model"),
        firmware_version: doc.text_or_empty("FirmwareVersion"),
        date_time: doc.text_or_empty("DateTime"),
        offset: doc.text_or_empty("DateTimeLocalOffset"),
        ntp_enabled: ntp.boolean("ProtocolEnabled"),
        ntp_servers,
        last_reset: doc.text_or_empty("LastResetTime"),
        uri: doc.uri,
    })
}

/// Restarts the BMC, in the gentlest way that it offers.
pub async fn reset(client: &Client) -> Result<()> {
    let doc = document(client, None).await?;
    let action = doc.action("#Manager.Reset");
    let target = action.as_ref().and_then(|a| a.text("target"));
    let (Some(action), Some(target)) = (action, target) else {
        return Err(Error::Unsupported("Manager.Reset".to_owned()));
    };
    let offered = allowable(client, &action, "ResetType").await;
    let kind = ["GracefulRestart", "ForceRestart"]
        .into_iter()
        .find(|k| offered.iter().any(|o| o == k));
    match kind {
        Some(kind) => client.post(&target, &json!({"ResetType": kind})).await.map(|_| ()),
        // Old ones know no parameter.
        None => client.post(&target, &json!({})).await.map(|_| ()),
    }
}

/// Sets the clock, RFC 3339 without fractions; true when something was written.
pub async fn set_clock(client: &Client, time: &str) -> Result<bool> {
    let doc = document(client, None).await?;
    if doc.text("DateTime").is_none() {
        return Err(Error::Unsupported("a clock that can be set".to_owned()));
    }
    if doc.text("DateTime").as_deref() == Some(time) {
        return Ok(false);
    }
    super::change(client, &doc.uri, &json!({"DateTime": time})).await.map(|_| true)
}

/// Sets the NTP servers and switches NTP on (off for none), unless it is so; true when something was written.
pub async fn set_ntp(client: &Client, servers: &[String]) -> Result<bool> {
    let doc = document(client, None).await?;
    let enabled = !servers.is_empty();
    if let Some(protocol) = protocol(client, &doc).await?
        && protocol.value.get("NTP").is_some()
    {
        let ntp = protocol.part("NTP");
        if ntp.texts("NTPServers") == servers && ntp.boolean("ProtocolEnabled") == Some(enabled) {
            return Ok(false);
        }
        let body = json!({"NTP": {"ProtocolEnabled": enabled, "NTPServers": servers}});
        super::change(client, &protocol.uri, &body).await?;
        let differs = || async {
            let shown = client.get(&protocol.uri).await?.part("NTP").texts("NTPServers");
            Ok((enabled && shown != servers).then(|| format!("the NTP servers {}", shown.join(", "))))
        };
        return super::shows(super::SHOWS, differs).await.map(|()| true);
    }
    let clock = clock(client, &doc).await.ok_or_else(|| Error::Unsupported("NTP".to_owned()))?;
    if clock.texts("StaticNTPServers") == servers {
        return Ok(false);
    }
    super::change(client, &clock.uri, &json!({"StaticNTPServers": servers})).await?;
    let differs = || async {
        let shown = client.get(&clock.uri).await?.texts("StaticNTPServers");
        Ok((shown != servers).then(|| format!("the NTP servers {}", shown.join(", "))))
    };
    super::shows(super::SHOWS, differs).await.map(|()| true)
}
