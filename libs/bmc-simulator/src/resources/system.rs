use ironyard_types::hardware::PowerState;
use serde_json::{Value, json};

use super::{V1, collection, link, logs, media, resource, status};
use crate::{
    Machine,
    profile::{ApplyTime, Media},
};

pub(super) fn is_on(machine: &Machine) -> bool {
    machine.power() == PowerState::On
}

pub(super) fn power_text(power: PowerState) -> &'static str {
    match power {
        PowerState::On => "On",
        PowerState::Off => "Off",
        PowerState::PoweringOn => "PoweringOn",
        PowerState::PoweringOff => "PoweringOff",
    }
}

pub(super) fn get(machine: &Machine, rest: &[&str]) -> Option<Value> {
    let base = "/Systems/1";
    match rest {
        [] => Some(computer_system(machine)),
        ["Processors"] => Some(collection(
            "/Systems/1/Processors",
            "Processor",
            "Processors",
            (1..=2).map(|n| format!("{base}/Processors/CPU{n}")).collect(),
        )),
        ["Processors", id @ ("CPU1" | "CPU2")] => Some(resource(
            &format!("{base}/Processors/{id}"),
            "Processor.v1_20_1.Processor",
            id,
            id,
            json!({
                "Socket": id, "ProcessorType": "CPU", "Manufacturer": "Ironyard", "Model": "Simulated 32-Core", "TotalCores": 32, "TotalThreads": 64,
                "MaxSpeedMHz": 3600, "Status": status(),
            }),
        )),
        ["Memory"] => Some(collection(
            "/Systems/1/Memory",
            "Memory",
            "Memory",
            (1..=4).map(|n| format!("{base}/Memory/DIMM{n}")).collect(),
        )),
        ["Memory", id] => {
            let n: u32 = id.strip_prefix("DIMM")?.parse().ok().filter(|n| (1..=4).contains(n))?;
            Some(resource(
                &format!("{base}/Memory/{id}"),
                "Memory.v1_20_0.Memory",
                id,
                id,
                json!({
                    "DeviceLocator": id, "CapacityMiB": 32768, "MemoryDeviceType": "DDR5", "OperatingSpeedMhz": 4800, "Manufacturer": "Ironyard",
                    "PartNumber": "SIM-32G", "SerialNumber": format!("{:06}{n:02}", machine.config.number), "Status": status(),
                }),
            ))
        }
        ["EthernetInterfaces"] => Some(collection(
            "/Systems/1/EthernetInterfaces",
            "EthernetInterface",
            "Interfaces",
            (1..=2).map(|n| format!("{base}/EthernetInterfaces/{n}")).collect(),
        )),
        ["EthernetInterfaces", id @ ("1" | "2")] => {
            let mac = machine.config.mac(id.parse().ok()?);
            Some(resource(
                &format!("{base}/EthernetInterfaces/{id}"),
                "EthernetInterface.v1_12_2.EthernetInterface",
                id,
                &format!("NIC {id}"),
                json!({
                    "MACAddress": mac, "PermanentMACAddress": mac, "SpeedMbps": 25000, "LinkStatus": "LinkUp", "Status": status(),
                }),
            ))
        }
        ["Storage"] => Some(collection(
            "/Systems/1/Storage",
            "Storage",
            "Storage",
            vec![format!("{base}/Storage/1")],
        )),
        ["Storage", "1"] => {
            let drives: Vec<Value> = machine
                .drives()
                .iter()
                .map(|d| link(&format!("{base}/Storage/1/Drives/{}", d.serial)))
                .collect();
            Some(resource(
                "/Systems/1/Storage/1",
                "Storage.v1_17_1.Storage",
                "1",
                "Storage",
                json!({
                    "Drives@odata.count": drives.len(), "Drives": drives, "Volumes": link("/Systems/1/Storage/1/Volumes"), "Status": status(),
                }),
            ))
        }
        ["Storage", "1", "Drives", serial] => drive(machine, serial),
        ["Storage", "1", "Volumes"] => {
            let state = machine.lock();
            let ids = state.bmc.volumes.iter().map(|v| format!("{base}/Storage/1/Volumes/{}", v.id));
            Some(collection("/Systems/1/Storage/1/Volumes", "Volume", "Volumes", ids.collect()))
        }
        ["Storage", "1", "Volumes", id] => {
            let state = machine.lock();
            let volume = state.bmc.volumes.iter().find(|v| v.id.to_string() == **id)?;
            let drives: Vec<Value> = volume
                .drives
                .iter()
                .map(|d| link(&format!("{base}/Storage/1/Drives/{d}")))
                .collect();
            Some(resource(
                &format!("{base}/Storage/1/Volumes/{id}"),
                "Volume.v1_10_0.Volume",
                id,
                &volume.name,
                json!({"RAIDType": volume.raid, "CapacityBytes": volume.bytes, "Status": status(), "Links": {"Drives": drives, "Drives@odata.count": drives.len()}}),
            ))
        }
        ["SecureBoot"] => {
            let on = machine.lock().secure_boot;
            Some(resource(
                "/Systems/1/SecureBoot",
                "SecureBoot.v1_1_2.SecureBoot",
                "SecureBoot",
                "Secure Boot",
                json!({
                    "SecureBootEnable": on, "SecureBootCurrentBoot": if on { "Enabled" } else { "Disabled" }, "SecureBootMode": "UserMode",
                    "Actions": {"#SecureBoot.ResetKeys": {
                        "target": format!("{V1}{base}/SecureBoot/Actions/SecureBoot.ResetKeys"),
                        "ResetKeysType@Redfish.AllowableValues": ["ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"],
                    }},
                }),
            ))
        }
        ["ResetActionInfo"] => Some(resource(
            "/Systems/1/ResetActionInfo",
            "ActionInfo.v1_4_2.ActionInfo",
            "ResetActionInfo",
            "Reset Action Info",
            json!({"Parameters": [{"Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": machine.config.profile.resets}]}),
        )),
        ["LogServices", rest @ ..] if !machine.config.profile.manager_logs => logs(machine, base, rest),
        ["VirtualMedia", rest @ ..] if matches!(machine.config.profile.media, Media::System | Media::Patched) => media(machine, base, rest),
        ["BootOptions"] => {
            let ids = (1..=4).map(|n| format!("{base}/BootOptions/Boot000{n}")).collect();
            Some(collection("/Systems/1/BootOptions", "BootOption", "Boot Options", ids))
        }
        ["BootOptions", id] => boot_option(machine, id),
        ["Bios"] => {
            let state = machine.lock();
            let mut settings = json!({"@odata.type": "#Settings.v1_4_0.Settings", "SettingsObject": link("/Systems/1/Bios/Settings")});
            if machine.config.profile.apply_time != ApplyTime::None {
                settings["SupportedApplyTimes"] = json!(["OnReset"]);
            }
            Some(resource(
                "/Systems/1/Bios",
                "Bios.v1_2_3.Bios",
                "Bios",
                "BIOS",
                json!({
                    "Attributes": state.bios, "AttributeRegistry": "BiosAttributeRegistry.v1_0_0", "ResetBiosToDefaultsPending": state.reset_pending,
                    "@Redfish.Settings": settings,
                    "Actions": {
                        "#Bios.ResetBios": {"target": format!("{V1}/Systems/1/Bios/Actions/Bios.ResetBios")},
                        "#Bios.ChangePassword": {"target": format!("{V1}/Systems/1/Bios/Actions/Bios.ChangePassword")},
                    },
                }),
            ))
        }
        ["Bios", "Settings"] => {
            let state = machine.lock();
            let mut attributes = state.pending.clone();
            if machine.config.profile.pending_shows_all {
                let rest = state.bios.iter().map(|(k, v)| (k.clone(), v.clone()));
                attributes = rest.chain(state.pending.clone()).collect();
            }
            Some(resource(
                "/Systems/1/Bios/Settings",
                "Bios.v1_2_3.Bios",
                machine.config.profile.bios_settings,
                "BIOS Settings",
                json!({"Attributes": attributes}),
            ))
        }
        _ => None,
    }
}

fn computer_system(machine: &Machine) -> Value {
    let config = &machine.config;
    let profile = config.profile;
    let state = machine.lock();
    let mut boot = json!({
        "BootSourceOverrideEnabled": state.override_enabled, "BootSourceOverrideTarget": state.override_target, "BootSourceOverrideMode": "UEFI",
        "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd", "Usb", "UefiHttp", "BiosSetup", "UefiBootNext"],
        "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once", "Continuous"], "BootNext": state.boot_next, "BootOrder": state.boot_order, "BootOptions": link("/Systems/1/BootOptions"),
    });
    if !state.override_uri.is_empty() {
        boot["HttpBootUri"] = json!(state.override_uri);
    }
    let mut health = status();
    if state.broken {
        health["Health"] = json!("Critical");
    }
    let mut reset = json!({"target": format!("{V1}/Systems/1/Actions/ComputerSystem.Reset")});
    if profile.action_info {
        reset["@Redfish.ActionInfo"] = json!(format!("{V1}/Systems/1/ResetActionInfo"));
    } else {
        reset["ResetType@Redfish.AllowableValues"] = json!(profile.resets);
    }
    let mut body = resource(
        "/Systems/1",
        "ComputerSystem.v1_22_1.ComputerSystem",
        profile.system_id,
        "System",
        json!({
            "SystemType": "Physical", "Manufacturer": profile.manufacturer, "Model": "Simulated 1U", "SerialNumber": config.serial(), "SKU": config.serial(),
            "UUID": config.uuid, "HostName": format!("sim-{:04}", config.number), "BiosVersion": state.bmc.firmware.get("BIOS"),
            "PowerState": power_text(state.power), "LocationIndicatorActive": state.led, "Status": health, "Boot": boot,
            "MemorySummary": {"TotalSystemMemoryGiB": 128}, "ProcessorSummary": {"Count": 2, "Model": "Simulated 32-Core"},
            "Processors": link("/Systems/1/Processors"), "Memory": link("/Systems/1/Memory"), "Storage": link("/Systems/1/Storage"),
            "EthernetInterfaces": link("/Systems/1/EthernetInterfaces"), "Bios": link("/Systems/1/Bios"), "SecureBoot": link("/Systems/1/SecureBoot"),
            "Links": {"Chassis": [link("/Chassis/1")], "ManagedBy": [link("/Managers/BMC")]},
            "SerialConsole": {"MaxConcurrentSessions": 2, "SSH": {"ServiceEnabled": true, "Port": 22, "SharedWithManagerCLI": true}},
            "Actions": {"#ComputerSystem.Reset": reset},
        }),
    );
    if !profile.manager_logs {
        body["LogServices"] = link("/Systems/1/LogServices");
    }
    if matches!(profile.media, Media::System | Media::Patched) {
        body["VirtualMedia"] = link("/Systems/1/VirtualMedia");
    }
    body
}

fn drive(machine: &Machine, serial: &str) -> Option<Value> {
    let drive = machine.drives().into_iter().find(|d| d.serial == serial)?;
    let nvme = drive.model.contains("NVMe");
    let path = format!("/Systems/1/Storage/1/Drives/{serial}");
    let mut body = resource(
        &path,
        "Drive.v1_20_1.Drive",
        serial,
        &drive.model,
        json!({
            "SerialNumber": serial, "Manufacturer": "Ironyard", "Model": drive.model, "Revision": "1.0", "MediaType": "SSD",
            "Protocol": if nvme { "NVMe" } else { "SATA" }, "CapacityBytes": drive.capacity, "Status": status(),
        }),
    );
    if !drive.sanitization.is_empty() {
        body["Actions"] = json!({"#Drive.SecureErase": {
            "target": format!("{V1}{path}/Actions/Drive.SecureErase"),
            "SanitizationType@Redfish.AllowableValues": drive.sanitization,
        }});
    }
    Some(body)
}

fn boot_option(machine: &Machine, id: &str) -> Option<Value> {
    let mac = machine.config.mac(1).replace(':', "").to_ascii_uppercase();
    let (name, alias, path) = match id {
        "Boot0001" => ("NVMe Disk", "Hdd", "PciRoot(0x0)/Pci(0x1,0x0)/NVMe(0x1,00)".to_owned()),
        "Boot0002" => (
            "UEFI PXEv4 NIC 1",
            "Pxe",
            format!("PciRoot(0x0)/Pci(0x2,0x0)/MAC({mac},0x1)/IPv4(0.0.0.0)"),
        ),
        "Boot0003" => (
            "UEFI HTTPv4 NIC 1",
            "UefiHttp",
            format!("PciRoot(0x0)/Pci(0x2,0x0)/MAC({mac},0x1)/IPv4(0.0.0.0)/Uri()"),
        ),
        "Boot0004" => ("Virtual CD", "Cd", "PciRoot(0x0)/USB(0x0,0x0)/CDROM(0x0)".to_owned()),
        _ => return None,
    };
    Some(resource(
        &format!("/Systems/1/BootOptions/{id}"),
        "BootOption.v1_0_6.BootOption",
        id,
        name,
        json!({
            "BootOptionReference": id, "DisplayName": name, "Alias": alias, "UefiDevicePath": path, "BootOptionEnabled": true,
        }),
    ))
}
