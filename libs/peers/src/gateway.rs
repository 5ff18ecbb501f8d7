use std::collections::BTreeMap;

use ironyard_proto::{
    bmc::{
        self as pb, bmc_service_client::BmcServiceClient, operation_service_client::OperationServiceClient,
        system_service_client::SystemServiceClient,
    },
    common::{ConditionStatus, Drive, Hardware, Operation},
    inventory::Server,
};
use ironyard_rpc::Channel;
use ironyard_types::MachineIdentity;
use tonic::Code;

use crate::Result;

/// The gateway.
#[derive(Clone)]
pub struct Gateway {
    /// BMCs.
    pub bmcs: BmcServiceClient<Channel>,
    /// Systems.
    pub systems: SystemServiceClient<Channel>,
    /// Operations.
    pub operations: OperationServiceClient<Channel>,
}

impl Gateway {
    /// Over a channel.
    pub fn new(channel: Channel) -> Self {
        Self {
            bmcs: BmcServiceClient::new(channel.clone()),
            systems: SystemServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20),
            operations: OperationServiceClient::new(channel),
        }
    }

    /// The system behind a server, and no other machine that may stand in its place by now; `None` until its BMC is known.
    pub fn system_of(server: &Server) -> Option<pb::SystemName> {
        let bmc = server.spec.as_ref()?.bmc_ref.as_ref()?.name.clone();
        let system_id = server.observed.as_ref().map(|o| o.system_id.clone()).unwrap_or_default();
        let hardware = server.observed.as_ref().and_then(|o| o.hardware.as_ref());
        let expected = pb::MachineIdentity {
            system_uuid: server.spec.as_ref()?.system_uuid.clone(),
            manufacturer: hardware.map(|h| h.manufacturer.clone()).unwrap_or_default(),
            serial_number: hardware.map(|h| h.serial_number.clone()).unwrap_or_default(),
        };
        Some(pb::SystemName {
            bmc,
            system_id,
            expected: Some(expected),
        })
    }

    /// What makes the machine that a BMC shows this one.
    pub fn identity(system: &pb::System) -> MachineIdentity {
        MachineIdentity::new(&system.system_uuid, &system.manufacturer, &system.serial_number)
    }

    /// A BMC, if it exists.
    pub async fn bmc(&self, name: &str) -> Result<Option<pb::Bmc>> {
        match self.bmcs.clone().get_bmc(pb::GetBmcRequest { name: name.to_owned() }).await {
            Ok(reply) => Ok(Some(reply.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// Why a BMC cannot be used; `None` when it can.
    pub fn not_ready(bmc: &pb::Bmc) -> Option<String> {
        let ready = bmc.conditions.iter().find(|c| c.r#type == "Ready");
        match ready {
            Some(condition) if condition.status() == ConditionStatus::True => None,
            Some(condition) => Some(condition.message.clone()),
            None => Some("the BMC has not been contacted yet".to_owned()),
        }
    }

    /// Systems behind a BMC.
    pub async fn list_systems(&self, bmc: &str) -> Result<Vec<pb::System>> {
        Ok(self
            .systems
            .clone()
            .list_systems(pb::ListSystemsRequest { bmc: bmc.to_owned() })
            .await?
            .into_inner()
            .systems)
    }

    /// All hardware of a system.
    pub async fn hardware(&self, system: &pb::SystemName) -> Result<Hardware> {
        Ok(self
            .systems
            .clone()
            .get_hardware(pb::GetHardwareRequest {
                system: Some(system.clone()),
            })
            .await?
            .into_inner())
    }

    /// Quick facts of a system.
    pub async fn system(&self, system: &pb::SystemName) -> Result<pb::System> {
        Ok(self
            .systems
            .clone()
            .get_system(pb::GetSystemRequest {
                system: Some(system.clone()),
            })
            .await?
            .into_inner())
    }

    /// Changes power, once per key; the operation as it stands.
    pub async fn power(&self, system: &pb::SystemName, action: pb::PowerAction, graceful_seconds: i32, key: &str) -> Result<Operation> {
        let request = pb::SetPowerRequest {
            system: Some(system.clone()),
            action: action.into(),
            graceful_timeout_seconds: graceful_seconds,
            request_id: key.to_owned(),
        };
        Ok(self.systems.clone().set_power(request).await?.into_inner())
    }

    /// Erases a drive, once per key; the operation as it stands.
    pub async fn erase(&self, system: &pb::SystemName, serial: &str, kind: &str, key: &str) -> Result<Operation> {
        let request = pb::EraseDriveRequest {
            system: Some(system.clone()),
            drive_serial_number: serial.to_owned(),
            sanitization_type: kind.to_owned(),
            request_id: key.to_owned(),
        };
        Ok(self.systems.clone().erase_drive(request).await?.into_inner())
    }

    /// Stops an operation before its next step.
    pub async fn cancel(&self, operation: &str, reason: &str) -> Result<()> {
        let request = pb::CancelOperationRequest {
            name: operation.to_owned(),
            reason: reason.to_owned(),
        };
        self.operations.clone().cancel_operation(request).await?;
        Ok(())
    }

    /// Sets the boot override for the next boot; `None` clears it.
    pub async fn boot_once(&self, system: &pb::SystemName, target: &str) -> Result<bool> {
        let request = pb::SetBootOverrideRequest {
            system: Some(system.clone()),
            target: target.to_owned(),
            continuous: false,
            ..pb::SetBootOverrideRequest::default()
        };
        Ok(self.systems.clone().set_boot_override(request).await?.into_inner().changed)
    }

    /// Sets the boot order.
    pub async fn boot_order(&self, system: &pb::SystemName, devices: Vec<String>) -> Result<bool> {
        let request = pb::SetBootOrderRequest {
            system: Some(system.clone()),
            devices,
        };
        Ok(self.systems.clone().set_boot_order(request).await?.into_inner().changed)
    }

    /// Inserts a virtual CD.
    pub async fn insert(&self, system: &pb::SystemName, image: &str) -> Result<bool> {
        let request = pb::InsertMediaRequest {
            system: Some(system.clone()),
            image: image.to_owned(),
        };
        Ok(self.systems.clone().insert_media(request).await?.into_inner().changed)
    }

    /// Ejects virtual media.
    pub async fn eject(&self, system: &pb::SystemName) -> Result<bool> {
        Ok(self
            .systems
            .clone()
            .eject_media(pb::EjectMediaRequest {
                system: Some(system.clone()),
            })
            .await?
            .into_inner()
            .changed)
    }

    /// Switches the locator LED.
    pub async fn led(&self, system: &pb::SystemName, on: bool) -> Result<bool> {
        let request = pb::SetIndicatorLedRequest {
            system: Some(system.clone()),
            on,
        };
        Ok(self.systems.clone().set_indicator_led(request).await?.into_inner().changed)
    }

    /// Reads the BIOS.
    pub async fn bios(&self, system: &pb::SystemName) -> Result<pb::Bios> {
        Ok(self
            .systems
            .clone()
            .get_bios(pb::GetBiosRequest {
                system: Some(system.clone()),
            })
            .await?
            .into_inner())
    }

    /// Sets BIOS attributes for the next boot.
    pub async fn set_bios(&self, system: &pb::SystemName, attributes: BTreeMap<String, String>) -> Result<bool> {
        let request = pb::SetBiosRequest {
            system: Some(system.clone()),
            attributes,
        };
        Ok(self.systems.clone().set_bios(request).await?.into_inner().changed)
    }

    /// Resets the BIOS at the next boot.
    pub async fn reset_bios(&self, system: &pb::SystemName) -> Result<bool> {
        Ok(self
            .systems
            .clone()
            .reset_bios(pb::ResetBiosRequest {
                system: Some(system.clone()),
            })
            .await?
            .into_inner()
            .changed)
    }

    /// All drives, or the reason why not all can be read.
    pub async fn drives(&self, system: &pb::SystemName) -> Result<Vec<Drive>> {
        Ok(self
            .systems
            .clone()
            .list_drives(pb::ListDrivesRequest {
                system: Some(system.clone()),
            })
            .await?
            .into_inner()
            .drives)
    }
}
