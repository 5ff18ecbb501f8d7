//! What gRPC and the reconcilers share.

use std::time::Duration;

use ironyard_db::Record;
pub use ironyard_peers::TaskError as Error;
use ironyard_peers::{Gateway, Inventory, Wakeups};
use ironyard_proto::common::Operation;
use ironyard_reconcile::Queue;
use ironyard_resource::{Context, Kind};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::Metadata;
use serde::Deserialize;

use crate::domain::server_maintenance::ServerMaintenance;

impl Record for ServerMaintenance {
    const TABLE: &'static str = "server_maintenance";
    const INDEX: &'static [&'static str] = &["server"];
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.spec.server.clone())]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

impl Kind for ServerMaintenance {
    const NOUN: &'static str = "maintenance";
    const NOT_FOUND: Reason = Reason::MaintenanceNotFound;
    const EXISTS: Reason = Reason::MaintenanceExists;
    const CHANGED: Reason = Reason::MaintenanceChanged;
}

/// What the site wants.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Time for BIOS settings to be there after a restart.
    #[serde(with = "humantime_serde")]
    pub bios_patience: Duration,
    /// How often servers at rest are compared with what their owners want.
    #[serde(with = "humantime_serde")]
    pub resync: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bios_patience: Duration::from_secs(1800),
            resync: Duration::from_secs(300),
        }
    }
}

/// Everything that the service works with.
#[derive(Clone)]
pub struct App {
    /// Database and time.
    pub cx: Context,
    /// Inventory.
    pub inventory: Inventory,
    /// The gateway.
    pub gateway: Gateway,
    /// What waits for operations.
    pub wakeups: Wakeups,
    /// What the site wants.
    pub settings: Settings,
    /// Maintenances that are due.
    pub maintenances: Queue,
    /// Servers that are due.
    pub servers: Queue,
}

impl App {
    /// For how long to wait for an operation at most; its change makes the key due.
    pub fn after(&self, queue: &Queue, key: &str, operation: &Operation) -> Duration {
        self.wakeups.after(queue, key, &operation.name, operation.version)
    }
}

/// A failed database call, as a fault.
pub(crate) fn store_fault(error: ironyard_db::Error) -> Fault {
    Fault::internal(&error)
}
