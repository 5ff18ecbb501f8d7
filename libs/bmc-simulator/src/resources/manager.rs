use serde_json::{Value, json};

use super::{V1, collection, link, logs, media, resource, status};
use crate::{
    Machine,
    management::time_text,
    profile::{Media, TaskForm},
};

pub(super) fn get(machine: &Machine, rest: &[&str]) -> Option<Value> {
    let base = "/Managers/BMC";
    let profile = machine.config.profile;
    let at_manager = matches!(profile.media, Media::Manager | Media::Wordy);
    match rest {
        [] => Some(manager(machine, at_manager)),
        ["VirtualMedia", rest @ ..] if at_manager => media(machine, base, rest),
        ["LogServices", rest @ ..] if profile.manager_logs => logs(machine, base, rest),
        ["NetworkProtocol"] => {
            let ntp = machine.lock().bmc.ntp.clone();
            let mut body = resource(
                "/Managers/BMC/NetworkProtocol",
                "ManagerNetworkProtocol.v1_10_0.ManagerNetworkProtocol",
                "NetworkProtocol",
                "Network Protocol",
                json!({
                    "HostName": format!("bmc-{:04}", machine.config.number), "FQDN": format!("bmc-{:04}.example.net", machine.config.number), "Status": status(),
                    "HTTPS": {"ProtocolEnabled": true, "Port": 443}, "SSH": {"ProtocolEnabled": true, "Port": 22},
                }),
            );
            if profile.certificates {
                body["HTTPS"]["Certificates"] = link("/Managers/BMC/NetworkProtocol/HTTPS/Certificates");
            }
            // HPE keeps them beside the clock.
            if profile.oem != "Hpe" {
                body["NTP"] = json!({"ProtocolEnabled": !ntp.is_empty(), "NTPServers": ntp});
            }
            Some(body)
        }
        ["DateTime"] if profile.oem == "Hpe" => Some(resource(
            "/Managers/BMC/DateTime",
            "HpeiLODateTime.v2_0_0.HpeiLODateTime",
            "DateTime",
            "Date and Time",
            json!({"StaticNTPServers": machine.lock().bmc.ntp}),
        )),
        ["NetworkProtocol", "HTTPS", "Certificates"] if profile.certificates => Some(collection(
            "/Managers/BMC/NetworkProtocol/HTTPS/Certificates",
            "Certificate",
            "Certificates",
            vec!["/Managers/BMC/NetworkProtocol/HTTPS/Certificates/1".to_owned()],
        )),
        ["NetworkProtocol", "HTTPS", "Certificates", "1"] if profile.certificates => {
            let pem = machine.lock().bmc.certificate.as_ref().map(|c| c.pem.clone());
            Some(resource(
                "/Managers/BMC/NetworkProtocol/HTTPS/Certificates/1",
                "Certificate.v1_8_1.Certificate",
                "1",
                "HTTPS Certificate",
                json!({"CertificateType": "PEM", "CertificateString": pem}),
            ))
        }
        ["Jobs", id] if profile.task_form == TaskForm::Job => {
            let id: u64 = id.strip_prefix("JID_")?.parse().ok()?;
            let state = machine.lock();
            let task = state.tasks.iter().find(|t| t.id == id && !t.vanished)?;
            let job = match task.state {
                "Exception" => "Failed",
                other => other,
            };
            Some(resource(
                &format!("{base}/Jobs/JID_{id}"),
                "Job.v1_2_3.Job",
                &format!("JID_{id}"),
                "Job",
                json!({"JobState": job, "PercentComplete": task.percent, "Messages": [{"MessageId": "Base.1.18.Success", "Message": task.message}]}),
            ))
        }
        _ => None,
    }
}

fn manager(machine: &Machine, at_manager: bool) -> Value {
    let profile = machine.config.profile;
    let (version, clock, last_reset) = {
        let state = machine.lock();
        (state.bmc.firmware.get("BMC").cloned(), state.bmc.clock, state.bmc.last_reset)
    };
    let mut body = resource(
        "/Managers/BMC",
        "Manager.v1_19_0.Manager",
        profile.manager_id,
        "Simulated BMC",
        json!({
            "ManagerType": "BMC", "FirmwareVersion": version, "Model": profile.manager_model, "Status": status(), "PowerState": "On",
            "DateTime": time_text(clock), "DateTimeLocalOffset": "+00:00", "LastResetTime": time_text(last_reset),
            "NetworkProtocol": link("/Managers/BMC/NetworkProtocol"),
            "Links": {"ManagerForServers": [link("/Systems/1")], "ManagerForChassis": [link("/Chassis/1")]},
            "Actions": {"#Manager.Reset": {
                "target": format!("{V1}/Managers/BMC/Actions/Manager.Reset"), "ResetType@Redfish.AllowableValues": ["GracefulRestart"],
            }},
        }),
    );
    if at_manager {
        body["VirtualMedia"] = link("/Managers/BMC/VirtualMedia");
    }
    if profile.manager_logs {
        body["LogServices"] = link("/Managers/BMC/LogServices");
    }
    if profile.oem == "Hpe" {
        body["Oem"] =
            json!({"Hpe": {"@odata.type": "#HpeiLO.v2_9_0.HpeiLO", "Links": {"DateTimeService": link("/Managers/BMC/DateTime")}}});
    }
    body
}
