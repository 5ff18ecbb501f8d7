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
    /// Interrupt the operating system.
    Nmi,
}

/// What the BMC takes as a change of power; empty when it does not say.
pub async fn offered(client: &Client, system: &Doc) -> Result<Vec<String>> {
    let action = system.action("#ComputerSystem.Reset");
    let action = action.ok_or_else(|| Error::Unsupported("ComputerSystem.Reset".to_owned()))?;
    Ok(allowable(client, &action, "ResetType").await)
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
        Change::Nmi => &["Nmi"],
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

/// Takes the mains from the machine and gives it back, by whichever action the BMC has for that. The caller has switched the host off.
pub async fn ac_cycle(client: &Client, system: &Doc) -> Result<()> {
    // The machine's maker's own action, of the system.
    let oem = system.part("Actions").part("Oem");
    let actions = oem.value.as_object().cloned().unwrap_or_default();
    let known = [
        ("LenovoComputerSystem.SystemReset", "ACPowerCycle"),
        ("OemSystemExtensions.Reset", "ACCycle"),
    ];
    let own = known.into_iter().find_map(|(part, kind)| {
        let value = actions.iter().find(|(name, _)| name.contains(part))?.1.get("target")?;
        Some((value.as_str()?.to_owned(), kind))
    });
    if let Some((target, kind)) = own {
        return client.post(&target, &json!({"ResetType": kind})).await.map(|_| ());
    }
    let members = crate::Members::new(client);
    for chassis in members.linked(system.part("Links").links("Chassis")).await {
        let Some(action) = chassis.action("#Chassis.Reset") else { continue };
        let offered = allowable(client, &action, "ResetType").await;
        if let Some(target) = action.text("target")
            && (offered.is_empty() || offered.iter().any(|o| o == "PowerCycle"))
        {
            return client.post(&target, &json!({"ResetType": "PowerCycle"})).await.map(|_| ());
        }
    }
    Err(Error::Unsupported("to cut the mains".to_owned()))
}
