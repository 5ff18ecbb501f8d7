//! What becomes of a machine that runs when it is discovered: it is left alone, adopted, or switched off where that was asked for.

use ironyard_peers::{ADOPTABLE, PeerError, name};
use ironyard_proto::{bmc, common::PowerState, inventory::Server};
use ironyard_reconcile::Next;
use ironyard_rpc::convert::running_machines_from;
use ironyard_types::hardware::RunningMachines;

use super::{
    Error,
    servers::{PATIENT, Servers},
};
use crate::domain::discovery_run::DiscoveryRun;

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
