use ironyard_types::{Metadata, Timestamp, Waiting, hardware::PowerState};
use serde::{Deserialize, Serialize};

/// Holds a server in maintenance for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMaintenance {
    /// Head.
    pub metadata: Metadata,
    /// What the user wants.
    pub spec: Spec,
    /// Whether its server is in maintenance.
    pub begun: bool,
    /// What it does by itself; empty: it waits for people.
    pub task: String,
    /// How far that is.
    pub bios: BiosProgress,
    /// Power that was reached for it.
    #[serde(default)]
    pub power_applied: Option<PowerState>,
    /// Power changes so far: each has a key of its own.
    #[serde(default)]
    pub power_changes: u32,
    /// Why it does not move.
    pub waiting: Option<Waiting>,
}

/// What a maintenance wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Server.
    pub server: String,
    /// Why.
    pub reason: String,
    /// Power while it lasts.
    pub power: Option<PowerState>,
    /// LED while it lasts.
    pub locator_led: bool,
}

/// Task of a maintenance that applies BIOS settings.
pub const BIOS_SETTINGS: &str = "BiosSettings";

/// Task of a maintenance that gives a free server the power that its spec wants.
pub const POWER: &str = "Power";

/// How far the application of BIOS settings is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BiosProgress {
    /// Where it is.
    pub stage: Stage,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Whether the machine ran before, and is to run after.
    pub was_on: bool,
}

/// Steps of the application of BIOS settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Write the pending settings.
    #[default]
    Write,
    /// Restart, so that they are applied.
    Restart,
    /// Read back.
    Check,
    /// Switch off again, if it was off before.
    Restore,
    /// Over.
    Over,
}
