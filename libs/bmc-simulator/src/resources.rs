//! What a GET shows.

use ironyard_types::hardware::PowerState;
use serde_json::{Value, json};

use crate::{Machine, machine::Task};

const V1: &str = "/redfish/v1";

fn link(path: &str) -> Value {
    json!({"@odata.id": format!("{V1}{path}")})
}

fn collection(path: &str, kind: &str, name: &str, members: Vec<String>) -> Value {
    let members: Vec<Value> = members.iter().map(|m| link(m)).collect();
    json!({
        "@odata.id": format!("{V1}{path}"), "@odata.type": format!("#{kind}Collection.{kind}Collection"), "Name": name,
        "Members@odata.count": members.len(), "Members": members,
    })
}

fn resource(path: &str, kind: &str, id: &str, name: &str, rest: Value) -> Value {
    let mut body = json!({"@odata.id": format!("{V1}{path}"), "@odata.type": format!("#{kind}"), "Id": id, "Name": name});
    if let (Value::Object(body), Value::Object(rest)) = (&mut body, rest) {
        body.extend(rest);
    }
    body
}

fn status() -> Value {
    json!({"State": "Enabled", "Health": "OK"})
}

/// The body at a path (without a trailing slash).
pub(crate) fn get(machine: &Machine, path: &str) -> Option<Value> {
    if path == "/redfish" {
        return Some(json!({"v1": "/redfish/v1/"}));
    }
    let parts: Vec<&str> = path.strip_prefix(V1)?.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        [] => Some(root(machine)),
        ["odata"] => Some(
            json!({"@odata.context": "/redfish/v1/$metadata", "value": [{"name": "Service", "kind": "Singleton", "url": "/redfish/v1/"}]}),
        ),
        ["SessionService"] => Some(resource(
            "/SessionService",
            "SessionService.v1_1_9.SessionService",
            "SessionService",
            "Session Service",
            json!({
                "ServiceEnabled": true, "SessionTimeout": 1800, "Status": status(), "Sessions": link("/SessionService/Sessions"),
            }),
        )),
        ["SessionService", "Sessions"] => {
            let ids: Vec<String> = machine
                .lock()
                .sessions
                .values()
                .map(|id| format!("/SessionService/Sessions/{id}"))
                .collect();
            Some(collection("/SessionService/Sessions", "Session", "Sessions", ids))
        }
        ["SessionService", "Sessions", id] => {
            let id: u64 = id.parse().ok()?;
            let known = machine.lock().sessions.values().any(|session| *session == id);
            known.then(|| session(machine, id))
        }
        ["Systems"] => Some(collection("/Systems", "ComputerSystem", "Systems", vec!["/Systems/1".into()])),
        ["Systems", "1", rest @ ..] => system(machine, rest),
        ["Chassis"] => Some(collection("/Chassis", "Chassis", "Chassis", vec!["/Chassis/1".into()])),
        ["Chassis", "1"] => Some(resource(
            "/Chassis/1",
            "Chassis.v1_25_0.Chassis",
            "1",
            "Chassis",
            json!({
                "ChassisType": "RackMount", "Manufacturer": "Ironyard", "Model": "Simulated 1U", "SerialNumber": machine.config.serial(), "Status": status(),
                "PowerState": power_text(machine.power()),
                "Links": {"ComputerSystems": [link("/Systems/1")], "ManagedBy": [link("/Managers/BMC")]},
            }),
        )),
        ["Managers"] => Some(collection("/Managers", "Manager", "Managers", vec!["/Managers/BMC".into()])),
        ["Managers", "BMC"] => Some(resource(
            "/Managers/BMC",
            "Manager.v1_19_0.Manager",
            "BMC",
            "Simulated BMC",
            json!({
                "ManagerType": "BMC", "FirmwareVersion": "0.1.0", "Model": "Simulated BMC", "Status": status(), "PowerState": "On",
                "VirtualMedia": link("/Managers/BMC/VirtualMedia"), "Links": {"ManagerForServers": [link("/Systems/1")], "ManagerForChassis": [link("/Chassis/1")]},
            }),
        )),
        ["Managers", "BMC", "VirtualMedia"] => Some(collection(
            "/Managers/BMC/VirtualMedia",
            "VirtualMedia",
            "Virtual Media",
            vec!["/Managers/BMC/VirtualMedia/CD1".into()],
        )),
        ["Managers", "BMC", "VirtualMedia", "CD1"] => Some(virtual_cd(machine)),
        ["TaskService"] => Some(resource(
            "/TaskService",
            "TaskService.v1_2_1.TaskService",
            "TaskService",
            "Task Service",
            json!({
                "ServiceEnabled": true, "Status": status(), "Tasks": link("/TaskService/Tasks"),
            }),
        )),
        ["TaskService", "Tasks"] => {
            let tasks = machine
                .lock()
                .tasks
                .iter()
                .map(|t| format!("/TaskService/Tasks/{}", t.id))
                .collect();
            Some(collection("/TaskService/Tasks", "Task", "Tasks", tasks))
        }
        ["TaskService", "Tasks", id] => {
            let id: u64 = id.parse().ok()?;
            machine.lock().tasks.iter().find(|t| t.id == id).map(task)
        }
        ["UpdateService"] => Some(resource(
            "/UpdateService",
            "UpdateService.v1_14_0.UpdateService",
            "UpdateService",
            "Update Service",
            json!({
                "ServiceEnabled": false, "Status": {"State": "Disabled", "Health": "OK"},
                "Actions": {"#UpdateService.SimpleUpdate": {"target": format!("{V1}/UpdateService/Actions/UpdateService.SimpleUpdate")}},
            }),
        )),
        _ => None,
    }
}

fn root(machine: &Machine) -> Value {
    resource(
        "/",
        "ServiceRoot.v1_16_0.ServiceRoot",
        "RootService",
        "Root Service",
        json!({
            "RedfishVersion": "1.18.0", "UUID": machine.config.uuid, "Vendor": "Ironyard", "Product": "Simulated BMC",
            "Systems": link("/Systems"), "Chassis": link("/Chassis"), "Managers": link("/Managers"), "Tasks": link("/TaskService"),
            "SessionService": link("/SessionService"), "UpdateService": link("/UpdateService"),
            "Links": {"Sessions": link("/SessionService/Sessions")},
            "ProtocolFeaturesSupported": {"ExpandQuery": {"ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false}, "FilterQuery": false, "SelectQuery": false},
        }),
    )
}

pub(crate) fn session(machine: &Machine, id: u64) -> Value {
    let path = format!("/SessionService/Sessions/{id}");
    resource(
        &path,
        "Session.v1_7_2.Session",
        &id.to_string(),
        "Session",
        json!({"UserName": machine.config.username}),
    )
}

fn power_text(power: PowerState) -> &'static str {
    match power {
        PowerState::On => "On",
        PowerState::Off => "Off",
        PowerState::PoweringOn => "PoweringOn",
        PowerState::PoweringOff => "PoweringOff",
    }
}

fn system(machine: &Machine, rest: &[&str]) -> Option<Value> {
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
                    "Drives@odata.count": drives.len(), "Drives": drives, "Status": status(),
                }),
            ))
        }
        ["Storage", "1", "Drives", serial] => drive(machine, serial),
        ["BootOptions"] => {
            let ids = (1..=4).map(|n| format!("{base}/BootOptions/Boot000{n}")).collect();
            Some(collection("/Systems/1/BootOptions", "BootOption", "Boot Options", ids))
        }
        ["BootOptions", id] => boot_option(machine, id),
        ["Bios"] => {
            let state = machine.lock();
            Some(resource(
                "/Systems/1/Bios",
                "Bios.v1_2_3.Bios",
                "Bios",
                "BIOS",
                json!({
                    "Attributes": state.bios, "ResetBiosToDefaultsPending": state.reset_pending,
                    "@Redfish.Settings": {
                        "@odata.type": "#Settings.v1_4_0.Settings", "SettingsObject": link("/Systems/1/Bios/Settings"), "SupportedApplyTimes": ["OnReset"],
                    },
                    "Actions": {"#Bios.ResetBios": {"target": format!("{V1}/Systems/1/Bios/Actions/Bios.ResetBios")}},
                }),
            ))
        }
        ["Bios", "Settings"] => {
            let state = machine.lock();
            Some(resource(
                "/Systems/1/Bios/Settings",
                "Bios.v1_2_3.Bios",
                "Settings",
                "BIOS Settings",
                json!({"Attributes": state.pending}),
            ))
        }
        _ => None,
    }
}

fn computer_system(machine: &Machine) -> Value {
    let config = &machine.config;
    let state = machine.lock();
    let mut boot = json!({
        "BootSourceOverrideEnabled": state.override_enabled, "BootSourceOverrideTarget": state.override_target, "BootSourceOverrideMode": "UEFI",
        "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd", "Usb", "UefiHttp", "BiosSetup"],
        "BootOrder": state.boot_order, "BootOptions": link("/Systems/1/BootOptions"),
    });
    if !state.override_uri.is_empty() {
        boot["HttpBootUri"] = json!(state.override_uri);
    }
    resource(
        "/Systems/1",
        "ComputerSystem.v1_22_1.ComputerSystem",
        "1",
        "System",
        json!({
            "SystemType": "Physical", "Manufacturer": "Ironyard", "Model": "Simulated 1U", "SerialNumber": config.serial(), "SKU": "SIM-1U",
            "UUID": config.uuid, "HostName": format!("sim-{:04}", config.number), "BiosVersion": config.bios_version,
            "PowerState": power_text(state.power), "LocationIndicatorActive": state.led, "Status": status(), "Boot": boot,
            "MemorySummary": {"TotalSystemMemoryGiB": 128}, "ProcessorSummary": {"Count": 2, "Model": "Simulated 32-Core"},
            "Processors": link("/Systems/1/Processors"), "Memory": link("/Systems/1/Memory"), "Storage": link("/Systems/1/Storage"),
            "EthernetInterfaces": link("/Systems/1/EthernetInterfaces"), "Bios": link("/Systems/1/Bios"),
            "Links": {"Chassis": [link("/Chassis/1")], "ManagedBy": [link("/Managers/BMC")]},
            "Actions": {"#ComputerSystem.Reset": {
                "target": format!("{V1}/Systems/1/Actions/ComputerSystem.Reset"),
                "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown"],
            }},
        }),
    )
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

fn virtual_cd(machine: &Machine) -> Value {
    let image = machine.lock().image.clone();
    let path = "/Managers/BMC/VirtualMedia/CD1";
    resource(
        path,
        "VirtualMedia.v1_6_4.VirtualMedia",
        "CD1",
        "Virtual CD",
        json!({
            "MediaTypes": ["CD", "DVD"], "Inserted": image.is_some(), "WriteProtected": true, "ConnectedVia": if image.is_some() { "URI" } else { "NotConnected" },
            "Image": image,
            "Actions": {
                "#VirtualMedia.InsertMedia": {"target": format!("{V1}{path}/Actions/VirtualMedia.InsertMedia")},
                "#VirtualMedia.EjectMedia": {"target": format!("{V1}{path}/Actions/VirtualMedia.EjectMedia")},
            },
        }),
    )
}

fn task(task: &Task) -> Value {
    let status = if task.state == "Exception" { "Critical" } else { "OK" };
    let mut body = resource(
        &format!("/TaskService/Tasks/{}", task.id),
        "Task.v1_7_3.Task",
        &task.id.to_string(),
        "Task",
        json!({
            "TaskState": task.state, "TaskStatus": status, "PercentComplete": task.percent,
            "Payload": {"TargetUri": task.target, "HttpOperation": "POST"},
        }),
    );
    if !task.message.is_empty() {
        body["Messages"] = json!([{"MessageId": "Base.1.18.Success", "Message": task.message}]);
    }
    body
}
