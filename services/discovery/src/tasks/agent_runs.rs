use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_peers::{Gateway, PeerError};
use ironyard_proto::{
    bmc::{PowerAction, SystemName},
    common::{Operation, PowerState},
    inventory::{Server, ServerState},
};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::Reason;

use super::Error;
use crate::{
    app::{App, store_fault},
    domain::agent_run::{AgentRun, Running, Stage},
};

/// Boots machines into the agent and out of it again, one step a pass.
pub struct AgentRuns(pub App);

/// The purpose of the runs that discovery begins itself.
pub const DISCOVER: &str = "discover";

/// How often tidying up is tried: within about a minute.
const TIDY_ATTEMPTS: u32 = 7;

const SOON: Next = Next::After(Duration::from_millis(50));

impl Reconcile for AgentRuns {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let key = pass.key();
        let app = &self.0;
        let Some(mut stored) = record::get::<AgentRun>(&app.cx.db, key).await.map_err(store_fault)? else {
            return Ok(Next::Done);
        };
        let run = stored.value.clone();
        let stored = &mut stored;
        if run.is_over() {
            return Ok(Next::Done);
        }
        let late = app.cx.now().since(run.started_at) > app.settings.boot_timeout;
        if run.stage < Stage::Run && (late || run.stop) {
            let why = if run.stop {
                "it was asked to stop before the agent had reported".to_owned()
            } else {
                format!("the agent did not report in time: {}", run.delivery.progress())
            };
            return self.to(pass, stored, untouched_or_end(&run), Some(why)).await;
        }
        match self.step(pass, stored, &run).await {
            // Getting in may fail for good; getting out is tried for ever, because the machine must not stay in the agent.
            Err(Error::Peer(error)) if run.stage < Stage::Run && !error.is_transient() => {
                self.to(pass, stored, untouched_or_end(&run), Some(error.message)).await
            }
            Err(Error::Peer(error)) if run.stage >= Stage::End && !error.is_transient() => {
                tracing::warn!(run = key, error = error.message, "could not tidy up after the agent");
                self.to(pass, stored, Stage::Over, Some(run.failure.unwrap_or(error.message))).await
            }
            outcome => outcome,
        }
    }
}

/// How a run ends before its agent has reported: a machine that was left alone where it ran is switched off only if we have switched it on.
fn untouched_or_end(run: &AgentRun) -> Stage {
    match (run.running, run.stage) {
        (Running::Leave, _) if run.on_asked => Stage::End,
        (Running::Leave, Stage::SwitchOff) => Stage::Over,
        (Running::Leave, _) => Stage::Tidy,
        (Running::ForceOff | Running::GracefulOff, _) => Stage::End,
    }
}

impl AgentRuns {
    /// From the stage that this pass found to another.
    async fn to(&self, pass: &Pass, stored: &mut Stored<AgentRun>, stage: Stage, failure: Option<String>) -> Result<Next, Error> {
        let change = |run: &mut AgentRun| {
            run.stage = stage;
            run.failure = run.failure.take().or(failure);
            if stage == Stage::Over {
                // The token has served.
                run.token.clear();
            }
        };
        pass.save(stored, self.0.cx.now(), change).await?;
        if stored.value.purpose == DISCOVER {
            self.0.servers.enqueue(&stored.value.server).await.map_err(store_fault)?;
        }
        Ok(if stage == Stage::Over { Next::Done } else { SOON })
    }

    async fn step(&self, pass: &Pass, stored: &mut Stored<AgentRun>, run: &AgentRun) -> Result<Next, Error> {
        let (app, key) = (&self.0, pass.key());
        let server = app.inventory.get(&run.server).await?;
        let Some(system) = server.as_ref().and_then(Gateway::system_of) else {
            return self
                .to(
                    pass,
                    stored,
                    Stage::Over,
                    Some(format!("server {} is gone, or has no BMC", run.server)),
                )
                .await;
        };
        // A run acts only in the state that it was begun for; a machine that a tenant holds by now is left alone.
        let (state, claimed) = server
            .as_ref()
            .map_or((ServerState::Unspecified, false), |s| (s.state(), s.claim_ref.is_some()));
        let wanted = if run.purpose == DISCOVER {
            ServerState::Discovery
        } else {
            ServerState::Cleanup
        };
        if state != wanted && claimed {
            return self
                .to(pass, stored, Stage::Over, Some("a claim holds the server by now".to_owned()))
                .await;
        }
        if state != wanted && run.stage < Stage::End {
            let state = state.as_str_name().trim_start_matches("SERVER_STATE_").to_owned();
            return self
                .to(
                    pass,
                    stored,
                    untouched_or_end(run),
                    Some(format!("the server is in state {state} by now")),
                )
                .await;
        }
        match run.stage {
            Stage::SwitchOff if app.image_url.is_empty() => {
                let why = "there is no image of the agent to boot: give discovery.image, or set in_band to off";
                self.to(pass, stored, Stage::Over, Some(why.to_owned())).await
            }
            Stage::SwitchOff => {
                let action = match run.running {
                    Running::ForceOff => PowerAction::ForceOff,
                    Running::GracefulOff => PowerAction::GracefulOff,
                    // Somebody may have switched it on since discovery looked.
                    Running::Leave if app.gateway.system(&system).await?.power_state() != PowerState::Off => {
                        return self.to(pass, stored, Stage::Over, Some(AgentRun::MACHINE_RUNS.to_owned())).await;
                    }
                    Running::Leave => return self.to(pass, stored, Stage::Insert, None).await,
                };
                let operation = app.gateway.power(&system, action, 0, &format!("{key}-off")).await?;
                self.after(pass, stored, &operation, Stage::Insert).await
            }
            Stage::Insert => {
                let image = format!("{}/agent/{}.iso", app.image_url, run.image_id);
                app.gateway.insert(&system, &image).await?;
                self.to(pass, stored, Stage::Override, None).await
            }
            Stage::Override => {
                app.gateway.boot_once(&system, "Cd").await?;
                self.to(pass, stored, Stage::SwitchOn, None).await
            }
            Stage::SwitchOn => {
                if run.running == Running::Leave && !run.on_asked {
                    // Somebody may have switched it on while the medium was inserted.
                    if app.gateway.system(&system).await?.power_state() != PowerState::Off {
                        return self.to(pass, stored, Stage::Tidy, Some(AgentRun::MACHINE_RUNS.to_owned())).await;
                    }
                    pass.save(stored, app.cx.now(), |run| run.on_asked = true).await?;
                }
                let operation = app.gateway.power(&system, PowerAction::On, 0, &format!("{key}-on")).await?;
                self.after(pass, stored, &operation, Stage::Boot).await
            }
            // Its report makes it due.
            Stage::Boot => Ok(Next::After(Duration::from_secs(30).min(app.settings.boot_timeout))),
            Stage::Run if run.stop => self.to(pass, stored, Stage::End, None).await,
            Stage::Run => Ok(Next::After(Duration::from_secs(60))),
            Stage::End => {
                let end_key = format!("{key}-end-{}", run.end_attempts);
                let operation = app.gateway.power(&system, PowerAction::ForceOff, 0, &end_key).await?;
                if let Some(error) = &operation.error {
                    tracing::warn!(
                        run = key,
                        error = error.message,
                        "the machine could not be switched off; it is tried again"
                    );
                    pass.save(stored, app.cx.now(), |run| run.end_attempts += 1).await?;
                    return Ok(Next::After(Duration::from_secs(10)));
                }
                self.after(pass, stored, &operation, Stage::Tidy).await
            }
            Stage::Tidy => self.tidy(pass, stored, server.as_ref(), &system).await,
            Stage::Over => Ok(Next::Done),
        }
    }

    /// Takes back what was set for the agent. It is tried several times, told where it fails, and undoes nothing that was reached.
    async fn tidy(&self, pass: &Pass, stored: &mut Stored<AgentRun>, server: Option<&Server>, system: &SystemName) -> Result<Next, Error> {
        let app = &self.0;
        let mut failed = Vec::new();
        for (what, outcome) in [
            ("the medium could not be ejected", app.gateway.eject(system).await),
            (
                "the boot override could not be cleared",
                app.gateway.boot_once(system, "None").await,
            ),
        ] {
            match outcome {
                Ok(_) => {}
                // A BMC that is away is waited for.
                Err(error) if error.is(Reason::BmcUnreachable) || error.is(Reason::PeerUnavailable) => return Err(error.into()),
                Err(error) => failed.push(format!("{what}: {}", error.message)),
            }
        }
        let left = (!failed.is_empty()).then(|| failed.join("; "));
        if let Some(left) = &left
            && stored.value.tidy_attempts < TIDY_ATTEMPTS
        {
            tracing::debug!(run = pass.key(), left, "could not tidy up after the agent; it is tried again");
            pass.save(stored, app.cx.now(), |run| run.tidy_attempts += 1).await?;
            return Ok(Next::After(Duration::from_secs(2) * stored.value.tidy_attempts));
        }
        if let Some(server) = server {
            let told = server.conditions.iter().any(|c| c.r#type == "TidiedUp");
            match &left {
                Some(left) => app.inventory.condition(server, "TidiedUp", false, "AgentLeftBehind", left).await?,
                None if told => {
                    let message = "nothing is left of the agent";
                    app.inventory.condition(server, "TidiedUp", true, "TidiedUp", message).await?;
                }
                None => {}
            }
        }
        pass.save(stored, app.cx.now(), |run| run.left_behind = left).await?;
        self.to(pass, stored, Stage::Over, None).await
    }

    async fn after(&self, pass: &Pass, stored: &mut Stored<AgentRun>, operation: &Operation, next: Stage) -> Result<Next, Error> {
        match (&operation.error, operation.done) {
            (Some(error), _) => Err(PeerError::from(error).into()),
            (None, false) => {
                let app = &self.0;
                Ok(Next::After(app.wakeups.after(
                    &app.runs,
                    pass.key(),
                    &operation.name,
                    operation.version,
                )))
            }
            // A report may have come while the machine was still said to boot.
            (None, true) if next == Stage::Boot => {
                let reached = if stored.value.report.is_some() { Stage::Run } else { Stage::Boot };
                self.to(pass, stored, reached, None).await
            }
            (None, true) => self.to(pass, stored, next, None).await,
        }
    }
}
