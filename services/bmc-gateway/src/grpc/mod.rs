//! Parse, call the use case, render; nothing else.

pub mod bmc;
pub mod console;
pub mod convert;
pub mod credential;
pub mod manager;
pub mod operation;
pub mod storage;
mod sweep;
pub mod system;
mod systems;
pub mod telemetry;
pub mod upload;

use ironyard_db::Stored;
use ironyard_operation::{Operation, Request as IdempotencyKey};
use ironyard_proto::{bmc as pb, common};
use ironyard_reconcile::Queue;
use ironyard_redfish::{Doc, Login};
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason};
use ironyard_types::MachineIdentity;
use tonic::{Response, Status};

use crate::{
    app::begin_operation::begin_operation,
    device::{Device, Devices},
    store::credential as credentials,
    tasks::{jobs::Job, steps::Target},
};

/// What the services that reach hardware share.
#[derive(Clone)]
pub struct Shared {
    /// Database and time.
    pub cx: Context,
    /// Owners.
    pub devices: Devices,
    /// Operations.
    pub operations: Queue,
}

pub(crate) fn target(system: Option<pb::SystemName>) -> Result<Target, Fault> {
    let system = system.ok_or_else(|| Fault::field("system", "is missing"))?;
    let pb::SystemName { bmc, system_id, expected } = system;
    if bmc.is_empty() {
        return Err(Fault::field("system.bmc", "is missing"));
    }
    let expected = expected.unwrap_or_default();
    Ok(Target {
        bmc,
        system_id,
        expected: MachineIdentity::new(&expected.system_uuid, &expected.manufacturer, &expected.serial_number),
    })
}

/// A system without what is known of its machine: that is learnt, and a request that is repeated stays the same request.
pub(crate) fn named(system: &Option<pb::SystemName>) -> Option<pb::SystemName> {
    let named = |system: &pb::SystemName| pb::SystemName {
        expected: None,
        ..system.clone()
    };
    system.as_ref().map(named)
}

/// Something is deleted although others depend on it: who wants that and why is on record.
pub(crate) fn forced(kind: &str, name: &str, reason: &str, actor: &str) -> Result<(), Fault> {
    if reason.trim().is_empty() {
        return Err(Fault::field("reason", "is missing: a forced deletion says why"));
    }
    tracing::warn!(kind, name, reason, actor, "deleted by force, whatever depends on it");
    Ok(())
}

impl Shared {
    /// The owner of a system's BMC, and the system as it is now.
    pub(crate) async fn find(&self, system: Option<pb::SystemName>) -> Result<(Device, Doc), Fault> {
        let target = target(system)?;
        let device = self.devices.get(&target.bmc).await?;
        let doc = device.machine(&target.system_id, &target.expected).await?;
        Ok((device, doc))
    }

    /// Stores work on a BMC as an operation.
    pub(crate) async fn begin(&self, idempotency_key: &IdempotencyKey, job: Job) -> Result<Response<common::Operation>, Status> {
        Ok(Response::new(convert::operation_to(self.begin_stored(idempotency_key, job).await?)))
    }

    /// The same, as it is stored.
    pub(crate) async fn begin_stored(&self, idempotency_key: &IdempotencyKey, job: Job) -> Result<Stored<Operation>, Fault> {
        // Unknown BMCs are told at once, not by an operation that fails.
        self.devices.get(&job.target().bmc).await?;
        let (verb, label, line) = (job.verb(), job.label(), job.target().line());
        begin_operation(&self.cx, &self.operations, idempotency_key, verb, label, line, &job).await
    }

    /// The login in a credential, to be given to this BMC.
    pub(crate) async fn credential(&self, bmc: &str, name: &str) -> Result<Login, Fault> {
        let row = credentials::get(&self.cx.db, name).await.map_err(|e| Fault::internal(&e))?;
        let row = row.ok_or_else(|| Fault::new(Reason::CredentialNotFound, format!("no credential is called {name:?}")))?;
        self.devices.open_for(bmc, &row).await
    }
}
