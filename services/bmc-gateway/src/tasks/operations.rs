use std::time::Duration;

use ironyard_db::{Outcome, Stored, record};
use ironyard_operation::{Failure, Operation};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason};
use ironyard_types::MachineIdentity;
use serde::{Deserialize, Serialize};

use super::jobs::{Job, image_of};
use crate::{
    device::Devices,
    domain::{
        exclusion::{Kind, Work, waits_for},
        job::Progress,
    },
};

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

/// Operations on one BMC that are looked at.
const MOST_RUNNING: i64 = 1000;

/// What of an operation concerns those that come after it.
struct Running {
    kind: Kind,
    line: Option<String>,
    system: String,
    settled: bool,
}

/// Whether anything of it is remembered, which is stored before the first write.
fn has_begun(operation: &Operation) -> bool {
    !operation.progress.is_null()
}

impl Running {
    fn of(operation: &Operation) -> Option<Self> {
        if operation.verb == super::power::VERB {
            let asked: super::power::Asked = serde_json::from_value(operation.request.clone()).ok()?;
            return Some(Self {
                kind: Kind::Power,
                line: asked.target.line(),
                system: asked.target.system_id,
                settled: false,
            });
        }
        let job = Job::of(&operation.verb, &operation.request)?.ok()?;
        let progress: Progress = serde_json::from_value(operation.progress.clone()).unwrap_or_default();
        Some(Self {
            kind: job.kind(),
            line: job.target().line(),
            system: job.target().system_id.clone(),
            settled: progress.staged || progress.evidence.is_some(),
        })
    }

    fn work(&self) -> Work<'_> {
        Work {
            kind: self.kind,
            system: &self.system,
            settled: self.settled,
        }
    }
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

impl Reconcile for Operations {
    type Error = Fault;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Fault> {
        let name = pass.key();
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let Some(mut row) = record::get::<Operation>(&self.cx.db, name).await.map_err(store)? else {
            return Ok(Next::Done);
        };
        if row.value.done {
            return Ok(Next::Done);
        }
        let span = tracing::debug_span!("operation", operation.id = name, verb = row.value.verb);
        ironyard_rpc::follow(&span, &row.value.traceparent);
        if row.value.cancel {
            let cancelled = Fault::new(Reason::OperationCancelled, format!("cancelled by {}", row.value.cancelled_by));
            return self.fail(row, &cancelled).await;
        }
        self.migrate_line(&mut row).await?;
        if let Some(earlier) = self.waits_for_another(&row).await? {
            let phase = format!(
                "Waiting for an earlier operation: {} {} ({})",
                earlier.verb, earlier.target, earlier.metadata.name
            );
            self.phase(&mut row, &phase).await?;
            return Ok(Next::After(Duration::from_millis(300)));
        }
        let step = async {
            match row.value.verb.as_str() {
                super::power::VERB => self.power(&mut row).await,
                super::rotate::VERB => self.rotate(&mut row).await,
                other => match Job::of(other, &row.value.request) {
                    Some(Ok(job)) => self.job(&mut row, &job).await,
                    Some(Err(error)) => Err(Fault::internal(&error)),
                    None => Err(Fault::new(Reason::Internal, format!("no such verb {other}"))),
                },
            }
        };
        // Many drives may be erased at once; a look at the BMC finds room beside them.
        let step = ironyard_rpc::serving("operations", step);
        match tracing::Instrument::instrument(step, span).await {
            Ok(Step::Wait(wait, phase)) => {
                row.value.blocked_since = None;
                self.phase(&mut row, &phase).await?;
                Ok(Next::After(wait))
            }
            Ok(Step::Done(facts)) => {
                row.value.facts.extend(facts.into_iter().map(|(k, v)| (k.to_owned(), v)));
                (row.value.done, row.value.percent) = (true, 100);
                "Done".clone_into(&mut row.value.phase);
                self.save(&mut row).await?;
                Self::tidy(&row.value);
                Ok(Next::Done)
            }
            Err(fault) => self.after_fault(row, fault).await,
        }
    }
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

    async fn phase(&self, row: &mut Stored<Operation>, phase: &str) -> Result<(), Fault> {
        if row.value.phase != phase {
            phase.clone_into(&mut row.value.phase);
            self.save(row).await?;
        }
        Ok(())
    }

    async fn fail(&self, mut row: Stored<Operation>, fault: &Fault) -> Result<Next, Fault> {
        row.value.done = true;
        "Failed".clone_into(&mut row.value.phase);
        row.value.failure = Some(Failure {
            code: fault.reason.kind().code() as i32,
            reason: fault.reason.as_str().to_owned(),
            message: fault.message.clone(),
        });
        self.save(&mut row).await?;
        Self::tidy(&row.value);
        Ok(Next::Done)
    }

    /// A BMC that is away is waited for, within limits; a refusal is final.
    async fn after_fault(&self, mut row: Stored<Operation>, fault: Fault) -> Result<Next, Fault> {
        // Neither is about the BMC: another one goes on with it, or this one in a new pass.
        if matches!(fault.reason, Reason::PeerUnavailable | Reason::StaleFence) {
            return Err(fault);
        }
        let now = self.cx.now();
        let since = *row.value.blocked_since.get_or_insert(now);
        if transient(fault.reason) && now.since(since) < self.patience.unreachable {
            let wait = fault.retry.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(10));
            self.phase(&mut row, &format!("Waiting: {}", fault.message)).await?;
            return Ok(Next::After(wait));
        }
        self.fail(row, &fault).await
    }

    /// Operations of an older version stand elsewhere: they are seen from now on by those that come after them.
    async fn migrate_line(&self, row: &mut Stored<Operation>) -> Result<(), Fault> {
        let line = match Running::of(&row.value) {
            Some(running) => running.line,
            None => return Ok(()),
        };
        if row.value.line != line {
            row.value.line = line;
            self.save(row).await?;
        }
        Ok(())
    }

    /// An operation that must be over before this one begins: one that was asked for earlier, or that has begun already because the clock of
    /// another replica is ahead. What has begun waits for nothing.
    async fn waits_for_another(&self, row: &Stored<Operation>) -> Result<Option<Operation>, Fault> {
        let Some(line) = &row.value.line else { return Ok(None) };
        if has_begun(&row.value) {
            return Ok(None);
        }
        let running = record::list_oldest::<Operation>(&self.cx.db, MOST_RUNNING, &[("line", line)])
            .await
            .map_err(|e| Fault::internal(&e))?;
        let mine = Running::of(&row.value);
        let mut earlier = true;
        for other in running {
            if other.value.metadata.name == row.value.metadata.name {
                earlier = false;
                continue;
            }
            let excludes = match (&mine, Running::of(&other.value)) {
                (Some(mine), Some(other)) => waits_for(&mine.work(), &other.work()),
                // Rotations of one credential go one after the other.
                (None, _) | (_, None) => true,
            };
            if excludes && (earlier || has_begun(&other.value)) {
                return Ok(Some(other.value));
            }
        }
        Ok(None)
    }

    /// Removes the image of an operation that has ended.
    fn tidy(row: &Operation) {
        if let Some(Err(error)) = image_of(row).map(std::fs::remove_file) {
            tracing::debug!(%error, "could not remove an image");
        }
    }
}
