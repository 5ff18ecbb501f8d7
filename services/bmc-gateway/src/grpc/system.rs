use ironyard_proto::{
    bmc::{self as pb, system_service_server::SystemService},
    common,
};
use ironyard_reconcile::Queue;
use ironyard_redfish::{
    Client, Doc, Result as RedfishResult,
    ops::{bios, boot, drives, hardware, led, media, power, systems},
};
use ironyard_resource::{Context, request};
use ironyard_rpc::{
    Fault, Reason,
    convert::{drive_to, hardware_to, power_to},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

use super::convert::operation_to;
use crate::{
    app::begin_operation::begin_operation,
    device::{Device, Devices},
    domain::power::Action,
    tasks::{erase, operations::Target, power as power_task},
};

/// The service on the wire.
pub struct Grpc {
    /// Database and time.
    pub cx: Context,
    /// Owners.
    pub devices: Devices,
    /// Operations.
    pub operations: Queue,
}

fn target(system: Option<pb::SystemName>) -> Result<Target, Fault> {
    let pb::SystemName { bmc, system_id } = system.ok_or_else(|| Fault::field("system", "is missing"))?;
    if bmc.is_empty() {
        return Err(Fault::field("system.bmc", "is missing"));
    }
    Ok(Target { bmc, system_id })
}

impl Grpc {
    async fn find(&self, system: Option<pb::SystemName>) -> Result<(Device, Doc), Fault> {
        let Target { bmc, system_id } = target(system)?;
        let device = self.devices.get(&bmc).await?;
        let doc = device.system(&system_id).await?;
        Ok((device, doc))
    }

    /// Reads the system, then writes if something is other than wanted, in one turn of the device: nobody writes in between.
    async fn change<F, W>(&self, system: Option<pb::SystemName>, work: F) -> Result<Response<pb::ChangeResponse>, Status>
    where
        F: FnOnce(Arc<Client>, Doc) -> W + Send + 'static,
        W: Future<Output = RedfishResult<bool>> + Send + 'static,
    {
        let (device, doc) = self.find(system).await?;
        let write = device.write(|client| async move {
            let fresh = systems::reread(&client, &doc).await?;
            work(client, fresh).await
        });
        let changed = write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::ChangeResponse { changed }))
    }
}

fn system_to(doc: &Doc) -> pb::System {
    let (target, enabled) = boot::override_of(doc);
    pb::System {
        system_id: doc.id(),
        system_uuid: systems::uuid(doc),
        manufacturer: doc.text_or_empty("Manufacturer"),
        model: doc.text_or_empty("Model"),
        serial_number: systems::serial(doc),
        power_state: power_to(power::state(doc)).into(),
        boot_override_target: target,
        boot_override_enabled: enabled,
        boot_order: doc.part("Boot").texts("BootOrder"),
        boot_options: vec![],
        indicator_led: led::state(doc),
        inserted_image: String::new(),
        bios_version: doc.text_or_empty("BiosVersion"),
    }
}

#[tonic::async_trait]
impl SystemService for Grpc {
    async fn list_systems(&self, request: Request<pb::ListSystemsRequest>) -> Result<Response<pb::ListSystemsResponse>, Status> {
        let device = self.devices.get(&request.into_inner().bmc).await?;
        let docs = device
            .read(|client| async move { systems::list(&client).await })
            .await
            .map_err(Fault::from)?;
        Ok(Response::new(pb::ListSystemsResponse {
            systems: docs.iter().map(system_to).collect(),
        }))
    }

    async fn get_hardware(&self, request: Request<pb::GetHardwareRequest>) -> Result<Response<common::Hardware>, Status> {
        let (device, doc) = self.find(request.into_inner().system).await?;
        let now = self.cx.now();
        let read = device.read(move |client| async move { hardware::read(&client, &doc, now).await });
        Ok(Response::new(hardware_to(read.await.map_err(Fault::from)?)))
    }

    async fn get_system(&self, request: Request<pb::GetSystemRequest>) -> Result<Response<pb::System>, Status> {
        let (device, doc) = self.find(request.into_inner().system).await?;
        let mut system = system_to(&doc);
        let read = device.read(move |client| async move {
            let options = boot::options(&client, &doc).await;
            Ok((options, media::inserted(&client, &doc).await.unwrap_or_default()))
        });
        let (options, image) = read.await.map_err(Fault::from)?;
        system.inserted_image = image;
        system.boot_options = options
            .into_iter()
            .map(
                |boot::BootOption {
                     reference,
                     display_name,
                     device,
                 }| pb::BootOption {
                    reference,
                    display_name,
                    device: device.to_owned(),
                },
            )
            .collect();
        Ok(Response::new(system))
    }

    async fn set_power(&self, request_: Request<pb::SetPowerRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let ledger = request("SetPower", &message.request_id, &message);
        let action = match message.action() {
            pb::PowerAction::Unspecified => return Err(Fault::field("action", "is missing").into()),
            pb::PowerAction::On => Action::On,
            pb::PowerAction::GracefulOff => Action::GracefulOff,
            pb::PowerAction::ForceOff => Action::ForceOff,
            pb::PowerAction::Cycle => Action::Cycle,
            pb::PowerAction::Reset => Action::Reset,
        };
        let graceful_seconds = u64::try_from(message.graceful_timeout_seconds)
            .map_err(|_| Fault::field("graceful_timeout_seconds", "must not be negative"))?;
        let target = target(message.system)?;
        self.devices.get(&target.bmc).await?;
        let label = target.label();
        let asked = power_task::Asked {
            target,
            action,
            graceful_seconds,
        };
        let stored = begin_operation(&self.cx, &self.operations, &ledger, power_task::VERB, label, &asked).await?;
        Ok(Response::new(operation_to(stored)))
    }

    async fn set_boot_override(&self, request: Request<pb::SetBootOverrideRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let pb::SetBootOverrideRequest {
            system,
            target,
            continuous,
            http_boot_uri,
        } = request.into_inner();
        if !["None", "Pxe", "Cd", "Hdd", "Usb", "UefiHttp"].contains(&target.as_str()) {
            return Err(Fault::field(
                "target",
                format!("{target:?} is not a target: use None, Pxe, Cd, Hdd, Usb or UefiHttp"),
            )
            .into());
        }
        let work =
            move |client: Arc<Client>, doc| async move { boot::set_override(&client, &doc, &target, continuous, &http_boot_uri).await };
        self.change(system, work).await
    }

    async fn set_boot_order(&self, request: Request<pb::SetBootOrderRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let pb::SetBootOrderRequest { system, devices } = request.into_inner();
        self.change(
            system,
            move |client, doc| async move { boot::set_order(&client, &doc, &devices).await },
        )
        .await
    }

    async fn get_bios(&self, request: Request<pb::GetBiosRequest>) -> Result<Response<pb::Bios>, Status> {
        let (device, doc) = self.find(request.into_inner().system).await?;
        let version = doc.text_or_empty("BiosVersion");
        let read = device
            .read(move |client| async move { bios::read(&client, &doc).await })
            .await
            .map_err(Fault::from)?;
        Ok(Response::new(pb::Bios {
            version,
            attributes: bios::as_texts(&read.attributes),
            pending: bios::as_texts(&read.pending),
            reset_pending: read.reset_pending,
        }))
    }

    async fn set_bios(&self, request: Request<pb::SetBiosRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let pb::SetBiosRequest { system, attributes } = request.into_inner();
        self.change(
            system,
            move |client, doc| async move { bios::set(&client, &doc, &attributes).await },
        )
        .await
    }

    async fn reset_bios(&self, request: Request<pb::ResetBiosRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        self.change(request.into_inner().system, |client, doc| async move {
            bios::reset(&client, &doc).await
        })
        .await
    }

    async fn list_drives(&self, request: Request<pb::ListDrivesRequest>) -> Result<Response<pb::ListDrivesResponse>, Status> {
        let (device, doc) = self.find(request.into_inner().system).await?;
        let read = device
            .read(move |client| async move { drives::read_all(&client, &doc).await })
            .await
            .map_err(Fault::from)?;
        let drives = read.map_err(|why| Fault::new(Reason::DrivesUnreadable, format!("not all drives can be read: {why}")))?;
        Ok(Response::new(pb::ListDrivesResponse {
            drives: drives.into_iter().map(drive_to).collect(),
        }))
    }

    async fn erase_drive(&self, request_: Request<pb::EraseDriveRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let ledger = request("EraseDrive", &message.request_id, &message);
        let pb::EraseDriveRequest {
            system,
            drive_serial_number: serial,
            sanitization_type: kind,
            request_id: _,
        } = message;
        if serial.is_empty() {
            return Err(Fault::field("drive_serial_number", "is missing").into());
        }
        let target = target(system)?;
        self.devices.get(&target.bmc).await?;
        let label = format!("{} drive {serial}", target.label());
        let asked = erase::Asked { target, serial, kind };
        let stored = begin_operation(&self.cx, &self.operations, &ledger, erase::VERB, label, &asked).await?;
        Ok(Response::new(operation_to(stored)))
    }

    async fn set_indicator_led(&self, request: Request<pb::SetIndicatorLedRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let pb::SetIndicatorLedRequest { system, on } = request.into_inner();
        self.change(system, move |client, doc| async move { led::set(&client, &doc, on).await })
            .await
    }

    async fn insert_media(&self, request: Request<pb::InsertMediaRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let pb::InsertMediaRequest { system, image } = request.into_inner();
        if !image.starts_with("http://") && !image.starts_with("https://") || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Fault::field("image", "must be an http or https URL").into());
        }
        self.change(system, move |client, doc| async move { media::insert(&client, &doc, &image).await })
            .await
    }

    async fn eject_media(&self, request: Request<pb::EjectMediaRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        self.change(request.into_inner().system, |client, doc| async move {
            media::eject(&client, &doc).await
        })
        .await
    }
}
