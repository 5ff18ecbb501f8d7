//! What every step of an operation has to work with.

use std::time::Duration;

use ironyard_db::{Outcome, Stored, record};
use ironyard_operation::Operation;
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason};
use ironyard_types::MachineIdentity;
use serde::{Deserialize, Serialize};

use crate::device::Devices;

/// How long operations may take, in total and step by step.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Patience {
    /// A graceful shutdown before the power is cut.
    #[serde(with = "humantime_serde")]
    pub graceful: Duration,
    /// A power change that the BMC accepted.
    #[serde(with = "humantime_serde")]
    pub power: Duration,
    /// The erasure of a drive.
    #[serde(with = "humantime_serde")]
    pub erase: Duration,
    /// A volume.
    #[serde(with = "humantime_serde")]
    pub volume: Duration,
    /// Firmware, from the request until the version shows.
    #[serde(with = "humantime_serde")]
    pub firmware: Duration,
    /// Firmware whose task is over, or gone, before the version that is shown is believed.
    #[serde(with = "humantime_serde")]
    pub firmware_settles: Duration,
    /// A request whose answer was lost, before what it did is given up on: it is looked for, and never sent again.
    #[serde(with = "humantime_serde")]
    pub lost_answer: Duration,
    /// A restart of the BMC, or a change of its certificate.
    #[serde(with = "humantime_serde")]
    pub manager: Duration,
    /// A BMC that does not answer, before an operation on it fails.
    #[serde(with = "humantime_serde")]
    pub unreachable: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            graceful: minutes(5),
            power: minutes(2),
            erase: minutes(24 * 60),
            volume: minutes(30),
            firmware: minutes(60),
            firmware_settles: minutes(15),
            lost_answer: minutes(1),
            manager: minutes(15),
            unreachable: minutes(10),
        }
    }
}

/// What an operation was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// BMC.
    pub bmc: String,
    /// System.
    pub system_id: String,
    /// The machine that must stand there.
    #[serde(default)]
    pub expected: MachineIdentity,
}

impl Target {
    /// A BMC itself.
    pub fn of_bmc(bmc: String) -> Self {
        Self {
            bmc,
            system_id: String::new(),
            expected: MachineIdentity::default(),
        }
    }

    /// Where operations on this BMC stand, to be looked at by those that come after them.
    pub fn line(&self) -> Option<String> {
        Some(format!("bmc {}", self.bmc))
    }

    /// For people.
    pub fn label(&self) -> String {
        if self.system_id.is_empty() {
            self.bmc.clone()
        } else {
            format!("{}/{}", self.bmc, self.system_id)
        }
    }
}

/// Whether waiting may help.
pub(crate) fn transient(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BmcUnreachable | Reason::BmcBusy | Reason::PeerUnavailable | Reason::BmcProtocol | Reason::BmcAmbiguous
    )
}

/// What one step did.
pub(crate) enum Step {
    /// It goes on after this long; the phase is for people.
    Wait(Duration, String),
    /// Over, with facts about the outcome.
    Done(Vec<(&'static str, String)>),
}

/// Moves each operation one step at a time. The row is the fence: a step that finds it changed stops.
pub struct Operations {
    /// Database and time.
    pub cx: Context,
    /// Owners.
    pub devices: Devices,
    /// Limits.
    pub patience: Patience,
}

impl Operations {
    /// Writes the operation; a row that somebody else wrote ends this pass.
    pub(crate) async fn save(&self, row: &mut Stored<Operation>) -> Result<(), Fault> {
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let mut tx = self.cx.db.begin().await.map_err(store)?;
        match record::update(&mut tx, row, self.cx.now()).await.map_err(store)? {
            Outcome::Written(stored) => *row = stored,
            Outcome::Stale | Outcome::Missing => return Err(Fault::new(Reason::PeerUnavailable, "another pass has the operation")),
        }
        tx.commit().await.map_err(store)
    }

    pub(crate) async fn remember<P: Serialize>(&self, row: &mut Stored<Operation>, progress: &P) -> Result<(), Fault> {
        row.value.progress = serde_json::to_value(progress).map_err(|e| Fault::internal(&e))?;
        self.save(row).await
    }
}
