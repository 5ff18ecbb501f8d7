use std::{collections::BTreeMap, time::Duration};

use ironyard_db::record;
use ironyard_operation::Request;
use ironyard_peers::{Gateway, name};
use ironyard_proto::{
    bmc::{System, SystemName},
    inventory::{Server, ServerSpec, ServerState},
};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::{Reason, convert::power_from};
use ironyard_types::{Metadata, hardware::PowerState};

use crate::{
    app::{App, Error, store_fault},
    domain::{
        drift::{Mend, Seen, differing, mark, mend, wanted_settings},
        server_maintenance::{BIOS_SETTINGS, BiosProgress, POWER, ServerMaintenance, Spec},
    },
};

/// Makes Available servers what their owners want: boot order and LED at once, power and BIOS settings in a maintenance.
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
            app.maintenances
                .enqueue(&maintenance.value.metadata.name)
                .await
                .map_err(store_fault)?;
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

/// A maintenance that a server's spec asks for.
struct Maintenance {
    task: &'static str,
    /// Of its name, after the server's.
    suffix: &'static str,
    reason: String,
    power: Option<PowerState>,
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
            Mend::BootOrder(devices) => app.gateway.boot_order(system, devices).await.map(drop),
            Mend::Led(on) => app.gateway.led(system, on).await.map(drop),
            Mend::Power(wanted) => {
                // Whoever claims the server first keeps the power that it has.
                let maintenance = Maintenance {
                    task: POWER,
                    suffix: "power",
                    reason: format!(
                        "switch it {}, as its spec wants it",
                        if wanted == PowerState::On { "on" } else { "off" }
                    ),
                    power: Some(wanted),
                };
                self.maintain(server, maintenance).await?;
                return Ok(Next::Done);
            }
        };
        match outcome {
            Ok(()) => Ok(Next::After(Duration::from_millis(100))),
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
        let maintenance = Maintenance {
            task: BIOS_SETTINGS,
            suffix: "bios-settings",
            reason: "apply BIOS settings".to_owned(),
            power: None,
        };
        self.maintain(server, maintenance).await?;
        Ok(Bios::InHand)
    }

    /// Takes a server out of the pool for what must not meet a claim, if nobody else has it by then.
    async fn maintain(&self, server: &Server, wanted: Maintenance) -> Result<(), Error> {
        let app = &self.0;
        let maintenance = ServerMaintenance {
            metadata: Metadata {
                name: format!("{}-{}", name(server), wanted.suffix),
                uid: ironyard_types::random_id(),
                ..Metadata::default()
            },
            spec: Spec {
                server: name(server),
                reason: wanted.reason,
                power: wanted.power,
                ..Spec::default()
            },
            begun: false,
            task: wanted.task.to_owned(),
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
        Ok(app.maintenances.enqueue(&key).await.map_err(store_fault)?)
    }
}
