use serde_json::{Value, json};

use super::{V1, collection, link, resource, status};
use crate::Machine;

pub(super) fn update(machine: &Machine, rest: &[&str]) -> Option<Value> {
    let profile = machine.config.profile;
    match rest {
        [] => {
            let mut body = resource(
                "/UpdateService",
                "UpdateService.v1_14_0.UpdateService",
                "UpdateService",
                "Update Service",
                json!({"ServiceEnabled": true, "Status": status(), "FirmwareInventory": link("/UpdateService/FirmwareInventory")}),
            );
            if profile.simple_update {
                body["Actions"] = json!({"#UpdateService.SimpleUpdate": {
                    "target": format!("{V1}/UpdateService/Actions/UpdateService.SimpleUpdate"),
                    "TransferProtocol@Redfish.AllowableValues": ["HTTP", "HTTPS"],
                }});
            }
            if profile.multipart {
                body["MultipartHttpPushUri"] = json!(format!("{V1}/UpdateService/upload"));
            }
            if profile.raw_push {
                body["HttpPushUri"] = json!(format!("{V1}/UpdateService/update"));
            }
            Some(body)
        }
        ["FirmwareInventory"] => {
            let state = machine.lock();
            let ids = state.bmc.firmware.keys().map(|id| format!("/UpdateService/FirmwareInventory/{id}"));
            Some(collection(
                "/UpdateService/FirmwareInventory",
                "SoftwareInventory",
                "Firmware",
                ids.collect(),
            ))
        }
        ["FirmwareInventory", id] => {
            let version = machine.lock().bmc.firmware.get(*id).cloned()?;
            Some(resource(
                &format!("/UpdateService/FirmwareInventory/{id}"),
                "SoftwareInventory.v1_10_2.SoftwareInventory",
                id,
                id,
                json!({"Version": version, "Updateable": *id != "NIC1", "Status": status()}),
            ))
        }
        _ => None,
    }
}

pub(super) fn accounts(machine: &Machine, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(resource(
            "/AccountService",
            "AccountService.v1_15_1.AccountService",
            "AccountService",
            "Account Service",
            json!({
                "ServiceEnabled": true, "Status": status(), "MinPasswordLength": 8, "MaxPasswordLength": 20, "AccountLockoutThreshold": 5, "AccountLockoutDuration": 30,
                "Accounts": link("/AccountService/Accounts"), "Roles": link("/AccountService/Roles"),
            }),
        )),
        ["Accounts"] => {
            let state = machine.lock();
            let ids = state.bmc.accounts.iter().map(|a| format!("/AccountService/Accounts/{}", a.id));
            Some(collection("/AccountService/Accounts", "ManagerAccount", "Accounts", ids.collect()))
        }
        ["Accounts", id] => {
            let state = machine.lock();
            let account = state.bmc.accounts.iter().find(|a| a.id.to_string() == **id)?;
            let role = if account.role == "None" { "NoAccess" } else { &account.role };
            Some(resource(
                &format!("/AccountService/Accounts/{id}"),
                "ManagerAccount.v1_12_1.ManagerAccount",
                id,
                "Account",
                json!({
                    "UserName": account.username, "Password": null, "RoleId": role, "Enabled": account.enabled, "Locked": false, "AccountTypes": ["Redfish"],
                    "PasswordChangeRequired": state.bmc.password_change_required,
                    "Links": {"Role": link(&format!("/AccountService/Roles/{role}"))},
                }),
            ))
        }
        ["Roles"] => {
            let ids = ["Administrator", "Operator", "ReadOnly", "NoAccess"].map(|id| format!("/AccountService/Roles/{id}"));
            Some(collection("/AccountService/Roles", "Role", "Roles", ids.to_vec()))
        }
        ["Roles", id] => {
            let privileges: &[&str] = match *id {
                "Administrator" => &[
                    "Login",
                    "ConfigureManager",
                    "ConfigureUsers",
                    "ConfigureComponents",
                    "ConfigureSelf",
                ],
                "Operator" => &["Login", "ConfigureComponents", "ConfigureSelf"],
                "ReadOnly" => &["Login", "ConfigureSelf"],
                "NoAccess" => &[],
                _ => return None,
            };
            Some(resource(
                &format!("/AccountService/Roles/{id}"),
                "Role.v1_3_2.Role",
                id,
                "Role",
                json!({"RoleId": id, "IsPredefined": true, "AssignedPrivileges": privileges}),
            ))
        }
        _ => None,
    }
}

pub(super) fn events(machine: &Machine, rest: &[&str]) -> Option<Value> {
    let profile = machine.config.profile;
    match rest {
        [] => {
            let mut body = resource(
                "/EventService",
                "EventService.v1_10_2.EventService",
                "EventService",
                "Event Service",
                json!({
                    "ServiceEnabled": true, "Status": status(), "DeliveryRetryAttempts": 3, "DeliveryRetryIntervalSeconds": 30,
                    "Subscriptions": link("/EventService/Subscriptions"),
                }),
            );
            if profile.event_types {
                body["EventTypesForSubscription"] = json!(["StatusChange", "Alert"]);
            } else {
                body["EventFormatTypes"] = json!(["Event"]);
            }
            if profile.sse {
                body["ServerSentEventUri"] = json!(format!("{V1}/EventService/SSE"));
            }
            Some(body)
        }
        ["Subscriptions"] => {
            let state = machine.lock();
            let ids = state
                .bmc
                .subscriptions
                .iter()
                .map(|s| format!("/EventService/Subscriptions/{}", s.id));
            Some(collection(
                "/EventService/Subscriptions",
                "EventDestination",
                "Subscriptions",
                ids.collect(),
            ))
        }
        ["Subscriptions", id] => {
            let state = machine.lock();
            let one = state.bmc.subscriptions.iter().find(|s| s.id.to_string() == **id)?;
            Some(resource(
                &format!("/EventService/Subscriptions/{id}"),
                "EventDestination.v1_14_1.EventDestination",
                id,
                "Subscription",
                json!({"Destination": one.destination, "Context": one.context, "Protocol": "Redfish", "SubscriptionType": "RedfishEvent", "EventFormatType": "Event"}),
            ))
        }
        _ => None,
    }
}

pub(super) fn certificates(machine: &Machine, rest: &[&str]) -> Option<Value> {
    if !machine.config.profile.certificates {
        return None;
    }
    let base = "/CertificateService";
    match rest {
        [] => Some(resource(
            base,
            "CertificateService.v1_0_5.CertificateService",
            "CertificateService",
            "Certificate Service",
            json!({
                "CertificateLocations": link("/CertificateService/CertificateLocations"),
                "Actions": {
                    "#CertificateService.GenerateCSR": {"target": format!("{V1}{base}/Actions/CertificateService.GenerateCSR")},
                    "#CertificateService.ReplaceCertificate": {"target": format!("{V1}{base}/Actions/CertificateService.ReplaceCertificate")},
                },
            }),
        )),
        ["CertificateLocations"] => Some(resource(
            "/CertificateService/CertificateLocations",
            "CertificateLocations.v1_0_4.CertificateLocations",
            "CertificateLocations",
            "Certificate Locations",
            json!({"Links": {"Certificates": [link("/Managers/BMC/NetworkProtocol/HTTPS/Certificates/1")], "Certificates@odata.count": 1}}),
        )),
        _ => None,
    }
}

pub(super) fn registries(rest: &[&str]) -> Option<Value> {
    let file = |id: &str, registry: &str, uri: &str| {
        resource(
            &format!("/Registries/{id}"),
            "MessageRegistryFile.v1_1_4.MessageRegistryFile",
            id,
            id,
            json!({"Registry": registry, "Languages": ["en"], "Location": [{"Language": "en", "Uri": uri}]}),
        )
    };
    let store = format!("{V1}/Registries/Store/BiosAttributeRegistry.v1_0_0.json");
    match rest {
        [] => Some(collection(
            "/Registries",
            "MessageRegistryFile",
            "Registries",
            vec!["/Registries/BiosAttributeRegistry.v1_0_0".to_owned()],
        )),
        ["BiosAttributeRegistry.v1_0_0"] => Some(file("BiosAttributeRegistry.v1_0_0", "BiosAttributeRegistry.v1_0_0", &store)),
        ["Store", "BiosAttributeRegistry.v1_0_0.json"] => Some(bios_registry()),
        _ => None,
    }
}

fn bios_registry() -> Value {
    let choice = |name: &str, values: &[&str]| {
        let values: Vec<Value> = values.iter().map(|v| json!({"ValueName": v, "ValueDisplayName": v})).collect();
        json!({"AttributeName": name, "Type": "Enumeration", "DisplayName": name, "ReadOnly": false, "ResetRequired": true, "Value": values})
    };
    json!({
        "@odata.type": "#AttributeRegistry.v1_3_8.AttributeRegistry", "Id": "BiosAttributeRegistry.v1_0_0", "Name": "BIOS Attribute Registry",
        "Language": "en", "OwningEntity": "Ironyard", "RegistryVersion": "1.0.0",
        "RegistryEntries": {"Attributes": [
            choice("BootMode", &["UEFI", "Legacy"]), choice("HyperThreading", &["Enabled", "Disabled"]),
            choice("Virtualization", &["Enabled", "Disabled"]), choice("SriovEnable", &["Enabled", "Disabled"]),
            {"AttributeName": "NumLock", "Type": "Boolean", "DisplayName": "Num Lock", "ReadOnly": false, "ResetRequired": true},
            {"AttributeName": "BootTimeout", "Type": "Integer", "DisplayName": "Boot Timeout", "ReadOnly": false, "LowerBound": 0, "UpperBound": 300, "ScalarIncrement": 1},
            {"AttributeName": "SetupPassword", "Type": "Password", "DisplayName": "Setup Password", "MinLength": 0, "MaxLength": 32},
        ]},
    })
}
