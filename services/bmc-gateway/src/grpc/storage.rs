use ironyard_proto::{
    bmc::{self as pb, storage_service_server::StorageService},
    common,
};
use ironyard_redfish::ops::volumes::{self, Volume};
use ironyard_resource::request;
use ironyard_rpc::Fault;
use tonic::{Request, Response, Status};

use super::{Shared, named, target};
use crate::tasks::jobs::{Create, Delete, Job};

/// The service on the wire.
pub struct Grpc(pub Shared);

fn volume_to(volume: Volume) -> pb::Volume {
    let Volume {
        id,
        storage,
        name,
        raid_type,
        capacity_bytes,
        drives,
        uri: _,
    } = volume;
    pb::Volume {
        id,
        storage_id: storage,
        name,
        raid_type,
        capacity_bytes,
        drive_uris: drives,
    }
}

#[tonic::async_trait]
impl StorageService for Grpc {
    async fn list_volumes(&self, request: Request<pb::ListVolumesRequest>) -> Result<Response<pb::ListVolumesResponse>, Status> {
        let (device, doc) = self.0.find(request.into_inner().system).await?;
        let read = device.read(|client| async move { volumes::list(&client, &doc).await });
        let (volumes, unreadable) = read.await.map_err(Fault::from)?;
        Ok(Response::new(pb::ListVolumesResponse {
            volumes: volumes.into_iter().map(volume_to).collect(),
            unreadable,
        }))
    }

    async fn create_volume(&self, request_: Request<pb::CreateVolumeRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request(
            "CreateVolume",
            &message.request_id,
            &pb::CreateVolumeRequest {
                system: named(&message.system),
                ..message.clone()
            },
        );
        let pb::CreateVolumeRequest {
            system,
            storage_id: storage,
            name,
            raid_type,
            capacity_bytes,
            drive_serial_numbers: drives,
            request_id: _,
        } = message;
        if name.is_empty() {
            return Err(Fault::field("name", "is missing: it tells the volume again").into());
        }
        if !raid_type.starts_with("RAID") {
            return Err(Fault::field("raid_type", format!("{raid_type:?} is not a RAID type: use RAID0, RAID1, RAID5, …")).into());
        }
        if drives.is_empty() {
            return Err(Fault::field("drive_serial_numbers", "is missing").into());
        }
        if capacity_bytes < 0 {
            return Err(Fault::field("capacity_bytes", "must not be negative").into());
        }
        let job = Create {
            target: target(system)?,
            storage,
            name,
            raid_type,
            capacity_bytes,
            drives,
        };
        self.0.begin(&idempotency_key, Job::CreateVolume(job)).await
    }

    async fn delete_volume(&self, request_: Request<pb::DeleteVolumeRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request(
            "DeleteVolume",
            &message.request_id,
            &pb::DeleteVolumeRequest {
                system: named(&message.system),
                ..message.clone()
            },
        );
        let pb::DeleteVolumeRequest {
            system,
            storage_id: storage,
            volume_id: volume,
            request_id: _,
        } = message;
        if volume.is_empty() {
            return Err(Fault::field("volume_id", "is missing").into());
        }
        let job = Delete {
            target: target(system)?,
            storage,
            volume,
        };
        self.0.begin(&idempotency_key, Job::DeleteVolume(job)).await
    }
}
