use std::{collections::BTreeMap, time::Duration};

use ironyard_db::record;
use ironyard_operation::Request;
use ironyard_peers::{Gateway, name};
use ironyard_proto::{
    bmc::{PowerAction, System, SystemName},
    inventory::{ReportServerRequest, Server, ServerSpec, ServerState},
};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::{Reason, convert::power_from};
use ironyard_types::{Metadata, hardware::PowerState};

use crate::{
    app::{App, Error, store_fault},
    domain::{
        drift::{Mend, Seen, differing, mark, mend, wanted_settings},
        server_maintenance::{BIOS_SETTINGS, BiosProgress, ServerMaintenance, Spec},
    },
};

/// Makes Available servers what their owners want: boot order, LED and power at once, BIOS settings in a maintenance.
pub struct Servers(pub App);

impl Reconcile for Servers {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let key = pass.key();
        let app = &self.0;
        let Some(server) = app.inventory.get(key).await? else {
            return Ok(Next::Done);
        };
        // Maintenances that wait for this server may go on.
        for maintenance in record::list_oldest::<ServerMaintenance>(&app.cx.db, 100, &[("server", key)])
            .await
            .map_err(store_fault)?
        {
            app.maintenances.poke(&maintenance.value.metadata.name).await.map_err(store_fault)?;
        }
        if server.state() != ServerState::Available {
            return Ok(Next::Done);
        }
        let Some(system) = Gateway::system_of(&server) else {
            return Ok(Next::Done);
        };
        let spec = server.spec.clone().unwrap_or_default();
        if !wants_anything(&spec) {
            app.inventory.at_rest(&server).await?;
            if server.conditions.iter().any(|c| c.r#type == "AsWanted") {
                let message = "nothing is wanted of the hardware";
                app.inventory.condition(&server, "AsWanted", true, "NothingWanted", message).await?;
            }
            return Ok(Next::Done);
        }
        let seen = app.gateway.system(&system).await?;
        let bios = if spec.bios.is_empty() {
            Bios::AsWanted
        } else {
            self.bios(&server, &spec, &system, &seen).await?
        };
        if let Bios::InHand = bios {
            return Ok(Next::Done);
        }
        match (mend(&compare(&spec, &seen)), bios) {
            (None, Bios::Other(reason, why)) => {
                app.inventory.wait(&server, "BIOS_NOT_AS_WANTED", &why).await?;
                app.inventory.condition(&server, "AsWanted", false, reason, &why).await?;
                Ok(Next::After(app.settings.resync))
            }
            (None, Bios::AsWanted | Bios::InHand) => {
                app.inventory.at_rest(&server).await?;
                app.inventory
                    .condition(&server, "AsWanted", true, "AsWanted", "the hardware is as the spec wants it")
                    .await?;
                Ok(Next::After(app.settings.resync))
            }
            (Some(todo), _) => self.apply(&server, &system, todo).await,
        }
    }
}

/// How the BIOS settings of a server are.
enum Bios {
    AsWanted,
    /// A maintenance applies them.
    InHand,
    /// Other than wanted, and nothing that we may do changes that: a reason and a sentence.
    Other(&'static str, String),
}

fn wants_anything(spec: &ServerSpec) -> bool {
    power_from(spec.power()).is_some() || !spec.boot_order.is_empty() || !spec.bios.is_empty() || spec.locator_led
}

fn compare(spec: &ServerSpec, seen: &System) -> Seen {
    let mut order = spec.boot_order.clone();
    order.sort_by_key(|e| e.priority);
    let mut devices_wanted: Vec<String> = Vec::new();
    for entry in order {
        if !devices_wanted.contains(&entry.device) {
            devices_wanted.push(entry.device);
        }
    }
    Seen {
        power_wanted: power_from(spec.power()),
        power: power_from(seen.power_state()),
        led_wanted: spec.locator_led,
        led: seen.indicator_led,
        devices_wanted,
        devices: seen.boot_options.iter().map(|o| o.device.clone()).collect(),
    }
}

impl Servers {
    async fn apply(&self, server: &Server, system: &SystemName, todo: Mend) -> Result<Next, Error> {
        let app = &self.0;
        let outcome = match todo {
            Mend::BootOrder(devices) => app.gateway.boot_order(system, devices).await.map(|_| None),
            Mend::Led(on) => app.gateway.led(system, on).await.map(|_| None),
            Mend::Power(wanted) => {
                let action = if wanted == PowerState::On {
                    PowerAction::On
                } else {
                    PowerAction::GracefulOff
                };
                // One operation for each version of the server: a repeat after a crash finds it.
                let etag = server
                    .metadata
                    .as_ref()
                    .map(|m| format!("{}-{}", m.uid, m.etag))
                    .unwrap_or_default();
                app.gateway
                    .power(system, action, 0, &format!("want-{etag}"))
                    .await
                    .map(|operation| Some((wanted, operation)))
            }
        };
        match outcome {
            Ok(None) => Ok(Next::After(Duration::from_millis(100))),
            Ok(Some((wanted, operation))) => match (operation.done, &operation.error) {
                (false, _) => Ok(Next::After(app.after(&app.servers, &name(server), &operation))),
                (true, None) => {
                    let power_state = ironyard_rpc::convert::power_to(Some(wanted)).into();
                    app.inventory
                        .report(ReportServerRequest {
                            name: name(server),
                            power_state,
                            ..Default::default()
                        })
                        .await?;
                    Ok(Next::After(Duration::from_secs(1)))
                }
                (true, Some(error)) => {
                    app.inventory
                        .condition(server, "AsWanted", false, "PowerFailed", &error.message)
                        .await?;
                    Ok(Next::After(Duration::from_secs(60)))
                }
            },
            Err(error) if error.is(Reason::BmcUnsupported) || error.is(Reason::BmcRefused) => {
                app.inventory
                    .condition(server, "AsWanted", false, "Refused", &error.message)
                    .await?;
                Ok(Next::After(app.settings.resync))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins a maintenance where BIOS settings differ and can be mended.
    async fn bios(&self, server: &Server, spec: &ServerSpec, system: &SystemName, seen: &System) -> Result<Bios, Error> {
        let app = &self.0;
        let other = async |reason: &'static str, why: String| {
            app.inventory.condition(server, "BiosSettings", false, reason, &why).await?;
            Ok(Bios::Other(reason, why))
        };
        let bios = match app.gateway.bios(system).await {
            Ok(bios) => bios,
            Err(error) if error.is(Reason::BmcUnsupported) => {
                return other("Unsupported", error.message).await;
            }
            Err(error) => return Err(error.into()),
        };
        let entries: Vec<(String, BTreeMap<String, String>)> = spec.bios.iter().map(|e| (e.version.clone(), e.settings.clone())).collect();
        let version = if bios.version.is_empty() {
            seen.bios_version.clone()
        } else {
            bios.version.clone()
        };
        let Some(wanted) = wanted_settings(&entries, &version) else {
            let message = format!("the BIOS has version {version}, and no settings are given for it");
            return other("VersionDiffers", message).await;
        };
        let unknown: Vec<&String> = wanted.keys().filter(|k| !bios.attributes.contains_key(*k)).collect();
        if let Some(attribute) = unknown.first() {
            let message = format!("the BIOS has no attribute {attribute:?}");
            return other("UnknownAttribute", message).await;
        }
        if differing(&wanted, &bios.attributes).is_empty() {
            app.inventory
                .condition(server, "BiosSettings", true, "Applied", "the BIOS settings are as wanted")
                .await?;
            return Ok(Bios::AsWanted);
        }
        let mark = mark(&wanted);
        let tried =
            |c: &ironyard_proto::common::Condition| c.r#type == "BiosSettings" && c.reason == "NotApplied" && c.message.contains(&mark);
        if let Some(failed) = server.conditions.iter().find(|c| tried(c)) {
            // What the BIOS would not take once is not forced on it in a circle; a change of the spec is a new attempt.
            return Ok(Bios::Other("NotApplied", failed.message.clone()));
        }
        let maintenance = ServerMaintenance {
            metadata: Metadata {
                name: format!("{}-bios-settings", name(server)),
                uid: ironyard_types::random_id(),
                ..Metadata::default()
            },
            spec: Spec {
                server: name(server),
                reason: "apply BIOS settings".to_owned(),
                ..Spec::default()
            },
            begun: false,
            task: BIOS_SETTINGS.to_owned(),
            bios: BiosProgress::default(),
            power_applied: None,
            power_changes: 0,
            waiting: None,
        };
        let key = maintenance.metadata.name.clone();
        match ironyard_resource::create(&app.cx, &Request::default(), maintenance).await {
            Ok(_) => {}
            Err(fault) if fault.reason == Reason::MaintenanceExists => {}
            Err(fault) => return Err(fault.into()),
        }
        app.maintenances.poke(&key).await.map_err(store_fault)?;
        Ok(Bios::InHand)
    }
}
