//! What a site wants of machines that it finds: whether one that runs is touched, and whether one that was never wiped here is wiped first.

use std::time::Duration;

use ironyard_peers::{ADOPTABLE, PeerError, name};
use ironyard_proto::{bmc, common::PowerState, inventory::Server};
use ironyard_reconcile::Next;
use ironyard_rpc::convert::{first_wipe_from, running_machines_from};
use ironyard_types::hardware::{FirstWipe, RunningMachines};

use super::{
    Error,
    servers::{PATIENT, Servers},
};
use crate::domain::discovery_run::DiscoveryRun;

/// Why a machine waits that was never wiped here.
const NEVER_WIPED: &str = "NEVER_WIPED";

/// How often the record of its BMC is looked at meanwhile.
pub(super) const UNASKED: Next = Next::After(Duration::from_secs(30));

impl Servers {
    /// What is wanted of a machine that runs: as its server says, else as its BMC says, else as the site says.
    pub(super) async fn running_machines(&self, server: &Server, system: &bmc::SystemName) -> Result<RunningMachines, Error> {
        let app = &self.0;
        let asked = server.spec.as_ref().and_then(|spec| running_machines_from(spec.running_machines()));
        if let Some(asked) = asked {
            return Ok(asked);
        }
        let bmc = app.gateway.bmc(&system.bmc).await?;
        let asked = bmc
            .and_then(|bmc| bmc.spec)
            .and_then(|spec| running_machines_from(spec.running_machines()));
        Ok(asked.unwrap_or(app.settings.running_machines))
    }

    /// What a machine owes that was never wiped here, and who says so.
    pub(super) async fn first_wipe(&self, server: &Server, system: &bmc::SystemName) -> Result<(FirstWipe, &'static str), Error> {
        let app = &self.0;
        let asked = server.spec.as_ref().and_then(|spec| first_wipe_from(spec.first_wipe()));
        if let Some(asked) = asked {
            return Ok((asked, "its server says"));
        }
        let bmc = app.gateway.bmc(&system.bmc).await?;
        let asked = bmc.and_then(|bmc| bmc.spec).and_then(|spec| first_wipe_from(spec.first_wipe()));
        Ok(asked.map_or((app.settings.first_wipe, "the site says"), |asked| (asked, "its BMC says")))
    }

    /// Whether a machine waits for a word on its first wipe, which nobody has said, and is off as its BMC's record has it: then there is nothing to ask
    /// the BMC. A word that is said makes the server due.
    pub(super) async fn still_unwiped(&self, server: &Server, system: &bmc::SystemName) -> Result<bool, Error> {
        let waits = server.waiting_because.as_ref().is_some_and(|w| w.reason == NEVER_WIPED);
        if !waits || self.first_wipe(server, system).await?.0 != FirstWipe::Wait {
            return Ok(false);
        }
        let bmc = self.0.gateway.bmc(&system.bmc).await?;
        let statuses = bmc.and_then(|bmc| bmc.observed).unwrap_or_default().system_status;
        let seen = statuses.iter().find(|seen| seen.system_id == system.system_id);
        Ok(seen.is_some_and(|seen| seen.power_state() == PowerState::Off))
    }

    /// Leaves a machine that is known and off where it is, until somebody says whether it is wiped before it is offered.
    pub(super) async fn leave_unwiped(&self, server: &Server) -> Result<Next, Error> {
        let name = name(server);
        let message = format!(
            "the machine was never wiped here, and nobody said whether it is before it is offered: \
            ironyard first-wipe wipe {name} (all that is on its drives is lost), or ironyard first-wipe waive {name} (it is offered as it is)"
        );
        self.0.inventory.wait(server, NEVER_WIPED, &message).await?;
        Ok(PATIENT)
    }

    /// Whether a machine is off, as it says itself.
    pub(super) async fn is_off(&self, system: &bmc::SystemName) -> Result<bool, Error> {
        Ok(self.0.gateway.system(system).await?.power_state() == PowerState::Off)
    }

    /// Leaves a machine that runs as it is, and says how it goes on.
    pub(super) async fn leave(&self, server: &Server, running: RunningMachines) -> Result<Next, Error> {
        let (app, name) = (&self.0, name(server));
        let (reason, message) = match running {
            RunningMachines::Adopt => (
                "AdoptionWanted",
                format!("the machine runs, and is left as it is: claim {name} adopts it"),
            ),
            RunningMachines::Wait | RunningMachines::PowerOff => (
                "MachineRuns",
                format!(
                    "the machine runs, and is left as it is: switch it off and discovery goes on, adopt it (ironyard adopt {name}), \
                    or have it switched off (spec.runningMachines: powerOff)"
                ),
            ),
        };
        app.inventory.wait(server, "MACHINE_RUNS", &message).await?;
        // Last: who would adopt it may be faster than anything that came after.
        app.inventory.condition(server, ADOPTABLE, true, reason, &message).await?;
        Ok(PATIENT)
    }

    /// Switches a machine off, gracefully first, where that was asked for; whether it is off.
    pub(super) async fn switched_off(&self, server: &Server, system: &bmc::SystemName, run: &DiscoveryRun) -> Result<bool, Error> {
        let app = &self.0;
        let key = format!("{}-off", run.metadata.uid);
        let operation = app.gateway.power(system, bmc::PowerAction::GracefulOff, 0, &key).await?;
        if let Some(error) = &operation.error {
            return Err(PeerError::from(error).into());
        }
        app.inventory
            .wait(server, "POWERING_OFF", "the machine runs, and is switched off")
            .await?;
        Ok(operation.done)
    }

    /// Discovery goes on: from now on nobody adopts the machine.
    pub(super) async fn not_adoptable(&self, server: &Server) -> Result<(), Error> {
        if server.conditions.iter().any(|c| c.r#type == ADOPTABLE) {
            let why = "its discovery went on";
            self.0.inventory.condition(server, ADOPTABLE, false, "DiscoveryWentOn", why).await?;
        }
        Ok(())
    }
}
