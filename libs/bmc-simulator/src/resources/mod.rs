//! What a GET shows.

mod manager;
mod services;
mod system;

use serde_json::{Value, json};

use crate::{
    Machine,
    machine::Task,
    profile::{Media, Sensors},
};

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
        ["Systems", "1", rest @ ..] => system::get(machine, rest),
        ["Chassis"] => Some(collection("/Chassis", "Chassis", "Chassis", vec!["/Chassis/1".into()])),
        ["Chassis", "1", rest @ ..] => chassis(machine, rest),
        ["Managers"] => Some(collection("/Managers", "Manager", "Managers", vec!["/Managers/BMC".into()])),
        ["Managers", "BMC", rest @ ..] => manager::get(machine, rest),
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
            let state = machine.lock();
            let shown = state.tasks.iter().filter(|t| !t.vanished);
            let tasks = shown.map(|t| format!("/TaskService/Tasks/{}", t.id)).collect();
            Some(collection("/TaskService/Tasks", "Task", "Tasks", tasks))
        }
        ["TaskService", "Tasks", id] => {
            let id: u64 = id.parse().ok()?;
            machine.lock().tasks.iter().find(|t| t.id == id && !t.vanished).map(task)
        }
        ["UpdateService", rest @ ..] => services::update(machine, rest),
        ["AccountService", rest @ ..] => services::accounts(machine, rest),
        ["EventService", rest @ ..] => services::events(machine, rest),
        ["CertificateService", rest @ ..] => services::certificates(machine, rest),
        ["Registries", rest @ ..] => services::registries(rest),
        _ => None,
    }
}

fn root(machine: &Machine) -> Value {
    let profile = machine.config.profile;
    let mut body = resource(
        "/",
        "ServiceRoot.v1_16_0.ServiceRoot",
        "RootService",
        "Root Service",
        json!({
            "RedfishVersion": "1.18.0", "UUID": machine.config.uuid,
            "Systems": link("/Systems"), "Chassis": link("/Chassis"), "Managers": link("/Managers"), "Tasks": link("/TaskService"),
            "SessionService": link("/SessionService"), "UpdateService": link("/UpdateService"), "AccountService": link("/AccountService"),
            "EventService": link("/EventService"), "CertificateService": link("/CertificateService"), "Registries": link("/Registries"),
            "Links": {"Sessions": link("/SessionService/Sessions")},
            "ProtocolFeaturesSupported": {"ExpandQuery": {"ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false}, "FilterQuery": false, "SelectQuery": false},
        }),
    );
    if !profile.vendor.is_empty() {
        body["Vendor"] = json!(profile.vendor);
        body["Product"] = json!(profile.product);
    }
    if !profile.oem.is_empty() {
        body["Oem"] = json!({profile.oem: {}});
    }
    if !profile.certificates {
        body.as_object_mut().map(|b| b.remove("CertificateService"));
    }
    body
}

fn chassis(machine: &Machine, rest: &[&str]) -> Option<Value> {
    let base = "/Chassis/1";
    let sensors = machine.config.profile.sensors;
    let on = system::is_on(machine);
    let reading = |n: f64| if on { json!(n) } else { Value::Null };
    match (rest, sensors) {
        ([], _) => {
            let mut body = resource(
                base,
                "Chassis.v1_25_0.Chassis",
                "1",
                "Chassis",
                json!({
                    "ChassisType": "RackMount", "Manufacturer": machine.config.profile.manufacturer, "Model": "Simulated 1U", "SerialNumber": machine.config.serial(),
                    "Status": status(), "PowerState": system::power_text(machine.power()),
                    "Links": {"ComputerSystems": [link("/Systems/1")], "ManagedBy": [link("/Managers/BMC")]},
                    "Actions": {"#Chassis.Reset": {"target": format!("{V1}{base}/Actions/Chassis.Reset"), "ResetType@Redfish.AllowableValues": ["PowerCycle"]}},
                }),
            );
            match sensors {
                Sensors::Legacy => {
                    body["Power"] = link("/Chassis/1/Power");
                    body["Thermal"] = link("/Chassis/1/Thermal");
                }
                Sensors::New => body["Sensors"] = link("/Chassis/1/Sensors"),
            }
            Some(body)
        }
        (["Thermal"], Sensors::Legacy) => Some(resource(
            "/Chassis/1/Thermal",
            "Thermal.v1_7_3.Thermal",
            "Thermal",
            "Thermal",
            json!({
                "Temperatures": [{"@odata.id": format!("{V1}{base}/Thermal#/Temperatures/0"), "MemberId": "0", "Name": "Inlet", "ReadingCelsius": 23.5, "UpperThresholdCritical": 45, "Status": status()}],
                "Fans": [{"@odata.id": format!("{V1}{base}/Thermal#/Fans/0"), "MemberId": "0", "Name": "Fan 1", "Reading": reading(7200.0), "ReadingUnits": "RPM", "Status": status()}],
            }),
        )),
        (["Power"], Sensors::Legacy) => Some(resource(
            "/Chassis/1/Power",
            "Power.v1_7_3.Power",
            "Power",
            "Power",
            json!({
                "PowerControl": [{"@odata.id": format!("{V1}{base}/Power#/PowerControl/0"), "MemberId": "0", "Name": "System", "PowerConsumedWatts": if on { 312 } else { 14 }}],
                "Voltages": [{"@odata.id": format!("{V1}{base}/Power#/Voltages/0"), "MemberId": "0", "Name": "12V", "ReadingVolts": 12.1, "Status": status()}],
            }),
        )),
        (["Sensors"], Sensors::New) => {
            let ids = ["Inlet", "Fan1", "TotalPower", "P12V"].map(|id| format!("{base}/Sensors/{id}"));
            Some(collection("/Chassis/1/Sensors", "Sensor", "Sensors", ids.to_vec()))
        }
        (["Sensors", id], Sensors::New) => {
            let (kind, value, unit) = match *id {
                "Inlet" => ("Temperature", json!(23.5), "Cel"),
                "Fan1" => ("Rotational", reading(7200.0), "{rev}/min"),
                "TotalPower" => ("Power", json!(if on { 312 } else { 14 }), "W"),
                "P12V" => ("Voltage", json!(12.1), "V"),
                _ => return None,
            };
            Some(resource(
                &format!("{base}/Sensors/{id}"),
                "Sensor.v1_10_0.Sensor",
                id,
                id,
                json!({"ReadingType": kind, "Reading": value, "ReadingUnits": unit, "PhysicalContext": "Chassis", "Status": status()}),
            ))
        }
        _ => None,
    }
}

/// The logs of a system or of a manager; which of them has any is the family's.
fn logs(machine: &Machine, base: &str, rest: &[&str]) -> Option<Value> {
    let path = format!("{base}/LogServices");
    match rest {
        [] => Some(collection(&path, "LogService", "Logs", vec![format!("{path}/SEL")])),
        ["SEL"] => Some(resource(
            &format!("{path}/SEL"),
            "LogService.v1_7_0.LogService",
            "SEL",
            "System Event Log",
            json!({
                "MaxNumberOfRecords": 64, "OverWritePolicy": "WrapsWhenFull", "LogEntryType": "Multiple", "Entries": link(&format!("{path}/SEL/Entries")), "Status": status(),
                "Actions": {"#LogService.ClearLog": {"target": format!("{V1}{path}/SEL/Actions/LogService.ClearLog")}},
            }),
        )),
        ["SEL", "Entries"] => {
            let entries = machine.lock().bmc.entries.clone();
            let mut body = collection(&format!("{path}/SEL/Entries"), "LogEntry", "Entries", vec![]);
            body["Members"] = entries.iter().map(|e| entry(&path, e)).collect();
            body["Members@odata.count"] = json!(entries.len());
            Some(body)
        }
        ["SEL", "Entries", id] => {
            let entries = machine.lock().bmc.entries.clone();
            entries.iter().find(|e| e.id.to_string() == **id).map(|e| entry(&path, e))
        }
        _ => None,
    }
}

fn entry(path: &str, entry: &crate::management::Entry) -> Value {
    let id = entry.id.to_string();
    let at = crate::management::time_text(entry.at);
    resource(
        &format!("{path}/SEL/Entries/{id}"),
        "LogEntry.v1_17_0.LogEntry",
        &id,
        "Log Entry",
        json!({"EntryType": "Event", "Created": at, "Severity": entry.severity, "Message": entry.message, "MessageId": "ResourceEvent.1.3.ResourceChanged"}),
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

/// The virtual media of a system or of a manager.
fn media(machine: &Machine, base: &str, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => {
            let path = format!("{base}/VirtualMedia");
            Some(collection(&path, "VirtualMedia", "Virtual Media", vec![format!("{path}/CD1")]))
        }
        ["CD1"] => Some(virtual_cd(machine, base)),
        _ => None,
    }
}

fn virtual_cd(machine: &Machine, base: &str) -> Value {
    let image = machine.lock().image.clone();
    let path = &format!("{base}/VirtualMedia/CD1");
    let mut body = resource(
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
    );
    if machine.config.profile.media == Media::Patched {
        body.as_object_mut().map(|b| b.remove("Actions"));
    }
    body
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
