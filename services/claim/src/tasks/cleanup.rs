use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_operation::Request;
use ironyard_peers::name;
use ironyard_proto::inventory::{SanitizationDebt, Server, ServerState};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::{Reason, convert::reference_from};
use ironyard_types::{Category, Metadata, Reference, Timestamp, Waiting};
use tracing::Instrument;

use crate::{
    app::{App, Error, store_fault},
    domain::cleanup::{CleanupRun, Step},
};

/// Wipes servers in Cleanup, one step a pass. A run that failed is never continued: a retry is a run of its own.
pub struct Cleanup(pub App);

/// What one step did.
pub(crate) enum Done {
    /// On to the next step.
    Next,
    /// The same step again after this long; the reason and a sentence for people.
    Wait(Duration, &'static str, String),
    /// It fails for good.
    Fail(&'static str, String),
    /// The run is over.
    Over,
    /// The run is over, and another one begins.
    Again,
}

impl Reconcile for Cleanup {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let key = pass.key();
        let app = &self.0;
        let Some(server) = app.inventory.get(key).await? else {
            return Ok(Next::Done);
        };
        if server.state() != ServerState::Cleanup {
            return Ok(Next::Done);
        }
        let Some(debt) = server.sanitization_debt.clone() else {
            app.inventory.cleanup_done(&server, None).await?;
            return Ok(Next::Done);
        };
        let mut run = self.run_of(&server, debt).await?;
        let span = tracing::debug_span!("reconcile.cleanup", server.name = key, step = ?run.value.step);
        ironyard_rpc::follow(&span, &run.value.traceparent);
        if let Some(who) = run.value.cancelled.clone()
            && run.value.failure.is_none()
        {
            self.change(pass, &mut run, |run, now| run.fail("CANCELLED", format!("cancelled by {who}"), now))
                .await?;
        }
        let from = run.value.step;
        let outcome = self.step(pass, &server, &mut run).instrument(span).await;
        self.after(pass, &server, &mut run, from, outcome).await
    }
}

impl Cleanup {
    /// The run that is not over, or a fresh one.
    async fn run_of(&self, server: &Server, debt: SanitizationDebt) -> Result<Stored<CleanupRun>, Error> {
        let cx = &self.0.cx;
        let claim = reference_from(debt.claim_ref.unwrap_or_default());
        let ours = record::list_oldest::<CleanupRun>(&cx.db, 1000, &[("claim_uid", &claim.uid)])
            .await
            .map_err(store_fault)?;
        let ours = ours.into_iter().filter(|r| r.value.server.name == name(server));
        let (mut attempts, mut running) = (0, None);
        for run in ours {
            attempts += 1;
            running = (!run.value.done && run.value.debt == debt.uid).then_some(run);
        }
        if let Some(run) = running {
            return Ok(run);
        }
        let metadata = server.metadata.clone().unwrap_or_default();
        let uid = claim.uid.get(..8).unwrap_or(&claim.uid).to_owned();
        let run_name = format!("{}-{uid}-{}", metadata.name, attempts + 1);
        let now = cx.now();
        let run = CleanupRun {
            metadata: Metadata {
                name: run_name,
                uid: ironyard_types::random_id(),
                ..Metadata::default()
            },
            server: Reference::new(metadata.name, metadata.uid),
            claim,
            debt: debt.uid,
            started_at: now,
            step: Step::PowerOff,
            step_at: now,
            system_uuid: String::new(),
            bmc_drives: vec![],
            drives_unread: None,
            unread_since: None,
            agent_drives: vec![],
            agent_run: String::new(),
            minimum: Category::default(),
            jobs: vec![],
            seed: String::new(),
            fresh_seed: String::new(),
            failure: None,
            skipped: vec![],
            certificate: String::new(),
            waiting: None,
            done: false,
            traceparent: ironyard_rpc::current_traceparent(),
            cancelled: None,
        };
        Ok(ironyard_resource::create(cx, &Request::default(), run).await?)
    }

    pub(crate) async fn change(
        &self,
        pass: &Pass,
        run: &mut Stored<CleanupRun>,
        change: impl FnOnce(&mut CleanupRun, Timestamp),
    ) -> Result<(), Error> {
        let now = self.0.cx.now();
        Ok(pass.save(run, now, |run| change(run, now)).await?)
    }

    /// What follows from the step `from`, which this pass has taken.
    async fn after(
        &self,
        pass: &Pass,
        server: &Server,
        run: &mut Stored<CleanupRun>,
        from: Step,
        outcome: Result<Done, Error>,
    ) -> Result<Next, Error> {
        let app = &self.0;
        let soon = Next::After(Duration::from_millis(20));
        let now = app.cx.now();
        let late = pass.failing_for() > app.settings.patience;
        match outcome {
            Ok(Done::Next) => {
                self.change(pass, run, |run, now| {
                    (run.step, run.step_at, run.waiting) = (from.next(), now, None);
                })
                .await?;
                Ok(soon)
            }
            Ok(Done::Wait(_, reason, message))
                if limit(reason, app.settings.patience, largest(&run.value)).is_some_and(|most| now.since(run.value.step_at) > most) =>
            {
                let message = format!("{:?} did not end in time: {message}", run.value.step);
                self.change(pass, run, |run, now| run.fail("STEP_TIMED_OUT", message, now)).await?;
                Ok(soon)
            }
            Ok(Done::Wait(wait, reason, message)) => {
                app.inventory.wait(server, reason, &message).await?;
                let told = run
                    .value
                    .waiting
                    .as_ref()
                    .is_some_and(|w| w.reason == reason && w.message == message);
                if !told {
                    self.change(pass, run, |run, now| {
                        run.waiting = Some(Waiting::renew(run.waiting.as_ref(), reason, message, now, None))
                    })
                    .await?;
                }
                Ok(Next::After(wait))
            }
            Ok(Done::Fail(reason, message)) => {
                self.change(pass, run, |run, now| run.fail(reason, message, now)).await?;
                Ok(soon)
            }
            Ok(Done::Again) => {
                self.change(pass, run, |run, _| (run.done, run.waiting) = (true, None)).await?;
                Ok(soon)
            }
            Ok(Done::Over) => {
                self.change(pass, run, |run, _| (run.done, run.waiting) = (true, None)).await?;
                Ok(Next::Done)
            }
            Err(Error::Peer(error)) => {
                let unsupported = error.is(Reason::BmcUnsupported) || error.is(Reason::BmcRefused);
                // A BMC that answers, and fails at it again and again, does not offer it either.
                let fails = error.is(Reason::BmcProtocol) && pass.failing_for() > OPTIONAL;
                if run.value.step.is_optional() && (unsupported || fails) {
                    let left_out = format!("{:?}: {}", run.value.step, error.message);
                    self.change(pass, run, |run, now| {
                        run.skipped.push(left_out);
                        (run.step, run.step_at) = (from.next(), now);
                    })
                    .await?;
                    return Ok(soon);
                }
                let last = run.value.step >= Step::Certify;
                // It is asked again; then the agent is.
                let unread = run.value.step == Step::ListDrives && error.is(Reason::DrivesUnreadable);
                if !last && !unread && (late || !error.is_transient()) {
                    let reason = if error.reason.is_empty() {
                        "CLEANUP_FAILED"
                    } else {
                        "CLEANUP_STEP_FAILED"
                    };
                    let message = format!("{:?}: {}", run.value.step, error.message);
                    self.change(pass, run, |run, now| run.fail(reason, message, now)).await?;
                    return Ok(soon);
                }
                let message = format!("{:?}: {}", run.value.step, error.message);
                app.inventory.wait(server, "CLEANUP_RETRIES", &message).await?;
                self.change(pass, run, |run, now| {
                    run.waiting = Some(Waiting::renew(run.waiting.as_ref(), "CLEANUP_RETRIES", message, now, None))
                })
                .await?;
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// For how long a step is tried that a machine may go without.
pub(super) const OPTIONAL: Duration = Duration::from_secs(60);

/// Bytes of the largest drive of a run.
fn largest(run: &CleanupRun) -> u64 {
    run.jobs
        .iter()
        .filter_map(|job| u64::try_from(job.capacity).ok())
        .max()
        .unwrap_or(0)
}

/// Bytes that even a slow drive erases in a second.
const SLOWEST: u64 = 50_000_000;

/// How long a step may wait for this reason: an operator for ever, an erase for a day and a bit or as long as the largest drive needs, anything else as
/// long as a peer may be away.
fn limit(reason: &str, patience: Duration, largest: u64) -> Option<Duration> {
    match reason {
        "RETAINED" => None,
        "ERASING" | "WIPING" => Some(Duration::from_secs((26 * 3600).max(largest / SLOWEST))),
        _ => Some(patience),
    }
}
