use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_peers::{Failed, Gateway};
use ironyard_proto::{
    bmc::PowerAction,
    common,
    inventory::{Server, ServerEvent, ServerState},
};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::convert::power_from;
use ironyard_types::{Waiting, hardware::PowerState};
use tracing::Instrument;

use crate::{
    app::{App, Error, store_fault},
    domain::server_claim::{Next as Plan, Phase, ServerClaim, plan},
};

/// Looks after claims that have a server: image, power, giving back.
pub struct Claims(pub App);

const SOON: Next = Next::After(Duration::from_millis(100));

impl Reconcile for Claims {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let key = pass.key();
        let Some(mut claim) = record::get::<ServerClaim>(&self.0.cx.db, key).await.map_err(store_fault)? else {
            return Ok(Next::Done);
        };
        let span = tracing::debug_span!("reconcile.claim", claim.name = key);
        ironyard_rpc::follow(&span, &claim.value.traceparent);
        self.look(pass, &mut claim).instrument(span).await
    }

    async fn failed(&self, pass: &Pass, error: &Error, attempts: u32, again: Duration) {
        let failed = Failed {
            pass,
            error,
            attempts,
            again,
        };
        failed.show(&self.0.cx, |claim: &mut ServerClaim| &mut claim.waiting).await;
    }
}

impl Claims {
    async fn look(&self, pass: &Pass, claim: &mut Stored<ServerClaim>) -> Result<Next, Error> {
        let app = &self.0;
        if claim.value.phase == Phase::Pending {
            // Binding, and letting go of what was never bound, is the binder's.
            app.wake_binder().await.map_err(store_fault)?;
            return Ok(Next::Done);
        }
        let reference = claim.value.server.clone().unwrap_or_default();
        let server = app.inventory.get(&reference.name).await?;
        let uid = claim.value.metadata.uid.clone();
        let server = server.filter(|s: &Server| s.claim_ref.as_ref().is_some_and(|c| c.uid == uid));
        if claim.value.metadata.deleted_at.is_some() {
            return self.release(pass, claim, server).await;
        }
        let Some(server) = server else {
            self.wait(
                pass,
                claim,
                "SERVER_LOST",
                format!("server {} is no longer held by this claim", reference.name),
            )
            .await?;
            return Ok(Next::After(Duration::from_secs(30)));
        };
        if server.state() != ServerState::Reserved {
            let state = server.state().as_str_name().trim_start_matches("SERVER_STATE_").to_owned();
            self.wait(
                pass,
                claim,
                "SERVER_NOT_READY",
                format!("server {} is in state {state}", reference.name),
            )
            .await?;
            return Ok(Next::After(Duration::from_secs(30)));
        }
        let Some(system) = Gateway::system_of(&server) else {
            return Ok(Next::Done);
        };
        match plan(&claim.value.spec, &claim.value.applied) {
            Plan::Image(image) => {
                app.gateway.insert(&system, &image).await?;
                app.gateway.boot_once(&system, "Cd").await?;
                self.change(pass, claim, |claim| claim.applied.image.clone_from(&image)).await?;
                Ok(SOON)
            }
            Plan::Power(wanted) => {
                if !claim.value.applied.changing {
                    self.change(pass, claim, |claim| {
                        claim.applied.changes += 1;
                        (claim.applied.changing, claim.applied.target) = (true, Some(wanted));
                    })
                    .await?;
                    return Ok(SOON);
                }
                let image = !claim.value.applied.image.is_empty() && claim.value.applied.image == claim.value.spec.image;
                let action = match wanted {
                    // A machine that runs already boots the image only if it starts anew.
                    PowerState::On if image => PowerAction::Cycle,
                    PowerState::On => PowerAction::On,
                    PowerState::Off | PowerState::PoweringOn | PowerState::PoweringOff => PowerAction::GracefulOff,
                };
                let power_key = format!("{}-power-{}", claim.value.metadata.uid, claim.value.applied.changes);
                let operation = app
                    .gateway
                    .power(&system, action, app.settings.graceful_seconds, &power_key)
                    .await?;
                match (operation.done, &operation.error) {
                    (false, _) => {
                        let wait = app.wakeups.after(&app.claims, pass.key(), &operation.name, operation.version);
                        self.wait(pass, claim, "POWER_CHANGING", operation.phase.clone()).await?;
                        Ok(Next::After(wait))
                    }
                    (true, None) => {
                        let report = ironyard_proto::inventory::ReportServerRequest {
                            name: reference.name,
                            power_state: ironyard_rpc::convert::power_to(Some(wanted)).into(),
                            ..Default::default()
                        };
                        app.inventory.report(report).await?;
                        self.change(pass, claim, |claim| {
                            (claim.applied.power, claim.power_state) = (Some(wanted), Some(wanted));
                            (claim.applied.changing, claim.applied.target) = (false, None);
                            claim.waiting = None;
                        })
                        .await?;
                        // The spec may want something else by now.
                        Ok(SOON)
                    }
                    (true, Some(error)) => {
                        self.wait(pass, claim, "POWER_FAILED", error.message.clone()).await?;
                        self.change(pass, claim, |claim| (claim.applied.changing, claim.applied.target) = (false, None))
                            .await?;
                        Ok(Next::After(Duration::from_secs(30)))
                    }
                }
            }
            Plan::Rest => {
                let seen = server.observed.as_ref().and_then(|o| power_from(o.power_state()));
                let unapplied = claim.value.spec.unapplied(&claim.value.applied);
                self.change(pass, claim, |claim| {
                    if unapplied.is_none() {
                        claim.waiting = None;
                    }
                    claim.power_state = seen.or(claim.power_state);
                })
                .await?;
                if let Some((reason, message)) = unapplied {
                    self.wait(pass, claim, reason, message).await?;
                }
                Ok(Next::Done)
            }
        }
    }

    /// Gives the server back; the claim is gone once inventory has let it go. The cleanup follows from the server's state.
    async fn release(&self, pass: &Pass, claim: &mut Stored<ServerClaim>, server: Option<Server>) -> Result<Next, Error> {
        let app = &self.0;
        if let Some(server) = server {
            if !matches!(server.state(), ServerState::Reserved | ServerState::Error) {
                let state = server.state().as_str_name().trim_start_matches("SERVER_STATE_").to_owned();
                self.wait(
                    pass,
                    claim,
                    "SERVER_NOT_READY",
                    format!("it is given back when its server leaves state {state}"),
                )
                .await?;
                return Ok(Next::After(Duration::from_secs(30)));
            }
            let metadata = &claim.value.metadata;
            let subject = common::Reference {
                name: metadata.name.clone(),
                uid: metadata.uid.clone(),
            };
            let reason = format!("claim {} was deleted", metadata.name);
            app.inventory
                .transition(&server, ServerEvent::Release, Some(subject), &reason)
                .await?;
            app.cleanups.enqueue(&ironyard_peers::name(&server)).await.map_err(store_fault)?;
        }
        pass.delete(claim, app.cx.now()).await?;
        Ok(Next::Done)
    }

    async fn change(&self, pass: &Pass, claim: &mut Stored<ServerClaim>, change: impl FnOnce(&mut ServerClaim)) -> Result<(), Error> {
        Ok(pass.save(claim, self.0.cx.now(), change).await?)
    }

    async fn wait(&self, pass: &Pass, claim: &mut Stored<ServerClaim>, reason: &str, message: String) -> Result<(), Error> {
        let now = self.0.cx.now();
        self.change(pass, claim, |claim| {
            let same = claim.waiting.as_ref().is_some_and(|w| w.reason == reason && w.message == message);
            if !same {
                claim.waiting = Some(Waiting::renew(claim.waiting.as_ref(), reason, message, now, None));
            }
        })
        .await
    }
}
