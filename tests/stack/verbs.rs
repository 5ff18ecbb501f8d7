//! Everything that can be asked of a BMC, by name.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use ironyard::client::Clients;
use ironyard_proto::{
    bmc::{self, push_firmware_request::Part},
    common::Operation,
};
use tonic::Status;

use crate::gateway::{finished, reason_of, system};

/// What a call came to: a reason and a message where it failed.
pub type Outcome = Result<(), (String, String)>;
type Call = for<'a> fn(&'a Clients, &'a str) -> BoxFuture<'a, Outcome>;

async fn direct<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Outcome {
    call.await.map(|_| ()).map_err(|s| (reason_of(&s), s.message().to_owned()))
}

async fn long(clients: &Clients, call: impl Future<Output = Result<tonic::Response<Operation>, Status>>) -> Outcome {
    let begun = call.await.map_err(|s| (reason_of(&s), s.message().to_owned()))?.into_inner();
    finished(clients, &begun).await.map(|_| ())
}

async fn swept(clients: &Clients, name: &str) -> Outcome {
    let request = bmc::SweepPowerRequest {
        selector: Some(ironyard_proto::common::LabelSelector {
            match_labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
            ..Default::default()
        }),
        bmcs: vec![],
    };
    let mut stream = clients
        .telemetry
        .clone()
        .sweep_power(request)
        .await
        .map_err(|s| (reason_of(&s), String::new()))?
        .into_inner();
    while let Some(answer) = stream.message().await.map_err(|s| (reason_of(&s), String::new()))? {
        for reading in answer.readings {
            if !reading.reason.is_empty() {
                return Err((reading.reason, reading.message));
            }
        }
    }
    Ok(())
}

pub fn image(component: &str, version: &str) -> Vec<u8> {
    format!("component={component} version={version} {}", "x".repeat(10_000)).into_bytes()
}

pub fn push(bmc: &str, component: &str, version: &str) -> impl futures_util::Stream<Item = bmc::PushFirmwareRequest> + use<> {
    let bytes = image(component, version);
    let head = bmc::PushFirmwareHead {
        bmc: bmc.to_owned(),
        file_name: "image.bin".into(),
        sha256: ironyard_types::sha256_hex(&bytes),
        component_id: component.to_owned(),
        version: version.to_owned(),
        ..Default::default()
    };
    let parts: Vec<_> = std::iter::once(Part::Head(head))
        .chain(bytes.chunks(4096).map(|c| Part::Data(c.to_vec())))
        .collect();
    futures_util::stream::iter(parts.into_iter().map(|part| bmc::PushFirmwareRequest { part: Some(part) }))
}

macro_rules! verbs {
    ($($name:literal => |$clients:ident, $bmc:ident| $call:expr;)*) => {
        /// All of them: the name of the method (and what of it), and the call.
        pub const VERBS: &[(&str, Call)] = &[$(($name, |$clients, $bmc| Box::pin(async move { $call })),)*];
    };
}

verbs! {
    "ListSystems" => |c, b| direct(c.systems.clone().list_systems(bmc::ListSystemsRequest { bmc: b.into() })).await;
    "GetHardware" => |c, b| direct(c.systems.clone().get_hardware(bmc::GetHardwareRequest { system: system(b) })).await;
    "GetSystem" => |c, b| direct(c.systems.clone().get_system(bmc::GetSystemRequest { system: system(b) })).await;
    "SetPower On" => |c, b| power(c, b, bmc::PowerAction::On).await;
    "SetPower GracefulOff" => |c, b| power(c, b, bmc::PowerAction::GracefulOff).await;
    "SetPower Cycle" => |c, b| power(c, b, bmc::PowerAction::Cycle).await;
    "SetPower Reset" => |c, b| power(c, b, bmc::PowerAction::Reset).await;
    "SetPower Nmi" => |c, b| power(c, b, bmc::PowerAction::Nmi).await;
    "SetPower AcCycle" => |c, b| power(c, b, bmc::PowerAction::AcCycle).await;
    "SetPower ForceOff" => |c, b| power(c, b, bmc::PowerAction::ForceOff).await;
    "SetBootOverride Pxe" => |c, b| direct(c.systems.clone().set_boot_override(bmc::SetBootOverrideRequest { system: system(b), target: "Pxe".into(), ..Default::default() })).await;
    "SetBootOverride UefiHttp" => |c, b| direct(c.systems.clone().set_boot_override(bmc::SetBootOverrideRequest {
        system: system(b), target: "UefiHttp".into(), http_boot_uri: "http://192.0.2.1/boot.efi".into(), continuous: true, ..Default::default()
    })).await;
    "SetBootOverride option" => |c, b| direct(c.systems.clone().set_boot_override(bmc::SetBootOverrideRequest { system: system(b), boot_option: "Boot0002".into(), ..Default::default() })).await;
    "SetBootOrder" => |c, b| direct(c.systems.clone().set_boot_order(bmc::SetBootOrderRequest { system: system(b), devices: vec!["Cd".into(), "Network".into()] })).await;
    "GetBios" => |c, b| direct(c.systems.clone().get_bios(bmc::GetBiosRequest { system: system(b) })).await;
    "GetBiosRegistry" => |c, b| direct(c.systems.clone().get_bios_registry(bmc::GetBiosRegistryRequest { system: system(b) })).await;
    "SetBios" => |c, b| direct(c.systems.clone().set_bios(bmc::SetBiosRequest { system: system(b), attributes: BTreeMap::from([("BootTimeout".into(), "42".into())]) })).await;
    "ResetBios" => |c, b| direct(c.systems.clone().reset_bios(bmc::ResetBiosRequest { system: system(b) })).await;
    "ChangeBiosPassword" => |c, b| direct(c.systems.clone().change_bios_password(bmc::ChangeBiosPasswordRequest {
        system: system(b), password_name: "SetupPassword".into(), new_credential: b.into(), ..Default::default()
    })).await;
    "GetSecureBoot" => |c, b| direct(c.systems.clone().get_secure_boot(bmc::GetSecureBootRequest { system: system(b) })).await;
    "SetSecureBoot" => |c, b| direct(c.systems.clone().set_secure_boot(bmc::SetSecureBootRequest { system: system(b), enabled: true })).await;
    "ResetSecureBootKeys" => |c, b| direct(c.systems.clone().reset_secure_boot_keys(bmc::ResetSecureBootKeysRequest { system: system(b), reset_keys_type: "DeletePK".into() })).await;
    "SetIndicatorLed" => |c, b| direct(c.systems.clone().set_indicator_led(bmc::SetIndicatorLedRequest { system: system(b), on: true })).await;
    "InsertMedia" => |c, b| direct(c.systems.clone().insert_media(bmc::InsertMediaRequest { system: system(b), image: "http://192.0.2.1/x.iso".into() })).await;
    "EjectMedia" => |c, b| direct(c.systems.clone().eject_media(bmc::EjectMediaRequest { system: system(b) })).await;
    "ListDrives" => |c, b| direct(c.systems.clone().list_drives(bmc::ListDrivesRequest { system: system(b) })).await;
    "EraseDrive" => |c, b| long(c, c.systems.clone().erase_drive(bmc::EraseDriveRequest { system: system(b), drive_serial_number: serial(b), ..Default::default() })).await;
    "ListVolumes" => |c, b| direct(c.storage.clone().list_volumes(bmc::ListVolumesRequest { system: system(b) })).await;
    "CreateVolume" => |c, b| long(c, c.storage.clone().create_volume(bmc::CreateVolumeRequest {
        system: system(b), name: "data".into(), raid_type: "RAID0".into(), drive_serial_numbers: vec![serial(b)], ..Default::default()
    })).await;
    "DeleteVolume" => |c, b| {
        let volumes = c.storage.clone().list_volumes(bmc::ListVolumesRequest { system: system(b) }).await.map(|r| r.into_inner().volumes).unwrap_or_default();
        let volume_id = volumes.first().map_or("1".to_owned(), |v| v.id.clone());
        long(c, c.storage.clone().delete_volume(bmc::DeleteVolumeRequest { system: system(b), volume_id, ..Default::default() })).await
    };
    "SweepPower" => |c, b| swept(c, b).await;
    "GetSensors" => |c, b| direct(c.telemetry.clone().get_sensors(bmc::GetSensorsRequest { system: system(b) })).await;
    "ListLogs" => |c, b| direct(c.telemetry.clone().list_logs(bmc::ListLogsRequest { system: system(b) })).await;
    "ReadLog" => |c, b| direct(c.telemetry.clone().read_log(bmc::ReadLogRequest { system: system(b), log: "SEL".into(), ..Default::default() })).await;
    "ClearLog" => |c, b| direct(c.telemetry.clone().clear_log(bmc::ClearLogRequest { system: system(b), log: "SEL".into() })).await;
    "GetManager" => |c, b| direct(c.managers.clone().get_manager(bmc::GetManagerRequest { bmc: b.into(), ..Default::default() })).await;
    "SyncClock" => |c, b| direct(c.managers.clone().sync_clock(bmc::SyncClockRequest { bmc: b.into() })).await;
    "SetNtp" => |c, b| direct(c.managers.clone().set_ntp(bmc::SetNtpRequest { bmc: b.into(), servers: vec!["ntp.example.net".into()] })).await;
    "ListAccounts" => |c, b| direct(c.managers.clone().list_accounts(bmc::ListAccountsRequest { bmc: b.into() })).await;
    "CreateAccount" => |c, b| {
        let name = format!("{b}-more");
        c.credentials.clone().set_credential(bmc::SetCredentialRequest { name: name.clone(), username: "more".into(), password: "s1mulated-2".into(), replace: false, networks: vec![] }).await.unwrap();
        direct(c.managers.clone().create_account(bmc::CreateAccountRequest { bmc: b.into(), credential: name, role: "Operator".into() })).await
    };
    "DeleteAccount" => |c, b| direct(c.managers.clone().delete_account(bmc::DeleteAccountRequest { bmc: b.into(), username: "more".into() })).await;
    "GenerateCsr" => |c, b| long(c, c.managers.clone().generate_csr(bmc::GenerateCsrRequest { bmc: b.into(), common_name: "bmc.example.net".into(), ..Default::default() })).await;
    "ListFirmware" => |c, b| direct(c.managers.clone().list_firmware(bmc::ListFirmwareRequest { bmc: b.into() })).await;
    "UpdateFirmware" => |c, b| long(c, c.managers.clone().update_firmware(bmc::UpdateFirmwareRequest {
        bmc: b.into(), image_uri: "http://192.0.2.1/NIC1-23.0.0.bin".into(), component_id: "NIC1".into(), version: "23.0.0".into(), ..Default::default()
    })).await;
    "PushFirmware" => |c, b| long(c, c.managers.clone().push_firmware(push(b, "NIC1", "24.0.0"))).await;
    "GetRaw" => |c, b| direct(c.managers.clone().get_raw(bmc::GetRawRequest { bmc: b.into(), path: "/redfish/v1/AccountService".into() })).await;
    "ResetManager" => |c, b| long(c, c.managers.clone().reset_manager(bmc::ResetManagerRequest { bmc: b.into(), ..Default::default() })).await;
    "RotateCredential" => |c, b| long(c, c.credentials.clone().rotate_credential(bmc::RotateCredentialRequest { bmc: b.into(), ..Default::default() })).await;
}

async fn power(clients: &Clients, bmc: &str, action: bmc::PowerAction) -> Outcome {
    let request = bmc::SetPowerRequest {
        system: system(bmc),
        action: action.into(),
        ..Default::default()
    };
    long(clients, clients.systems.clone().set_power(request)).await
}

/// The drive that the machine of a BMC can erase.
fn serial(bmc: &str) -> String {
    let number: u32 = bmc.rsplit('-').next().unwrap().parse().unwrap();
    format!("NV{number:06}A")
}
