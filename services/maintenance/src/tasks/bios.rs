use std::{collections::BTreeMap, time::Duration};

use ironyard_db::Stored;
use ironyard_proto::{
    bmc::{PowerAction, SystemName},
    common::PowerState as WirePower,
    inventory::Server,
};
use ironyard_reconcile::{Next, Pass};
use ironyard_types::Timestamp;

use super::maintenances::Maintenances;
use crate::{
    app::Error,
    domain::{
        drift::{differing, mark, wanted_settings},
        server_maintenance::{ServerMaintenance, Stage},
    },
};

const SOON: Next = Next::After(Duration::from_millis(100));

impl Maintenances {
    /// Pending settings, a restart, a look at what came of it.
    pub(crate) async fn bios(
        &self,
        pass: &Pass,
        stored: &mut Stored<ServerMaintenance>,
        server: &Server,
        system: &SystemName,
    ) -> Result<Next, Error> {
        let (app, maintenance) = (&self.0, &stored.value.clone());
        let spec = server.spec.clone().unwrap_or_default();
        let entries: Vec<(String, BTreeMap<String, String>)> = spec.bios.into_iter().map(|e| (e.version, e.settings)).collect();
        let operation_key = |what: &str| format!("{}-{what}", maintenance.metadata.uid);
        match maintenance.bios.stage {
            Stage::Write => {
                let bios = app.gateway.bios(system).await?;
                let wanted = wanted_settings(&entries, &bios.version).unwrap_or_default();
                let seen = app.gateway.system(system).await?;
                match app.gateway.set_bios(system, differing(&wanted, &bios.attributes)).await {
                    Ok(_) => {}
                    Err(error) if error.is_transient() => return Err(error.into()),
                    Err(error) => return self.give_up(pass, stored, server, &error.message).await,
                }
                let was_on = seen.power_state() == WirePower::On;
                self.to(pass, stored, Stage::Restart, |m| m.bios.was_on = was_on).await
            }
            Stage::Restart => {
                self.wait(
                    pass,
                    stored,
                    "RESTARTING",
                    "the machine restarts, so that the BIOS applies its settings".to_owned(),
                )
                .await?;
                let action = if maintenance.bios.was_on {
                    PowerAction::Reset
                } else {
                    PowerAction::On
                };
                let operation = app.gateway.power(system, action, 0, &operation_key("restart")).await?;
                match (operation.done, &operation.error) {
                    (false, _) => Ok(Next::After(app.after(&app.maintenances, pass.key(), &operation))),
                    (true, None) => self.to(pass, stored, Stage::Check, |_| ()).await,
                    (true, Some(error)) => self.give_up(pass, stored, server, &error.message).await,
                }
            }
            Stage::Check => {
                let bios = app.gateway.bios(system).await?;
                let left = differing(&wanted_settings(&entries, &bios.version).unwrap_or_default(), &bios.attributes);
                let waited = app.cx.now().since(maintenance.bios.since.unwrap_or(app.cx.now()));
                if left.is_empty() {
                    app.inventory
                        .condition(server, "BiosSettings", true, "Applied", "the BIOS settings are as wanted")
                        .await?;
                    return self.to(pass, stored, Stage::Restore, |_| ()).await;
                }
                if waited > app.settings.bios_patience {
                    let names: Vec<&str> = left.keys().map(String::as_str).collect();
                    return self
                        .give_up(
                            pass,
                            stored,
                            server,
                            &format!("after the restart these are still other: {}", names.join(", ")),
                        )
                        .await;
                }
                Ok(Next::After((waited / 4).clamp(Duration::from_millis(200), Duration::from_secs(15))))
            }
            Stage::Restore => {
                if !maintenance.bios.was_on {
                    let operation = app
                        .gateway
                        .power(system, PowerAction::GracefulOff, 0, &operation_key("restore"))
                        .await?;
                    if !operation.done {
                        return Ok(Next::After(app.after(&app.maintenances, pass.key(), &operation)));
                    }
                }
                self.to(pass, stored, Stage::Over, |_| ()).await
            }
            Stage::Over => {
                let now = app.cx.now();
                self.change(pass, stored, |m| m.metadata.deleted_at = Some(now)).await?;
                Ok(SOON)
            }
        }
    }

    async fn to(
        &self,
        pass: &Pass,
        stored: &mut Stored<ServerMaintenance>,
        stage: Stage,
        more: impl FnOnce(&mut ServerMaintenance),
    ) -> Result<Next, Error> {
        let now: Timestamp = self.0.cx.now();
        self.change(pass, stored, |m| {
            (m.bios.stage, m.bios.since, m.waiting) = (stage, Some(now), None);
            more(m);
        })
        .await?;
        Ok(SOON)
    }

    /// The settings cannot be applied: the server says so and goes back to the pool as it is.
    async fn give_up(&self, pass: &Pass, stored: &mut Stored<ServerMaintenance>, server: &Server, why: &str) -> Result<Next, Error> {
        let spec = server.spec.clone().unwrap_or_default();
        let entries: Vec<(String, BTreeMap<String, String>)> = spec.bios.into_iter().map(|e| (e.version, e.settings)).collect();
        let seen = ironyard_peers::Gateway::system_of(server);
        let version = match seen {
            Some(system) => self.0.gateway.bios(&system).await?.version,
            None => String::new(),
        };
        // The mark tells these settings from others: a change of the spec is a new attempt.
        let why = format!("{why} ({})", mark(&wanted_settings(&entries, &version).unwrap_or_default()));
        self.0
            .inventory
            .condition(server, "BiosSettings", false, "NotApplied", &why)
            .await?;
        self.to(pass, stored, Stage::Restore, |_| ()).await
    }
}
