//! What each step of a cleanup does; every one may be repeated.

use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_operation::Request;
use ironyard_peers::{Gateway, name};
use ironyard_proto::{
    bmc::{PowerAction, SystemName},
    common::{Operation, PowerState as WirePower},
    discovery::{self, AgentRun, AgentRunState, AgentVerb},
    inventory::{CertificateSummary, ForgivenPart, ReclaimPolicy, SanitizationDebt, SanitizationPart, Server},
};
use ironyard_reconcile::Pass;
use ironyard_rpc::{
    Reason,
    convert::{drive_from, hardware_from},
};
use ironyard_types::{Category, Metadata};

use super::cleanup::{Cleanup, Done, OPTIONAL};
use crate::{
    app::{Error, store_fault},
    domain::{
        cleanup::{Certificate, CleanupRun, MOST_RUNS, Step},
        sanitize::{Tool, jobs},
    },
};

/// Seconds that a system has to shut down where its machine is wiped next.
const BEFORE_A_WIPE: i32 = 30;

/// Whether a part of what the server owes was forgiven: then the spec that asked for it does not count either.
fn forgiven(debt: &SanitizationDebt, part: SanitizationPart) -> bool {
    debt.forgiven.iter().any(|forgiven| forgiven.part() == part)
}

/// Why the server is kept unwiped. What was wanted at the reservation stands; what is wanted since, counts too.
fn retained(server: &Server) -> Option<&'static str> {
    let debt = server.sanitization_debt.clone().unwrap_or_default();
    let wanted = server.spec.as_ref().is_some_and(|s| s.reclaim_policy() == ReclaimPolicy::Retain);
    if forgiven(&debt, SanitizationPart::Retention) {
        None
    } else if debt.reclaim_policy() == ReclaimPolicy::Retain {
        Some("kept unwiped by its reclaim policy at the reservation; an administrator lets it go by waiving the retention")
    } else if wanted {
        Some("kept unwiped by its reclaim policy, which was set after the reservation; set it to Recycle to let it go")
    } else {
        None
    }
}

/// What the wipe must be at least. What was wanted at the reservation stands; what is wanted more since, counts too.
fn minimum(server: &Server) -> Category {
    let debt = server.sanitization_debt.clone().unwrap_or_default();
    let spec = server.spec.as_ref().and_then(|s| s.sanitization.as_ref());
    let wanted = spec.filter(|_| !forgiven(&debt, SanitizationPart::Minimum));
    Category::parse(&debt.minimum).max(Category::parse(wanted.map_or("", |s| &s.minimum)))
}

/// What was forgiven, in a line of the certificate.
fn account(forgiven: &ForgivenPart) -> String {
    let part = forgiven
        .part()
        .as_str_name()
        .trim_start_matches("SANITIZATION_PART_")
        .to_lowercase();
    let at = forgiven.time.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{part}, by {}, {at}: {}", forgiven.actor, forgiven.reason)
}

impl Cleanup {
    pub(crate) async fn step(&self, pass: &Pass, server: &Server, stored: &mut Stored<CleanupRun>) -> Result<Done, Error> {
        let gateway = &self.0.gateway;
        let run = &stored.value.clone();
        let system = match Gateway::system_of(server) {
            Some(system) => system,
            None if run.step == Step::EndAgent && run.failure.is_some() => return Ok(Done::Next),
            // The last steps need no machine.
            None if run.step >= Step::Certify => SystemName::default(),
            None => return Ok(Done::Fail("NO_BMC", "the server has no BMC any more".to_owned())),
        };
        match run.step {
            Step::PowerOff => self.power_off(server, run, &system, "off").await,
            Step::Retain => Ok(retained(server).map_or(Done::Next, |why| Done::Wait(Duration::from_secs(60), "RETAINED", why.to_owned()))),
            Step::Identify => self.identify(pass, server, stored, &system).await,
            Step::ResetBios => gateway.reset_bios(&system).await.map(|_| Done::Next).map_err(Error::from),
            Step::ClearBoot => gateway.boot_once(&system, "None").await.map(|_| Done::Next).map_err(Error::from),
            Step::EjectMedia => gateway.eject(&system).await.map(|_| Done::Next).map_err(Error::from),
            Step::LedOff => gateway.led(&system, false).await.map(|_| Done::Next).map_err(Error::from),
            Step::ListDrives => {
                let (drives, unread) = match gateway.drives(&system).await {
                    Ok(drives) => (drives.into_iter().map(drive_from).collect(), None),
                    // Many BMCs show the storage of a machine only while it is on, and some never.
                    Err(error) if error.is(Reason::DrivesUnreadable) => {
                        let now = self.0.cx.now();
                        let since = run.unread_since.unwrap_or(now);
                        if now.since(since) < OPTIONAL {
                            self.change(pass, stored, |run, _| run.unread_since = Some(since)).await?;
                            return Err(error.into());
                        }
                        (vec![], Some(error.message))
                    }
                    Err(error) => return Err(error.into()),
                };
                self.change(pass, stored, |run, _| (run.bmc_drives, run.drives_unread) = (drives, unread))
                    .await?;
                Ok(Done::Next)
            }
            Step::BootAgent => self.boot_agent(pass, server, stored).await,
            Step::Mark => self.command(pass, stored, "mark", AgentVerb::Mark).await,
            Step::Erase => self.erase(pass, stored, &system).await,
            Step::Verify => self.verify(pass, stored).await,
            Step::EndAgent => self.end_agent(pass, server, run, &system).await,
            Step::Certify => self.certify(pass, server, stored).await,
            Step::Finish => self.finish(server, run).await,
        }
    }

    /// For how long to wait for an operation at most; its change makes the server due.
    fn after_operation(&self, server: &Server, operation: &Operation) -> Duration {
        let app = &self.0;
        app.wakeups.after(&app.cleanups, &name(server), &operation.name, operation.version)
    }

    /// The same, for a run of the agent.
    pub(super) fn after_run(&self, pass: &Pass, run: &AgentRun) -> Duration {
        let app = &self.0;
        app.wakeups.after(&app.cleanups, pass.key(), &run.name, run.version)
    }

    /// Switches the machine off and sees that it is.
    async fn power_off(&self, server: &Server, run: &CleanupRun, system: &SystemName, key: &str) -> Result<Done, Error> {
        let app = &self.0;
        let key = format!("{}-{key}", run.metadata.name);
        // What is about to be erased need not be saved: a system is asked to end, and not waited for as long as where it is kept.
        let most = app.settings.graceful_seconds;
        let graceful = if retained(server).is_some() {
            most
        } else {
            most.min(BEFORE_A_WIPE)
        };
        let operation = app.gateway.power(system, PowerAction::GracefulOff, graceful, &key).await?;
        match (operation.done, &operation.error) {
            (false, _) => {
                return Ok(Done::Wait(
                    self.after_operation(server, &operation),
                    "POWERING_OFF",
                    operation.phase,
                ));
            }
            (true, Some(error)) => {
                let reason = match error.reason.as_str() {
                    "WRONG_MACHINE" => "WRONG_MACHINE",
                    _ => "POWER_OFF_FAILED",
                };
                return Ok(Done::Fail(reason, error.message.clone()));
            }
            (true, None) => {}
        }
        let report = ironyard_proto::inventory::ReportServerRequest {
            name: name(server),
            power_state: WirePower::Off.into(),
            ..Default::default()
        };
        app.inventory.report(report).await?;
        Ok(Done::Next)
    }

    /// A wipe of another machine would be the worst of all mistakes.
    async fn identify(&self, pass: &Pass, server: &Server, stored: &mut Stored<CleanupRun>, system: &SystemName) -> Result<Done, Error> {
        let seen = self.0.gateway.system(system).await?;
        let (known, shown) = (ironyard_peers::identity(server), Gateway::identity(&seen));
        if let Some(why) = known.differs(&shown) {
            return Ok(Done::Fail(
                "WRONG_MACHINE",
                format!("the BMC shows another machine than this server: {why}"),
            ));
        }
        let uuid = shown.uuid().or(known.uuid()).map(ToString::to_string).unwrap_or_default();
        self.change(pass, stored, |run, _| run.system_uuid = uuid).await?;
        Ok(Done::Next)
    }

    /// Boots the agent; its report completes the list of drives.
    async fn boot_agent(&self, pass: &Pass, server: &Server, stored: &mut Stored<CleanupRun>) -> Result<Done, Error> {
        let run = &stored.value.clone();
        let app = &self.0;
        let agent_run = if run.agent_run.is_empty() {
            let request = discovery::CreateAgentRunRequest {
                server: name(server),
                purpose: "sanitize".to_owned(),
                request_id: run.metadata.name.clone(),
            };
            let begun = match app
                .agent
                .clone()
                .create_agent_run(request)
                .await
                .map_err(ironyard_peers::PeerError::from)
            {
                Err(error) if error.is(Reason::AgentBusy) => return Ok(Done::Wait(Duration::from_secs(1), "AGENT_BUSY", error.message)),
                outcome => outcome?.into_inner(),
            };
            self.change(pass, stored, |run, _| run.agent_run.clone_from(&begun.name)).await?;
            begun
        } else {
            app.agent_run(&run.agent_run).await?
        };
        if !agent_run.distrusted_because.is_empty() {
            return Ok(Done::Fail("AGENT_NOT_TRUSTED", agent_run.distrusted_because));
        }
        match agent_run.state() {
            AgentRunState::Booting | AgentRunState::Unspecified => {
                let wait = self.after_run(pass, &agent_run);
                let message = format!("the machine boots the agent: {}", agent_run.boot_progress);
                Ok(Done::Wait(wait, "AGENT_BOOTING", message))
            }
            AgentRunState::Ending | AgentRunState::Ended => {
                let why = format!("the agent did not run, so nothing can be verified: {}", agent_run.failure);
                Ok(match &run.drives_unread {
                    Some(unread) => Done::Fail("DRIVES_UNREADABLE", format!("{unread}; and {why}")),
                    None => Done::Fail("AGENT_FAILED", why),
                })
            }
            AgentRunState::Running => {
                let drives = |list: Vec<ironyard_proto::common::Drive>| list.into_iter().map(drive_from).collect::<Vec<_>>();
                let report = hardware_from(agent_run.report.unwrap_or_default());
                let hidden = report.hides_drives();
                let (inside, unreachable) = (report.drives, report.unreadable);
                let mut known = vec![drives(
                    server.observed.clone().unwrap_or_default().hardware.unwrap_or_default().drives,
                )];
                // What an earlier run of the same claim saw counts as known: a drive that went away meanwhile was not wiped.
                let earlier = record::list_oldest::<CleanupRun>(&app.cx.db, 1000, &[("claim_uid", &run.claim.uid)])
                    .await
                    .map_err(store_fault)?;
                for run in earlier {
                    known.extend([run.value.bmc_drives, run.value.agent_drives]);
                }
                let seen = inside.clone();
                self.change(pass, stored, |run, _| run.agent_drives = seen).await?;
                let minimum = minimum(server);
                if !unreachable.is_empty() {
                    let why = format!("what lies on it cannot be wiped: {}", unreachable.join("; "));
                    return Ok(Done::Fail("STORAGE_UNREACHABLE", why));
                }
                if let (Some(unread), Some(hidden)) = (&run.drives_unread, &hidden) {
                    let why = format!("{unread}; and the agent cannot speak for all drives: {hidden}");
                    return Ok(Done::Fail("DRIVES_UNREADABLE", why));
                }
                match jobs(&known, &run.bmc_drives, &inside, hidden.as_deref(), minimum) {
                    Ok(jobs) => {
                        // The seed is stored before an agent hears of it: a drive is verified at the places at which it was marked.
                        let seed = ironyard_types::random_hex(16);
                        self.change(pass, stored, |run, _| (run.jobs, run.minimum, run.seed) = (jobs, minimum, seed))
                            .await?;
                        Ok(Done::Next)
                    }
                    Err(why) => Ok(Done::Fail("DRIVE_MISSING", why)),
                }
            }
        }
    }

    /// Erases every drive: those that the BMC can erase as its operations, the others by the agent.
    async fn erase(&self, pass: &Pass, stored: &mut Stored<CleanupRun>, system: &SystemName) -> Result<Done, Error> {
        let run = &stored.value.clone();
        let agent_run = self.0.agent_run(&run.agent_run).await?;
        if !agent_run.distrusted_because.is_empty() {
            return Ok(Done::Fail("AGENT_NOT_TRUSTED", agent_run.distrusted_because));
        }
        let (mut working, mut failed, mut erased, mut begun, mut lost) = (vec![], vec![], vec![], vec![], vec![]);
        for job in run.jobs.iter().filter(|j| j.method.tool == Tool::Bmc && !j.erased) {
            let key = format!("{}-erase-{}", run.metadata.name, job.serial);
            let operation = self.0.gateway.erase(system, &job.serial, &job.method.kind, &key).await?;
            if job.operation.is_empty() {
                begun.push((job.serial.clone(), operation.name.clone()));
            }
            match (operation.done, operation.error) {
                (false, _) => {
                    let app = &self.0;
                    let wait = app.wakeups.after(&app.cleanups, pass.key(), &operation.name, operation.version);
                    working.push(wait);
                }
                (true, None) => {
                    if operation.metadata.get("answer").is_some_and(|answer| answer == "lost") {
                        lost.push(job.serial.clone());
                    }
                    erased.push(job.serial.clone());
                }
                (true, Some(error)) => failed.push((job.serial.clone(), error.message)),
            }
        }
        if !erased.is_empty() || !failed.is_empty() || !begun.is_empty() {
            let (erased, failed) = (erased, failed.clone());
            self.change(pass, stored, |run, _| {
                for job in &mut run.jobs {
                    job.erased |= erased.contains(&job.serial);
                    job.answer_lost |= lost.contains(&job.serial);
                    if let Some((_, operation)) = begun.iter().find(|(serial, _)| *serial == job.serial) {
                        job.operation.clone_from(operation);
                    }
                    if let Some((_, why)) = failed.iter().find(|(serial, _)| *serial == job.serial) {
                        job.note.clone_from(why);
                    }
                }
            })
            .await?;
        }
        if let Some(wait) = working.iter().min() {
            let wait = (*wait).min(self.after_run(pass, &agent_run));
            let message = format!("{} drives are being erased by the BMC", working.len());
            return Ok(Done::Wait(wait, "ERASING", message));
        }
        if !failed.is_empty() {
            let why: Vec<String> = failed.into_iter().map(|(serial, why)| format!("drive {serial}: {why}")).collect();
            return Ok(Done::Fail("DRIVE_NOT_SANITIZED", why.join("; ")));
        }
        self.command(pass, stored, "wipe", AgentVerb::Wipe).await
    }

    /// Switches the agent's machine off, whatever came before. What a run that was cancelled has begun is let go of.
    async fn end_agent(&self, pass: &Pass, server: &Server, run: &CleanupRun, system: &SystemName) -> Result<Done, Error> {
        if let Some(who) = &run.cancelled {
            for job in run.jobs.iter().filter(|job| !job.erased && !job.operation.is_empty()) {
                self.0.gateway.cancel(&job.operation, who).await?;
            }
        }
        if !run.agent_run.is_empty() {
            let request = discovery::EndAgentRunRequest {
                name: run.agent_run.clone(),
            };
            let agent_run = self.0.agent.clone().end_agent_run(request).await?.into_inner();
            if agent_run.state() != AgentRunState::Ended {
                let wait = self.after_run(pass, &agent_run);
                return Ok(Done::Wait(wait, "AGENT_ENDING", "the machine is switched off again".to_owned()));
            }
            if run.failure.is_none() && !agent_run.distrusted_because.is_empty() {
                return Ok(Done::Fail("AGENT_NOT_TRUSTED", agent_run.distrusted_because));
            }
        }
        if run.failure.is_some() {
            return Ok(Done::Next);
        }
        self.power_off(server, run, system, "end").await
    }

    /// Writes the certificate, or the record that there is none to give. The name follows from the run: a repeat finds it.
    async fn certify(&self, pass: &Pass, server: &Server, stored: &mut Stored<CleanupRun>) -> Result<Done, Error> {
        let run = &stored.value.clone();
        let app = &self.0;
        let debt = server.sanitization_debt.clone().unwrap_or_default();
        let retain = debt.reclaim_policy() == ReclaimPolicy::Retain || forgiven(&debt, SanitizationPart::Retention);
        let certificate = Certificate {
            metadata: Metadata {
                name: run.metadata.name.clone(),
                uid: ironyard_types::random_id(),
                ..Metadata::default()
            },
            server: run.server.clone(),
            claim: run.claim.clone(),
            system_uuid: run.system_uuid.clone(),
            passed: run.passed(),
            drives: run.jobs.clone(),
            started_at: run.started_at,
            issued_at: app.cx.now(),
            performed_by: app.settings.performed_by.clone(),
            minimum: run.minimum,
            reclaim_policy: if retain { "Retain" } else { "Recycle" }.to_owned(),
            forgiven: debt.forgiven.iter().map(account).collect(),
            failure: run.why(),
        };
        match ironyard_resource::create(&app.cx, &Request::default(), certificate).await {
            Ok(_) => {}
            Err(fault) if fault.reason == Reason::ClaimExists => {}
            Err(fault) => return Err(fault.into()),
        }
        self.change(pass, stored, |run, _| run.certificate.clone_from(&run.metadata.name))
            .await?;
        Ok(Done::Next)
    }

    /// Tells inventory how it ended.
    async fn finish(&self, server: &Server, run: &CleanupRun) -> Result<Done, Error> {
        let app = &self.0;
        if let Some(failure) = &run.failure {
            let runs = record::list_oldest::<CleanupRun>(&app.cx.db, 1000, &[("claim_uid", &run.claim.uid)])
                .await
                .map_err(store_fault)?;
            if run.never_erased() && runs.iter().filter(|r| r.value.debt == run.debt).count() < MOST_RUNS {
                return Ok(Done::Again);
            }
            app.inventory
                .fail(server, &failure.reason, &failure.message, &format!("{:?}", failure.step), 1)
                .await?;
            return Ok(Done::Over);
        }
        let summary = CertificateSummary {
            name: run.certificate.clone(),
            claim_uid: run.claim.uid.clone(),
            debt_uid: run.debt.clone(),
            drive_serial_numbers: run.jobs.iter().filter(|j| j.passed()).map(|j| j.serial.clone()).collect(),
            passed: run.passed(),
            category: run.category().as_str().to_owned(),
        };
        match app.inventory.cleanup_done(server, Some(summary)).await {
            Ok(_) => Ok(Done::Over),
            Err(error) if error.is(Reason::SanitizationOwed) => {
                app.inventory
                    .fail(server, "CERTIFICATE_REFUSED", &error.message, "Finish", 1)
                    .await?;
                Ok(Done::Over)
            }
            Err(error) => Err(error.into()),
        }
    }
}
