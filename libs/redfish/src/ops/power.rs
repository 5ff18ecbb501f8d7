//! Power.

use ironyard_types::hardware::PowerState;
use serde_json::json;

use crate::{Client, Doc, Error, Result};

/// The power state; absent while the BMC does not know.
pub fn state(system: &Doc) -> Option<PowerState> {
    match system.text("PowerState").as_deref() {
        Some("On" | "Paused") => Some(PowerState::On),
        Some("Off") => Some(PowerState::Off),
        Some("PoweringOn") => Some(PowerState::PoweringOn),
        Some("PoweringOff") => Some(PowerState::PoweringOff),
        Some(_) | None => None,
    }
}

/// Values that an action's parameter may take: inline, or in its ActionInfo; empty when the BMC does not say.
pub(crate) async fn allowable(client: &Client, action: &Doc, parameter: &str) -> Vec<String> {
    let inline = action.texts(&format!("{parameter}@Redfish.AllowableValues"));
    if !inline.is_empty() {
        return inline;
    }
    let Some(info) = action.text("@Redfish.ActionInfo") else {
        return vec![];
    };
    let Ok(info) = client.get(&info).await else { return vec![] };
    let parameters = info
        .value
        .get("Parameters")
        .and_then(serde_json::Value::as_array)
        .cloned()
        .unwrap_or_default();
    parameters
        .into_iter()
        .map(|value| Doc { value, ..Doc::default() })
        .find(|p| p.text("Name").as_deref() == Some(parameter))
        .map(|p| p.texts("AllowableValues"))
        .unwrap_or_default()
}

/// What to ask for: the first of these that the BMC offers.
const ON: &[&str] = &["On", "ForceOn", "PushPowerButton"];
const FORCE_OFF: &[&str] = &["ForceOff"];
const GRACEFUL_OFF: &[&str] = &["GracefulShutdown", "PushPowerButton"];

/// A change of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Switch on.
    On,
    /// Ask the operating system.
    GracefulOff,
    /// Cut.
    ForceOff,
}

/// Asks for a change. The caller has read the state before, and observes it after.
pub async fn reset(client: &Client, system: &Doc, change: Change) -> Result<()> {
    let action = system
        .action("#ComputerSystem.Reset")
        .ok_or_else(|| Error::Unsupported("ComputerSystem.Reset".to_owned()))?;
    let target = action
        .text("target")
        .ok_or_else(|| Error::Unsupported("ComputerSystem.Reset".to_owned()))?;
    let offered = allowable(client, &action, "ResetType").await;
    let wanted = match change {
        Change::On => ON,
        Change::GracefulOff => GRACEFUL_OFF,
        Change::ForceOff => FORCE_OFF,
    };
    let value = if offered.is_empty() {
        wanted.first()
    } else {
        wanted.iter().find(|w| offered.iter().any(|o| o == *w))
    };
    let value = value.ok_or_else(|| Error::Unsupported(format!("any of {} among {}", wanted.join(", "), offered.join(", "))))?;
    client.post(&target, &json!({"ResetType": value})).await?;
    Ok(())
}
