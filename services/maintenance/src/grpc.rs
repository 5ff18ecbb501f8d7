//! Parse, call the use case, render; nothing else.

use std::pin::Pin;

use futures_util::Stream;
use ironyard_db::Stored;
use ironyard_operation::Request as IdempotencyKey;
use ironyard_proto::{
    common::{ChangeType, Reference},
    maintenance::{self as pb, server_maintenance_service_server::ServerMaintenanceService},
};
use ironyard_resource::{Event, Mask, Page, create, get, list, request, update, watch};
use ironyard_rpc::{
    Fault,
    convert::{metadata_checked, metadata_to, power_from, power_to, selector_from, waiting_to},
};
use ironyard_types::{ResourceName, hardware::PowerState};
use tonic::{Request, Response, Status};

use crate::{
    app::{App, store_fault},
    domain::server_maintenance::{BiosProgress, ServerMaintenance, Spec},
};

const FIELDS: &[&str] = &[
    "metadata.labels",
    "metadata.annotations",
    "spec",
    "spec.server_ref",
    "spec.reason",
    "spec.power",
    "spec.locator_led",
];

/// The service on the wire.
pub struct Grpc(pub App);

fn maintenance_to(stored: Stored<ServerMaintenance>) -> pb::ServerMaintenance {
    let etag = stored.etag();
    let Stored {
        value,
        version: _,
        created_at,
        updated_at,
    } = stored;
    let ServerMaintenance {
        metadata,
        spec,
        begun,
        task,
        bios: _,
        power_applied: _,
        power_changes: _,
        waiting,
    } = value;
    let phase = match (metadata.deleted_at, begun) {
        (Some(_), _) => pb::MaintenancePhase::Ending,
        (None, true) => pb::MaintenancePhase::InMaintenance,
        (None, false) => pb::MaintenancePhase::Pending,
    };
    let Spec {
        server,
        reason,
        power,
        locator_led,
    } = spec;
    pb::ServerMaintenance {
        metadata: Some(metadata_to(metadata, etag, created_at, updated_at)),
        spec: Some(pb::ServerMaintenanceSpec {
            server_ref: Some(Reference {
                name: server,
                uid: String::new(),
            }),
            reason,
            power: power_to(power).into(),
            locator_led,
        }),
        phase: phase.into(),
        waiting_because: waiting.map(waiting_to),
        task,
    }
}

fn maintenance_from(maintenance: Option<pb::ServerMaintenance>) -> Result<(ServerMaintenance, String), Fault> {
    let maintenance = maintenance.ok_or_else(|| Fault::field("server_maintenance", "is missing"))?;
    let etag = maintenance.metadata.as_ref().map(|m| m.etag.clone()).unwrap_or_default();
    let metadata = metadata_checked("server_maintenance.metadata", maintenance.metadata)?;
    let spec = maintenance.spec.unwrap_or_default();
    let power = power_from(spec.power());
    if matches!(power, Some(PowerState::PoweringOn | PowerState::PoweringOff)) {
        return Err(Fault::field("server_maintenance.spec.power", "use ON or OFF"));
    }
    let pb::ServerMaintenanceSpec {
        server_ref,
        reason,
        power: _,
        locator_led,
    } = spec;
    let server = server_ref.map(|r| r.name).unwrap_or_default();
    ResourceName::parse(&server).map_err(|e| Fault::field("server_maintenance.spec.server_ref.name", e))?;
    let spec = Spec {
        server,
        reason,
        power,
        locator_led,
    };
    let maintenance = ServerMaintenance {
        metadata,
        spec,
        begun: false,
        task: String::new(),
        bios: BiosProgress::default(),
        power_applied: None,
        power_changes: 0,
        waiting: None,
    };
    Ok((maintenance, etag))
}

impl Grpc {
    async fn enqueue(&self, name: &str) -> Result<(), Fault> {
        self.0.maintenances.enqueue(name).await.map_err(store_fault)
    }
}

#[tonic::async_trait]
impl ServerMaintenanceService for Grpc {
    async fn get_server_maintenance(
        &self,
        request: Request<pb::GetServerMaintenanceRequest>,
    ) -> Result<Response<pb::ServerMaintenance>, Status> {
        Ok(Response::new(maintenance_to(get(&self.0.cx, &request.into_inner().name).await?)))
    }

    async fn list_server_maintenances(
        &self,
        request: Request<pb::ListServerMaintenancesRequest>,
    ) -> Result<Response<pb::ListServerMaintenancesResponse>, Status> {
        let pb::ListServerMaintenancesRequest {
            page_size,
            page_token,
            selector,
        } = request.into_inner();
        let page = Page {
            size: page_size,
            token: page_token,
            selector: selector_from("selector", selector)?,
        };
        let (rows, next_page_token) = list::<ServerMaintenance>(&self.0.cx, &page, &[]).await?;
        let server_maintenances = rows.into_iter().map(maintenance_to).collect();
        Ok(Response::new(pb::ListServerMaintenancesResponse {
            server_maintenances,
            next_page_token,
        }))
    }

    async fn create_server_maintenance(
        &self,
        request_: Request<pb::CreateServerMaintenanceRequest>,
    ) -> Result<Response<pb::ServerMaintenance>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("CreateServerMaintenance", &message.request_id, &message);
        let (maintenance, _) = maintenance_from(message.server_maintenance)?;
        let stored = create(&self.0.cx, &idempotency_key, maintenance).await?;
        self.enqueue(&stored.value.metadata.name).await?;
        Ok(Response::new(maintenance_to(stored)))
    }

    async fn update_server_maintenance(
        &self,
        request_: Request<pb::UpdateServerMaintenanceRequest>,
    ) -> Result<Response<pb::ServerMaintenance>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("UpdateServerMaintenance", &message.request_id, &message);
        let mask = Mask::parse(message.update_mask, FIELDS)?;
        let (new, etag) = maintenance_from(message.server_maintenance)?;
        let name = new.metadata.name.clone();
        let stored = update::<ServerMaintenance>(&self.0.cx, &idempotency_key, &name, &etag, |m| {
            if new.spec.server != m.spec.server {
                return Err(Fault::field(
                    "server_maintenance.spec.server_ref",
                    "cannot change; make another maintenance",
                ));
            }
            mask.apply("metadata.labels", &mut m.metadata.labels, new.metadata.labels);
            mask.apply("metadata.annotations", &mut m.metadata.annotations, new.metadata.annotations);
            mask.apply("spec.reason", &mut m.spec.reason, new.spec.reason);
            mask.apply("spec.power", &mut m.spec.power, new.spec.power);
            mask.apply("spec.locator_led", &mut m.spec.locator_led, new.spec.locator_led);
            Ok(())
        })
        .await?;
        self.enqueue(&name).await?;
        Ok(Response::new(maintenance_to(stored)))
    }

    async fn delete_server_maintenance(
        &self,
        request: Request<pb::DeleteServerMaintenanceRequest>,
    ) -> Result<Response<pb::ServerMaintenance>, Status> {
        let pb::DeleteServerMaintenanceRequest { name, etag } = request.into_inner();
        let now = self.0.cx.now();
        let stored = update::<ServerMaintenance>(&self.0.cx, &IdempotencyKey::default(), &name, &etag, |m| {
            m.metadata.deleted_at.get_or_insert(now);
            Ok(())
        })
        .await?;
        self.enqueue(&name).await?;
        Ok(Response::new(maintenance_to(stored)))
    }

    type WatchServerMaintenancesStream = Pin<Box<dyn Stream<Item = Result<pb::WatchServerMaintenancesResponse, Status>> + Send>>;

    async fn watch_server_maintenances(
        &self,
        request: Request<pb::WatchServerMaintenancesRequest>,
    ) -> Result<Response<Self::WatchServerMaintenancesStream>, Status> {
        let stream = watch::<ServerMaintenance, _>(self.0.cx.clone(), request.into_inner().resume_token, |event, resume_token| {
            let gone = |metadata| pb::ServerMaintenance {
                metadata: Some(metadata),
                ..pb::ServerMaintenance::default()
            };
            let (kind, server_maintenance) = match event {
                Event::Present(kind, stored) => (kind, Some(maintenance_to(stored))),
                Event::Gone(metadata) => (ChangeType::Deleted, Some(gone(metadata))),
                Event::Checkpoint => (ChangeType::Checkpoint, None),
            };
            pb::WatchServerMaintenancesResponse {
                r#type: kind.into(),
                server_maintenance,
                resume_token,
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
