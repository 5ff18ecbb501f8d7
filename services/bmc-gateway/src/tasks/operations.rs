use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_operation::{Failure, Operation};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::{Fault, Reason};

use super::{
    jobs::{Job, image_of},
    steps::{Operations, Step, transient},
};
use crate::domain::{
    exclusion::{Kind, Work, waits_for},
    job::Progress,
};

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
