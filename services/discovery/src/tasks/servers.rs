use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_operation::Request;
use ironyard_peers::{Gateway, PeerError, name};
use ironyard_proto::{
    bmc,
    common::{self, ConditionStatus, PowerState},
    inventory::{self, InBandPolicy, Server, ServerEvent, ServerState},
};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::{Reason, convert::hardware_to};
use ironyard_types::{
    Metadata,
    hardware::{FirstWipe, RunningMachines},
};

use super::{Error, agent_runs::DISCOVER, bmcs::is_server_of, duplicates::DUPLICATE, running_machines::UNASKED};
use crate::{
    app::{App, store_fault},
    domain::{
        agent_run::{AgentRun, Running, Stage},
        discovery_run::{Agent, DiscoveryRun, InBand, Next as Plan, plan},
    },
    store,
};

/// Draws Initial → Discovery → Available, and keeps the power of servers at rest up to date.
pub struct Servers(pub App);

const SOON: Next = Next::After(Duration::from_millis(100));
/// While nothing but an outside event can help; the event enqueues.
pub(super) const PATIENT: Next = Next::After(Duration::from_secs(15));
/// How long a BMC may take to show all of its storage before the agent is booted to look at it.
const BEFORE_AGENT: Duration = Duration::from_secs(30);

impl Reconcile for Servers {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let key = pass.key();
        let app = &self.0;
        let Some(server) = app.inventory.get(key).await? else {
            self.forget(pass).await?;
            return Ok(Next::Done);
        };
        match server.state() {
            ServerState::Initial => match self.initial(&server).await {
                // A server never waits silently: what is refused for good is told, and tried again when something changes.
                Err(Error::Peer(error)) if !error.is_transient() => {
                    app.inventory.wait(&server, "DISCOVERY_REFUSED", &error.message).await?;
                    Ok(PATIENT)
                }
                outcome => outcome,
            },
            ServerState::Discovery => self.discovery(pass, &server).await,
            ServerState::Available
            | ServerState::Reserved
            | ServerState::Maintenance
            | ServerState::Cleanup
            | ServerState::Error
            | ServerState::Unspecified => {
                self.forget(pass).await?;
                self.watch_power(&server).await
            }
        }
    }
}

impl Servers {
    async fn forget(&self, pass: &Pass) -> Result<(), Error> {
        let cx = &self.0.cx;
        if let Some(run) = record::get::<DiscoveryRun>(&cx.db, pass.key()).await.map_err(store_fault)? {
            pass.delete(&run, cx.now()).await?;
        }
        Ok(())
    }

    /// Finds the BMC and the system, then begins.
    async fn initial(&self, server: &Server) -> Result<Next, Error> {
        let app = &self.0;
        let wait = |reason: &'static str, message: String| async move {
            app.inventory.wait(server, reason, &message).await?;
            Ok(PATIENT)
        };
        let spec = server.spec.clone().unwrap_or_default();
        let Some(reference) = spec.bmc_ref.clone() else {
            return match spec.bmc.clone() {
                Some(inline) => self.inline(server, inline).await,
                None => wait("NO_BMC", "give it a bmc_ref or an inline bmc".to_owned()).await,
            };
        };
        let Some(bmc) = app.gateway.bmc(&reference.name).await? else {
            return wait("BMC_NOT_FOUND", format!("BMC {} does not exist", reference.name)).await;
        };
        if let Some(why) = Gateway::not_ready(&bmc) {
            return wait("BMC_NOT_READY", format!("BMC {}: {why}", reference.name)).await;
        }
        let mut systems = app.gateway.list_systems(&reference.name).await?;
        systems.retain(|system| !system.is_part);
        let Some(system) = systems.iter().find(|system| is_server_of(server, system, systems.len())) else {
            let found: Vec<String> = systems.iter().map(|s| format!("{} ({})", s.system_id, s.system_uuid)).collect();
            let message = format!("no system of BMC {} is this server; it has {}", reference.name, found.join(", "));
            return wait("SYSTEM_NOT_FOUND", message).await;
        };
        if let Some(next) = self.is_duplicate(server, system).await? {
            return Ok(next);
        }
        let report = inventory::ReportServerRequest {
            name: name(server),
            system_id: system.system_id.clone(),
            power_state: system.power_state,
            ..Default::default()
        };
        let server = app.inventory.report(report).await?;
        app.inventory
            .transition(&server, ServerEvent::BeginDiscovery, None, "its BMC answers")
            .await?;
        Ok(SOON)
    }

    /// Makes a BMC of an inline description, and points the server at it.
    async fn inline(&self, server: &Server, inline: inventory::InlineBmc) -> Result<Next, Error> {
        let app = &self.0;
        let bmc_name = format!("{}-bmc", name(server));
        if app.gateway.bmc(&bmc_name).await?.is_none() {
            let bmc = bmc::Bmc {
                metadata: Some(common::Metadata {
                    name: bmc_name.clone(),
                    ..Default::default()
                }),
                spec: Some(bmc::BmcSpec {
                    address: inline.address,
                    credential: inline.credential,
                    protocol: inline.protocol,
                    scheme: inline.scheme,
                    port: inline.port,
                    ..Default::default()
                }),
                ..Default::default()
            };
            let request = bmc::CreateBmcRequest {
                bmc: Some(bmc),
                request_id: String::new(),
            };
            if let Err(status) = app.gateway.bmcs.clone().create_bmc(request).await {
                let error = PeerError::from(status);
                if error.code == tonic::Code::InvalidArgument {
                    app.inventory.wait(server, "INLINE_BMC_REFUSED", &error.message).await?;
                    return Ok(PATIENT);
                }
                if !error.is(Reason::BmcExists) {
                    return Err(error.into());
                }
            }
        }
        let mut update = server.clone();
        if let Some(spec) = &mut update.spec {
            (spec.bmc, spec.bmc_ref) = (
                None,
                Some(common::Reference {
                    name: bmc_name,
                    uid: String::new(),
                }),
            );
        }
        let update_mask = Some(prost_types::FieldMask {
            paths: vec!["spec.bmc_ref".to_owned()],
        });
        let request = inventory::UpdateServerRequest {
            server: Some(update),
            update_mask,
            request_id: String::new(),
        };
        app.inventory
            .servers
            .clone()
            .update_server(request)
            .await
            .map_err(PeerError::from)?;
        Ok(SOON)
    }

    async fn run_of(&self, pass: &Pass, server: &Server) -> Result<Stored<DiscoveryRun>, Error> {
        let cx = &self.0.cx;
        let key = name(server);
        let uid = server.metadata.as_ref().map(|m| m.uid.clone()).unwrap_or_default();
        if let Some(run) = record::get::<DiscoveryRun>(&cx.db, &key).await.map_err(store_fault)? {
            if run.value.metadata.annotations.get("server-uid") == Some(&uid) {
                return Ok(run);
            }
            self.forget(pass).await?;
        }
        let mut metadata = Metadata {
            name: key,
            uid: ironyard_types::random_id(),
            ..Metadata::default()
        };
        metadata.annotations.insert("server-uid".to_owned(), uid);
        let run = DiscoveryRun {
            metadata,
            started_at: cx.now(),
            outside_done: false,
            incomplete_since: None,
            storage_unread: None,
            read_again: false,
            agent_run: String::new(),
            runs_untouched: 0,
            failures: 0,
            failing_since: None,
        };
        Ok(ironyard_resource::create(cx, &Request::default(), run).await?)
    }

    async fn discovery(&self, pass: &Pass, server: &Server) -> Result<Next, Error> {
        let app = &self.0;
        let mut run = self.run_of(pass, server).await?;
        match self.step(pass, server, &mut run).await {
            Ok(next) => {
                if run.value.failing_since.is_some() {
                    self.remember(pass, &mut run, |_| {}).await?;
                }
                Ok(next)
            }
            // No time mends it, and none is up: it goes on once one of the two shows another identity, or is gone.
            Err(Error::Peer(error)) if error.is(Reason::DuplicateSystemUuid) => {
                let message = format!(
                    "its machine cannot be told from another server's: {}. Give one of the two a UUID or a serial number of its own, or delete the server that is not meant",
                    error.message
                );
                app.inventory.wait(server, DUPLICATE, &message).await?;
                Ok(PATIENT)
            }
            Err(Error::Peer(error)) => {
                let since = run.value.failing_since.unwrap_or_else(|| app.cx.now());
                let waited = app.cx.now().since(since);
                if waited > app.settings.patience + app.settings.boot_timeout {
                    if !run.value.agent_run.is_empty() {
                        app.stop_run(&run.value.agent_run).await?;
                    }
                    app.inventory
                        .fail(server, "DISCOVERY_FAILED", &error.message, "discovery", run.value.failures + 1)
                        .await?;
                    return Ok(SOON);
                }
                app.inventory.wait(server, "DISCOVERY_RETRIES", &error.message).await?;
                let change = |run: &mut DiscoveryRun| (run.failures, run.failing_since) = (run.failures + 1, Some(since));
                pass.save(&mut run, app.cx.now(), change).await?;
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }

    async fn step(&self, pass: &Pass, server: &Server, stored: &mut Stored<DiscoveryRun>) -> Result<Next, Error> {
        let app = &self.0;
        let run = stored.value.clone();
        let Some(system) = Gateway::system_of(server) else {
            app.inventory.wait(server, "NO_BMC", "give it a bmc_ref or an inline bmc").await?;
            return Ok(PATIENT);
        };
        let policy = match server.spec.as_ref().map(inventory::ServerSpec::in_band) {
            Some(InBandPolicy::Required) => InBand::Required,
            Some(InBandPolicy::Optional) => InBand::Optional,
            Some(InBandPolicy::Off) => InBand::Off,
            Some(InBandPolicy::Unspecified) | None => app.settings.in_band,
        };
        let agent_run = match run.agent_run.as_str() {
            "" => None,
            name => record::get::<AgentRun>(&app.cx.db, name).await.map_err(store_fault)?,
        };
        let agent = agent_state(agent_run.as_ref().map(|r| &r.value));
        if agent == Agent::NotBegun && !run.agent_run.is_empty() {
            self.remember(pass, stored, |run| {
                run.agent_run.clear();
                run.runs_untouched += 1;
            })
            .await?;
            return Ok(SOON);
        }
        let next = plan(&run, policy, &agent);
        if matches!(next, Plan::Done(_)) && self.still_unwiped(server, &system).await? {
            return Ok(UNASKED);
        }
        let running = match next {
            // Whether the agent ran or not: what runs now is somebody's.
            Plan::BeginAgent | Plan::Done(_) => {
                let running = self.running_machines(server, &system).await?;
                let off = self.is_off(&system).await?;
                if !off && let Some(other) = store::running_on(&app.cx.db, &name(server)).await.map_err(store_fault)?.first() {
                    let why = format!("the agent run {} has not ended", other.value.metadata.name);
                    app.inventory.wait(server, "AGENT_BUSY", &why).await?;
                    return Ok(Next::After(Duration::from_secs(1)));
                }
                if !off && running != RunningMachines::PowerOff {
                    return self.leave(server, running).await;
                }
                self.not_adoptable(server).await?;
                if !off && matches!(next, Plan::Done(_)) && !self.switched_off(server, &system, &run).await? {
                    return Ok(Next::After(Duration::from_secs(1)));
                }
                running
            }
            _ => RunningMachines::Wait,
        };
        match next {
            Plan::ReadOutside => {
                let unread = self.read_outside(server, &system).await?;
                if let Some(why) = &unread {
                    // A BMC that is busy shows the rest a little later.
                    let since = run.incomplete_since.unwrap_or_else(|| app.cx.now());
                    // Many show the storage of a machine only while it is on: the agent, where there is one, sees it then.
                    let agent = policy != InBand::Off && !app.image_url.is_empty();
                    let patience = if agent {
                        app.settings.patience.min(BEFORE_AGENT)
                    } else {
                        app.settings.patience
                    };
                    if app.cx.now().since(since) < patience {
                        self.remember(pass, stored, |run| run.incomplete_since = Some(since)).await?;
                        let why = format!("the BMC did not show all of its storage, and is asked again: {why}");
                        app.inventory.wait(server, "HARDWARE_INCOMPLETE", &why).await?;
                        return Ok(Next::After(Duration::from_secs(5)));
                    }
                }
                // A second look that misses something takes nothing away from the first.
                let unread = unread.filter(|_| !app.settings.offer_unread_storage && !run.read_again);
                self.remember(pass, stored, |run| (run.outside_done, run.storage_unread) = (true, unread))
                    .await?;
                Ok(SOON)
            }
            Plan::BeginAgent => {
                let running = match running {
                    RunningMachines::PowerOff => Running::GracefulOff,
                    RunningMachines::Wait | RunningMachines::Adopt => Running::Leave,
                };
                let key = match run.runs_untouched {
                    0 => run.metadata.uid.clone(),
                    n => format!("{}-{n}", run.metadata.uid),
                };
                let begun = match app.begin_run(&name(server), DISCOVER, &key, running).await {
                    Err(fault) if fault.reason == Reason::AgentBusy => {
                        app.inventory.wait(server, "AGENT_BUSY", &fault.message).await?;
                        return Ok(Next::After(Duration::from_secs(1)));
                    }
                    outcome => outcome?,
                };
                self.remember(pass, stored, |run| run.agent_run.clone_from(&begun.value.metadata.name))
                    .await?;
                Ok(SOON)
            }
            Plan::WaitForAgent => {
                let progress = agent_run.as_ref().map(|run| run.value.delivery.progress()).unwrap_or_default();
                let message = format!("the machine boots the agent: {progress}");
                app.inventory.wait(server, "AGENT_BOOTING", &message).await?;
                Ok(PATIENT)
            }
            Plan::TakeReport => {
                if let Some(run) = &agent_run {
                    let in_band = run.value.report.clone().map(hardware_to);
                    app.inventory
                        .report(inventory::ReportServerRequest {
                            name: name(server),
                            in_band,
                            ..Default::default()
                        })
                        .await?;
                    let report = run.value.report.as_ref();
                    let saw_all = report.is_some_and(|r| r.unreadable_storage.is_empty() && r.hides_drives().is_none());
                    if saw_all {
                        self.remember(pass, stored, |run| run.storage_unread = None).await?;
                    }
                    app.stop_run(&run.value.metadata.name).await?;
                }
                Ok(SOON)
            }
            Plan::StopAgent => {
                app.stop_run(&run.agent_run).await?;
                Ok(SOON)
            }
            Plan::WaitForEnd => {
                app.inventory
                    .wait(server, "AGENT_ENDING", "the machine is switched off again")
                    .await?;
                Ok(PATIENT)
            }
            Plan::Done(why_not) => {
                let (holds, reason, message) = match (&why_not, policy) {
                    (Some(why), _) => (false, "AgentFailed", why.clone()),
                    (None, InBand::Off) => (false, "NotAsked", "the policy does not ask for the agent".to_owned()),
                    (None, InBand::Required | InBand::Optional) => (true, "Reported", "the agent has reported".to_owned()),
                };
                app.inventory.condition(server, "InBandSeen", holds, reason, &message).await?;
                let fresh = app.inventory.get(&name(server)).await?.unwrap_or_else(|| server.clone());
                let first = self.first_wipe(&fresh, &system).await?;
                // What it owes, or is offered with, is what it has now. Where the agent had to vouch for the drives, another look from outside says nothing.
                let complete = fresh
                    .conditions
                    .iter()
                    .any(|c| c.r#type == "HardwareComplete" && c.status() == ConditionStatus::True);
                if first.0 != FirstWipe::Wait && complete && !run.read_again && self.is_stale(&fresh) {
                    self.remember(pass, stored, |run| {
                        (run.outside_done, run.incomplete_since, run.read_again) = (false, None, true)
                    })
                    .await?;
                    return Ok(SOON);
                }
                let (owes, message) = match first {
                    (FirstWipe::Wait, _) => return self.leave_unwiped(&fresh).await,
                    (FirstWipe::Wipe, who) => (
                        true,
                        format!("{message}; never wiped here, and {who} that it is before it is offered"),
                    ),
                    (FirstWipe::Waive, who) => (false, format!("{message}; never wiped here, and {who} that it is offered as it is")),
                };
                app.inventory.discovery_done(&fresh, owes, &message).await?;
                Ok(SOON)
            }
            Plan::Fail(why) => {
                app.inventory.fail(server, "AGENT_FAILED", &why, "in-band discovery", 1).await?;
                Ok(SOON)
            }
        }
    }

    async fn remember(&self, pass: &Pass, run: &mut Stored<DiscoveryRun>, change: impl FnOnce(&mut DiscoveryRun)) -> Result<(), Error> {
        let change = |run: &mut DiscoveryRun| {
            (run.failures, run.failing_since) = (0, None);
            change(run);
        };
        Ok(pass.save(run, self.0.cx.now(), change).await?)
    }

    /// Power and health change without us too. The gateway looks at every BMC, and its record says what it saw.
    async fn watch_power(&self, server: &Server) -> Result<Next, Error> {
        let app = &self.0;
        let Some(system) = Gateway::system_of(server).filter(|_| server.discovered) else {
            return Ok(Next::After(app.settings.poll));
        };
        let Some(bmc) = app.gateway.bmc(&system.bmc).await? else {
            let why = format!("BMC {} does not exist", system.bmc);
            app.inventory.condition(server, "BmcReachable", false, "NoBmc", &why).await?;
            return Ok(Next::After(app.settings.poll));
        };
        if let Some(why) = Gateway::not_ready(&bmc) {
            app.inventory.condition(server, "BmcReachable", false, "BmcNotReady", &why).await?;
            return Ok(Next::After(app.settings.poll));
        }
        let statuses = bmc.observed.unwrap_or_default().system_status;
        let Some(seen) = statuses.iter().find(|seen| seen.system_id == system.system_id) else {
            let why = format!("BMC {} does not list system {}", system.bmc, system.system_id);
            app.inventory
                .condition(server, "BmcReachable", false, "SystemNotFound", &why)
                .await?;
            return Ok(Next::After(app.settings.poll));
        };
        let known = server.observed.clone().unwrap_or_default();
        // A power state that the BMC does not tell says nothing; a health that it does not tell any more is unknown.
        let power = seen.power_state() != PowerState::Unspecified && seen.power_state != known.power_state;
        if power || seen.health != known.health {
            let report = inventory::ReportServerRequest {
                name: name(server),
                power_state: seen.power_state,
                health: Some(seen.health),
                ..Default::default()
            };
            app.inventory.report(report).await?;
        }
        app.inventory
            .condition(server, "BmcReachable", true, "Answered", "its BMC answers")
            .await?;
        self.unique_again(server).await?;
        self.refresh(server, &system).await?;
        Ok(Next::After(app.settings.poll))
    }
}

fn agent_state(run: Option<&AgentRun>) -> Agent {
    let Some(run) = run else { return Agent::NotBegun };
    match run.stage {
        Stage::SwitchOff | Stage::Insert | Stage::Override | Stage::SwitchOn | Stage::Boot => Agent::Booting,
        Stage::Run if run.stop => Agent::Ending,
        Stage::Run => Agent::Reported,
        Stage::End | Stage::Tidy => Agent::Ending,
        Stage::Over if run.failure.as_deref() == Some(AgentRun::MACHINE_RUNS) => Agent::NotBegun,
        Stage::Over => match &run.distrusted {
            Some(why) => Agent::Distrusted(why.clone()),
            None => Agent::Ended(run.failure.clone()),
        },
    }
}
