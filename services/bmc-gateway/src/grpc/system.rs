use std::sync::Arc;

use ironyard_proto::{
    bmc::{self as pb, system_service_server::SystemService},
    common,
};
use ironyard_redfish::{
    Client, Doc, Result as RedfishResult,
    ops::{attributes, bios, boot, drives, hardware, led, media, secure_boot, systems, topology},
};
use ironyard_resource::request;
use ironyard_rpc::{
    Fault, Reason,
    convert::{drive_to, hardware_to},
};
use ironyard_types::Secret;
use tonic::{Request, Response, Status};

use super::systems::{registry_to, system_to};
use super::{Shared, convert::operation_to, named, target};
use crate::{
    app::begin_operation::begin_operation,
    device::Registries,
    domain::power::Action,
    tasks::{
        jobs::{Erase, Job},
        power as power_task,
    },
};

/// The service on the wire.
pub struct Grpc {
    /// What all share.
    pub shared: Shared,
    /// What each BIOS attribute may be, by vendor and registry.
    pub registries: Registries,
}

impl Grpc {
    /// Reads the system, then writes if something is other than wanted, in one turn of the device: nobody writes in between.
    async fn change<F, W>(&self, system: Option<pb::SystemName>, work: F) -> Result<Response<pb::ChangeResponse>, Status>
    where
        F: FnOnce(Arc<Client>, Doc) -> W + Send + 'static,
        W: Future<Output = RedfishResult<bool>> + Send + 'static,
    {
        let (device, doc) = self.shared.find(system).await?;
        let write = device.write(|client| async move {
            let fresh = systems::reread(&client, &doc).await?;
            work(client, fresh).await
        });
        let changed = write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::ChangeResponse { changed }))
    }
}

#[tonic::async_trait]
impl SystemService for Grpc {
    async fn list_systems(&self, request: Request<pb::ListSystemsRequest>) -> Result<Response<pb::ListSystemsResponse>, Status> {
        let device = self.shared.devices.get(&request.into_inner().bmc).await?;
        let docs = device
            .read(|client| async move { systems::list(&client).await })
            .await
            .map_err(Fault::from)?;
        let mut systems: Vec<pb::System> = docs.iter().map(system_to).collect();
        let (_, parts) = topology::split(docs);
        for system in &mut systems {
            system.is_part = parts.iter().any(|part| part.id() == system.system_id);
        }
        Ok(Response::new(pb::ListSystemsResponse { systems }))
    }

    async fn get_hardware(&self, request: Request<pb::GetHardwareRequest>) -> Result<Response<common::Hardware>, Status> {
        let (device, doc) = self.shared.find(request.into_inner().system).await?;
        let now = self.shared.cx.now();
        let read = device.read(move |client| async move { hardware::read(&client, &doc, now).await });
        Ok(Response::new(hardware_to(read.await.map_err(Fault::from)?)))
    }

    async fn get_system(&self, request: Request<pb::GetSystemRequest>) -> Result<Response<pb::System>, Status> {
        let (device, doc) = self.shared.find(request.into_inner().system).await?;
        let mut system = system_to(&doc);
        let read = device.read(move |client| async move {
            let options = boot::options(&client, &doc).await;
            Ok((options, media::list(&client, &doc).await.unwrap_or_default()))
        });
        let (options, slots) = read.await.map_err(Fault::from)?;
        let image = slots.iter().map(|slot| &slot.image).find(|image| !image.is_empty());
        system.inserted_image = image.cloned().unwrap_or_default();
        system.virtual_drives = slots
            .into_iter()
            .map(|media::Slot { id, types, image }| pb::VirtualDrive {
                id,
                media_types: types,
                image,
            })
            .collect();
        system.boot_options = options
            .into_iter()
            .map(
                |boot::BootOption {
                     reference,
                     display_name,
                     device,
                     mac: mac_address,
                 }| pb::BootOption {
                    mac_address,
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
        let idempotency_key = request(
            "SetPower",
            &message.request_id,
            &pb::SetPowerRequest {
                system: named(&message.system),
                ..message.clone()
            },
        );
        let action = match message.action() {
            pb::PowerAction::Unspecified => return Err(Fault::field("action", "is missing").into()),
            pb::PowerAction::On => Action::On,
            pb::PowerAction::GracefulOff => Action::GracefulOff,
            pb::PowerAction::ForceOff => Action::ForceOff,
            pb::PowerAction::Cycle => Action::Cycle,
            pb::PowerAction::Reset => Action::Reset,
            pb::PowerAction::Nmi => Action::Nmi,
            pb::PowerAction::AcCycle => Action::AcCycle,
        };
        let graceful_seconds = u64::try_from(message.graceful_timeout_seconds)
            .map_err(|_| Fault::field("graceful_timeout_seconds", "must not be negative"))?;
        let target = target(message.system)?;
        self.shared.devices.get(&target.bmc).await?;
        let label = target.label();
        let line = target.line();
        let asked = power_task::Asked {
            target,
            action,
            graceful_seconds,
        };
        let Shared { cx, operations, .. } = &self.shared;
        let stored = begin_operation(cx, operations, &idempotency_key, power_task::VERB, label, line, &asked).await?;
        Ok(Response::new(operation_to(stored)))
    }

    async fn set_boot_override(&self, request: Request<pb::SetBootOverrideRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let pb::SetBootOverrideRequest {
            system,
            target,
            continuous,
            http_boot_uri: http_uri,
            mode,
            boot_option: option,
        } = request.into_inner();
        let targets = ["None", "Pxe", "Cd", "Hdd", "Usb", "UefiHttp", "BiosSetup"];
        if option.is_empty() && !targets.contains(&target.as_str()) {
            let why = format!("{target:?} is not a target: use {}", targets.join(", "));
            return Err(Fault::field("target", why).into());
        }
        if !option.is_empty() && (!target.is_empty() || continuous) {
            return Err(Fault::field("boot_option", "is for the next boot, and goes without a target").into());
        }
        if !["", "UEFI", "Legacy"].contains(&mode.as_str()) {
            return Err(Fault::field("mode", format!("{mode:?} is not a boot mode: use UEFI or Legacy")).into());
        }
        let wanted = boot::Override {
            target,
            continuous,
            http_uri,
            mode,
            option,
        };
        let work = move |client: Arc<Client>, doc| async move { boot::set_override(&client, &doc, &wanted).await };
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
        let (device, doc) = self.shared.find(request.into_inner().system).await?;
        let version = doc.text_or_empty("BiosVersion");
        let read = device
            .read(move |client| async move { bios::read(&client, &doc).await })
            .await
            .map_err(Fault::from)?;
        Ok(Response::new(pb::Bios {
            version,
            attributes: attributes::as_texts(&read.attributes),
            pending: attributes::as_texts(&read.pending),
            reset_pending: read.reset_pending,
        }))
    }

    async fn set_bios(&self, request: Request<pb::SetBiosRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let pb::SetBiosRequest { system, attributes } = request.into_inner();
        let registries = self.registries.clone();
        let work = move |client: Arc<Client>, doc| async move {
            let registry = registries.of(&client, &doc).await?;
            bios::set(&client, &doc, &attributes, registry.as_deref()).await
        };
        self.change(system, work).await
    }

    async fn get_bios_registry(&self, request: Request<pb::GetBiosRegistryRequest>) -> Result<Response<pb::BiosRegistry>, Status> {
        let (device, doc) = self.shared.find(request.into_inner().system).await?;
        let registries = self.registries.clone();
        let read = device.read(|client| async move { registries.of(&client, &doc).await });
        let registry = read.await.map_err(Fault::from)?;
        Ok(Response::new(registry.map(|r| registry_to(&r)).unwrap_or_default()))
    }

    async fn change_bios_password(
        &self,
        request: Request<pb::ChangeBiosPasswordRequest>,
    ) -> Result<Response<pb::ChangeBiosPasswordResponse>, Status> {
        let pb::ChangeBiosPasswordRequest {
            system,
            password_name: name,
            old_credential,
            new_credential,
        } = request.into_inner();
        if name.is_empty() {
            return Err(Fault::field("password_name", "is missing").into());
        }
        let mut passwords = [Secret::new(String::new()), Secret::new(String::new())];
        for (credential, password) in [old_credential, new_credential].iter().zip(&mut passwords) {
            if !credential.is_empty() {
                let bmc = system.as_ref().map_or("", |system| system.bmc.as_str());
                *password = self.shared.credential(bmc, credential).await?.password;
            }
        }
        let [old, new] = passwords;
        let (device, doc) = self.shared.find(system).await?;
        let write = device.write(|client| async move { bios::change_password(&client, &doc, &name, &old, &new).await });
        write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::ChangeBiosPasswordResponse {}))
    }

    async fn get_secure_boot(&self, request: Request<pb::GetSecureBootRequest>) -> Result<Response<pb::SecureBoot>, Status> {
        let (device, doc) = self.shared.find(request.into_inner().system).await?;
        let read = device.read(|client| async move { secure_boot::read(&client, &doc).await });
        let secure_boot::SecureBoot {
            enabled,
            current_boot,
            mode,
            reset_keys,
        } = read.await.map_err(Fault::from)?;
        Ok(Response::new(pb::SecureBoot {
            enabled,
            current_boot,
            mode,
            reset_keys_types: reset_keys,
        }))
    }

    async fn set_secure_boot(&self, request: Request<pb::SetSecureBootRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let pb::SetSecureBootRequest { system, enabled } = request.into_inner();
        self.change(
            system,
            move |client, doc| async move { secure_boot::set(&client, &doc, enabled).await },
        )
        .await
    }

    async fn reset_secure_boot_keys(
        &self,
        request: Request<pb::ResetSecureBootKeysRequest>,
    ) -> Result<Response<pb::ResetSecureBootKeysResponse>, Status> {
        let pb::ResetSecureBootKeysRequest {
            system,
            reset_keys_type: kind,
        } = request.into_inner();
        if !["ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"].contains(&kind.as_str()) {
            let why = format!("{kind:?} is not supported: use ResetAllKeysToDefault, DeleteAllKeys or DeletePK");
            return Err(Fault::field("reset_keys_type", why).into());
        }
        let (device, doc) = self.shared.find(system).await?;
        let write = device.write(|client| async move { secure_boot::reset_keys(&client, &doc, &kind).await });
        write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::ResetSecureBootKeysResponse {}))
    }

    async fn reset_bios(&self, request: Request<pb::ResetBiosRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        self.change(request.into_inner().system, |client, doc| async move {
            bios::reset(&client, &doc).await
        })
        .await
    }

    async fn list_drives(&self, request: Request<pb::ListDrivesRequest>) -> Result<Response<pb::ListDrivesResponse>, Status> {
        let (device, doc) = self.shared.find(request.into_inner().system).await?;
        let read = device
            .read(move |client| async move { Ok(drives::read(&client, &doc, true).await) })
            .await
            .map_err(Fault::from)?;
        if !read.unreadable.is_empty() {
            let why = format!("not all drives can be read: {}", read.unreadable.join("; "));
            return Err(Fault::new(Reason::DrivesUnreadable, why).into());
        }
        Ok(Response::new(pb::ListDrivesResponse {
            drives: read.drives.into_iter().map(drive_to).collect(),
        }))
    }

    async fn erase_drive(&self, request_: Request<pb::EraseDriveRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request(
            "EraseDrive",
            &message.request_id,
            &pb::EraseDriveRequest {
                system: named(&message.system),
                ..message.clone()
            },
        );
        let pb::EraseDriveRequest {
            system,
            drive_serial_number: serial,
            sanitization_type: kind,
            request_id: _,
        } = message;
        if serial.is_empty() {
            return Err(Fault::field("drive_serial_number", "is missing").into());
        }
        let job = Erase {
            target: target(system)?,
            serial,
            kind,
        };
        self.shared.begin(&idempotency_key, Job::Erase(job)).await
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
