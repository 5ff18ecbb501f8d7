use std::time::Duration;

use ironyard_db::{Stored, record};
use ironyard_peers::{Failed, Gateway, PeerError};
use ironyard_proto::{
    bmc::PowerAction,
    common::Reference,
    inventory::{ReportServerRequest, Server, ServerEvent, ServerState},
};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::{Reason, convert::power_from};
use ironyard_types::{Waiting, hardware::PowerState};

use crate::{
    app::{App, Error, store_fault},
    domain::server_maintenance::{BIOS_SETTINGS, POWER, ServerMaintenance},
};

/// How long the end of a maintenance waits for a BMC that should put out its lamp.
const LAMP: Duration = Duration::from_secs(60);

/// Draws Available → Maintenance → Available and Error → Maintenance.
pub struct Maintenances(pub App);

impl Reconcile for Maintenances {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let key = pass.key();
        let app = &self.0;
        let Some(mut stored) = record::get::<ServerMaintenance>(&app.cx.db, key).await.map_err(store_fault)? else {
            return Ok(Next::Done);
        };
        let (maintenance, stored) = (&stored.value.clone(), &mut stored);
        let server = app.inventory.get(&maintenance.spec.server).await?;
        if maintenance.metadata.deleted_at.is_some() {
            return self.end(pass, stored, server).await;
        }
        let Some(server) = server else {
            self.wait(
                pass,
                stored,
                "SERVER_NOT_FOUND",
                format!("server {} does not exist", maintenance.spec.server),
            )
            .await?;
            return Ok(Next::After(Duration::from_secs(15)));
        };
        let ours = server.maintenance_ref.as_ref().is_some_and(|m| m.uid == maintenance.metadata.uid);
        match (server.state(), ours) {
            (ServerState::Maintenance, true) => self.look_after(pass, stored, &server).await,
            (ServerState::Available, _) | (ServerState::Error, false) => {
                // A task of our own is for servers that are well; only people take servers out of Error.
                if server.state() == ServerState::Error && !maintenance.task.is_empty() {
                    return self.drop_record(pass, stored).await;
                }
                let reason = maintenance.spec.reason.clone();
                let subject = subject(maintenance);
                app.inventory
                    .transition(&server, ServerEvent::BeginMaintenance, Some(subject), &reason)
                    .await?;
                self.change(pass, stored, |m| (m.begun, m.waiting) = (true, None)).await?;
                Ok(Next::After(Duration::from_millis(50)))
            }
            (state, _) => {
                if !maintenance.task.is_empty() && !maintenance.begun {
                    // The server was claimed first; its settings wait until it comes back.
                    return self.drop_record(pass, stored).await;
                }
                let state = state.as_str_name().trim_start_matches("SERVER_STATE_").to_owned();
                self.wait(
                    pass,
                    stored,
                    "SERVER_BUSY",
                    format!("server {} is in state {state}", maintenance.spec.server),
                )
                .await?;
                Ok(Next::After(Duration::from_secs(30)))
            }
        }
    }

    async fn failed(&self, pass: &Pass, error: &Error, attempts: u32, again: Duration) {
        let failed = Failed {
            pass,
            error,
            attempts,
            again,
        };
        failed.show(&self.0.cx, |m: &mut ServerMaintenance| &mut m.waiting).await;
    }
}

fn subject(maintenance: &ServerMaintenance) -> Reference {
    Reference {
        name: maintenance.metadata.name.clone(),
        uid: maintenance.metadata.uid.clone(),
    }
}

impl Maintenances {
    pub(crate) async fn change(
        &self,
        pass: &Pass,
        stored: &mut Stored<ServerMaintenance>,
        change: impl FnOnce(&mut ServerMaintenance),
    ) -> Result<(), Error> {
        Ok(pass.save(stored, self.0.cx.now(), change).await?)
    }

    pub(crate) async fn wait(
        &self,
        pass: &Pass,
        stored: &mut Stored<ServerMaintenance>,
        reason: &str,
        message: String,
    ) -> Result<(), Error> {
        let now = self.0.cx.now();
        self.change(pass, stored, |m| {
            if !m.waiting.as_ref().is_some_and(|w| w.reason == reason && w.message == message) {
                m.waiting = Some(Waiting::renew(m.waiting.as_ref(), reason, message, now, None));
            }
        })
        .await
    }

    async fn drop_record(&self, pass: &Pass, stored: &Stored<ServerMaintenance>) -> Result<Next, Error> {
        pass.delete(stored, self.0.cx.now()).await?;
        Ok(Next::Done)
    }

    /// LED and power of a server in maintenance, and the task, if it has one.
    async fn look_after(&self, pass: &Pass, stored: &mut Stored<ServerMaintenance>, server: &Server) -> Result<Next, Error> {
        let (app, maintenance) = (&self.0, &stored.value.clone());
        let does_power = maintenance.task == POWER;
        // What the server's spec wants may have changed since, and where there is no BMC, nothing can be done about it.
        let moot =
            || server.spec.as_ref().and_then(|s| power_from(s.power())) != maintenance.spec.power || Gateway::system_of(server).is_none();
        if does_power && moot() {
            return self.end(pass, stored, Some(server.clone())).await;
        }
        let Some(system) = Gateway::system_of(server) else {
            return Ok(Next::Done);
        };
        if maintenance.task == BIOS_SETTINGS {
            return self.bios(pass, stored, server, &system).await;
        }
        let led = async {
            // The lamp of a server that is at work for itself is its spec's.
            if does_power {
                Ok(())
            } else {
                app.gateway.led(&system, maintenance.spec.locator_led).await.map(drop)
            }
        };
        match led.await {
            Err(error) if !error.is(Reason::BmcUnsupported) => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        if let Some(wanted) = maintenance.spec.power.filter(|wanted| maintenance.power_applied != Some(*wanted)) {
            let action = if wanted == PowerState::On {
                PowerAction::On
            } else {
                PowerAction::GracefulOff
            };
            let power_key = format!("{}-power-{}-{wanted}", maintenance.metadata.uid, maintenance.power_changes);
            let operation = app.gateway.power(&system, action, 0, &power_key).await?;
            match (operation.done, &operation.error) {
                (false, _) => return Ok(Next::After(app.after(&app.maintenances, pass.key(), &operation))),
                (true, Some(error)) => {
                    self.wait(pass, stored, "POWER_FAILED", error.message.clone()).await?;
                    self.change(pass, stored, |m| m.power_changes += 1).await?;
                    return Ok(Next::After(Duration::from_secs(60)));
                }
                (true, None) => {
                    self.change(pass, stored, |m| {
                        (m.power_applied, m.power_changes) = (Some(wanted), m.power_changes + 1)
                    })
                    .await?
                }
            }
        }
        if does_power {
            let report = ReportServerRequest {
                name: maintenance.spec.server.clone(),
                power_state: ironyard_rpc::convert::power_to(maintenance.spec.power).into(),
                ..Default::default()
            };
            app.inventory.report(report).await?;
            return self.end(pass, stored, Some(server.clone())).await;
        }
        self.change(pass, stored, |m| m.waiting = None).await?;
        Ok(Next::Done)
    }

    /// Ends a maintenance; the record goes last, so that a crash in between is found again.
    async fn end(&self, pass: &Pass, stored: &Stored<ServerMaintenance>, server: Option<Server>) -> Result<Next, Error> {
        let (app, maintenance) = (&self.0, &stored.value);
        let ours = server.filter(|s| s.maintenance_ref.as_ref().is_some_and(|m| m.uid == maintenance.metadata.uid));
        if let Some(server) = ours {
            if maintenance.spec.locator_led
                && let Some(system) = Gateway::system_of(&server)
            {
                let lit = server.spec.as_ref().is_some_and(|s| s.locator_led);
                match app.gateway.led(&system, lit).await {
                    // A lamp that nobody can put out keeps no server from its users.
                    Err(error) if error.is_transient() && pass.failing_for() < LAMP => return Err(error.into()),
                    Ok(_) | Err(PeerError { .. }) => {}
                }
            }
            let reason = format!("maintenance {} ended", maintenance.metadata.name);
            app.inventory
                .transition(&server, ServerEvent::MaintenanceDone, Some(subject(maintenance)), &reason)
                .await?;
        }
        self.drop_record(pass, stored).await
    }
}
