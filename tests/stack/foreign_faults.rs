//! Every change against every way in which its outcome can be unknown, on the BMCs of `tests/foreign`: a change of which nobody knows what
//! became of it is never asked for again, and none reaches another machine than the one that is meant. What the BMCs logged is the evidence.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ironyard::client::Clients;
use ironyard_proto::bmc::{self, SystemName};
use serde_json::{Value, json};

use crate::{
    foreign_bmc::Foreign,
    gateway::{Alone, finished, ready, reason_of, system},
    verbs::{Outcome, VERBS},
};

const FAMILIES: [&str; 8] = ["standard", "dell", "hpe", "supermicro", "lenovo", "openbmc", "ami", "nvidia-hgx"];
/// BMCs of each family, side by side.
const OF_EACH: usize = 3;
/// Longest call.
const LONGEST: Duration = Duration::from_secs(100);

/// What happens to every change, and whether nobody knows what became of it.
const FAULTS: &[(&str, &str, bool)] = &[
    ("the answer is lost", r#"{"lose_answer": true}"#, true),
    ("the request is lost", r#"{"lose_request": true}"#, true),
    ("no answer", r#"{"hang": true}"#, true),
    ("an answer of nonsense", r#"{"garbage": true}"#, true),
    ("a truncated answer", r#"{"truncate": 20}"#, true),
    ("accepted, and nothing comes of it", r#"{"ignore": true}"#, false),
    ("accepted, and done later", r#"{"late": 1.5}"#, false),
    ("a task that vanishes", r#"{"task": {"seconds": 1, "vanishes": true}}"#, false),
    ("a task that fails", r#"{"task": {"seconds": 0.5, "fails": true}}"#, false),
    ("busy", r#"{"status": 503, "retry_after": 1}"#, false),
    ("a conflict", r#"{"status": 409}"#, false),
    ("an internal error", r#"{"status": 500}"#, false),
];

/// Reasons that a call may end with, whatever its BMC does.
const TYPED: &[&str] = &[
    "OK",
    "BMC_AMBIGUOUS",
    "BMC_BUSY",
    "BMC_FORBIDDEN",
    "BMC_INVALID_VALUE",
    "BMC_LICENSE_REQUIRED",
    "BMC_PROTOCOL",
    "BMC_REFUSED",
    "BMC_TIMEOUT",
    "BMC_UNREACHABLE",
    "BMC_UNSUPPORTED",
    "DRIVE_NOT_FOUND",
    "INVALID_FIELD",
    "PERMISSION_DENIED",
    "TASK_FAILED",
];

/// Changes that can be read back.
const SHOWN: &[&str] = &[
    "SetBootOverride Pxe",
    "SetBootOrder",
    "SetBios",
    "SetSecureBoot",
    "SetIndicatorLed",
    "InsertMedia",
    "SetNtp",
    "CreateAccount",
    "DeleteAccount",
    "SetPower On",
    "SetPower ForceOff",
];

/// The verbs that change something, with what they need of this BMC.
fn changes() -> Vec<&'static str> {
    let reads = ["Get", "List", "Read", "Sweep"];
    let all = VERBS.iter().map(|(verb, _)| *verb);
    let mut changes: Vec<_> = all.filter(|verb| !reads.iter().any(|read| verb.starts_with(read))).collect();
    // A password of which nobody knows whether it was set is found out by logging in, minutes apart so that no account is locked: it comes last.
    changes.sort_by_key(|verb| *verb == "RotateCredential");
    changes
}

fn failure(status: &tonic::Status) -> (String, String) {
    (reason_of(status), status.message().to_owned())
}

/// Asks for a change. Where its subject differs from BMC to BMC, one that this one has.
async fn ask(clients: &Clients, verb: &str, name: &str) -> Outcome {
    match verb {
        "SetBios" => {
            let request = bmc::GetBiosRequest { system: system(name) };
            let bios = clients
                .systems
                .clone()
                .get_bios(request)
                .await
                .map_err(|s| failure(&s))?
                .into_inner();
            let other = |value: &str| match value {
                "Enabled" => Some("Disabled"),
                "Disabled" => Some("Enabled"),
                _ => None,
            };
            let mut attributes = bios.attributes.into_iter();
            let attribute = attributes.find_map(|(name, value)| Some((name, other(&value)?.to_owned())));
            let request = bmc::SetBiosRequest {
                system: system(name),
                attributes: attribute.into_iter().collect(),
            };
            clients.systems.clone().set_bios(request).await.map(drop).map_err(|s| failure(&s))
        }
        "ClearLog" => {
            let request = bmc::ListLogsRequest { system: system(name) };
            let logs = clients.telemetry.clone().list_logs(request).await.map_err(|s| failure(&s))?;
            let log = logs.into_inner().logs.first().map(|log| log.id.clone()).unwrap_or_default();
            let request = bmc::ClearLogRequest { system: system(name), log };
            clients
                .telemetry
                .clone()
                .clear_log(request)
                .await
                .map(drop)
                .map_err(|s| failure(&s))
        }
        "UpdateFirmware" => {
            let request = bmc::UpdateFirmwareRequest {
                bmc: name.to_owned(),
                image_uri: "http://127.0.0.1:9/image.bin".to_owned(),
                ..Default::default()
            };
            let begun = clients.managers.clone().update_firmware(request).await.map_err(|s| failure(&s))?;
            finished(clients, &begun.into_inner()).await.map(drop)
        }
        _ => {
            let (_, call) = VERBS.iter().find(|(known, _)| *known == verb).unwrap();
            call(clients, name).await
        }
    }
}

/// A BMC of a family with a drive of the serial number that the verbs look for, known to the gateway.
async fn enrolled(clients: &Clients, family: &str, n: usize) -> Option<(String, Foreign)> {
    let quick = [
        "--set",
        r#"{"power_seconds": 0.2, "shutdown_seconds": 0.2, "post_seconds": 0.2, "task_seconds": 0.5, "bmc_reset_seconds": 1}"#,
    ];
    let foreign = Foreign::start(family, &quick)?;
    let name = format!("{family}-{n}");
    let machine = foreign.machine().await;
    let mut systems = serde_json::Map::new();
    for (id, state) in machine["systems"].as_object().unwrap() {
        let Some((unit, storage)) = state["storage"].as_object().and_then(|all| all.iter().next()) else {
            continue;
        };
        let Some(drive) = storage["drives"].as_object().and_then(|all| all.keys().next()) else {
            continue;
        };
        let serial = json!({"serial": format!("NV{n:06}A")});
        systems.insert(id.clone(), json!({"storage": {unit: {"drives": {drive: serial}}}}));
    }
    foreign.control("POST", "/machine", &json!({"systems": systems})).await;
    foreign.register(clients, &name).await;
    ready(clients, &name).await;
    Some((name, foreign))
}

/// The changes among some records, as they were asked for; logins and subscriptions aside.
fn changes_of(records: &[Value]) -> Vec<&Value> {
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let about = |record: &&Value| {
        let (method, path) = (text(record, "method"), text(record, "path"));
        !["GET", "HEAD"].contains(&method.as_str()) && !path.contains("/SessionService/") && !path.contains("/EventService/")
    };
    records.iter().filter(about).collect()
}

/// What was asked for again although nobody knew what had become of it the first time.
fn repeated(records: &[Value]) -> Vec<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    for record in changes_of(records) {
        let body = &record["body"];
        // A refusal is known by its status, whatever else stands in the answer: it may be asked in another form.
        if record["answer_lost"] != true && record["status"].as_u64().is_some_and(|status| status >= 400) {
            continue;
        }
        // They name a state, which is looked at in between.
        if ["On", "ForceOff", "GracefulShutdown"]
            .iter()
            .any(|state| body["ResetType"] == *state)
        {
            continue;
        }
        let what = format!("{} {} {body}", record["method"].as_str().unwrap(), record["path"].as_str().unwrap());
        *seen.entry(what).or_default() += 1;
    }
    seen.into_iter()
        .filter(|(_, times)| *times > 1)
        .map(|(what, times)| format!("{times} × {what}"))
        .collect()
}

/// What was seen over all cells.
#[derive(Default)]
struct Seen {
    told: BTreeMap<&'static str, BTreeMap<String, u32>>,
    wrong: Vec<String>,
    cells: usize,
    /// Cells in which a change reached the BMC.
    asked: usize,
}

async fn cell(
    clients: &Clients,
    name: &str,
    foreign: &Foreign,
    verb: &'static str,
    fault: &(&'static str, &str, bool),
    seen: &Mutex<Seen>,
) {
    let (what, how, unknown) = *fault;
    let how: Value = serde_json::from_str(how).unwrap();
    let rule =
        json!({"match": {"method": ["POST", "PATCH", "PUT", "DELETE"], "path": "^/redfish/v1/(?!SessionService|EventService)"}, "do": how});
    let before = foreign.log().await.len();
    foreign.behave(&json!([rule])).await;
    let outcome = tokio::time::timeout(LONGEST, ask(clients, verb, name)).await;
    let records = foreign.log().await;
    foreign.behave(&json!([])).await;
    let records = &records[before..];
    let (reason, message) = match &outcome {
        Ok(Ok(())) => ("OK", String::new()),
        Ok(Err((reason, message))) => (reason.as_str(), message.clone()),
        Err(_) => ("no end", String::new()),
    };
    let twice = if unknown && verb != "RotateCredential" {
        repeated(records)
    } else {
        vec![]
    };
    let mut seen = seen.lock().unwrap();
    seen.cells += 1;
    seen.asked += usize::from(!changes_of(records).is_empty());
    *seen.told.entry(what).or_default().entry(reason.to_owned()).or_default() += 1;
    // What a BMC accepts and does not do is no success where it shows.
    // (Where no pending BIOS values are shown while there are none, the BMC has to be believed.)
    let shown = SHOWN.contains(&verb) && (verb != "SetBios" || ["lenovo", "hpe"].iter().any(|family| name.starts_with(family)));
    let believed = what == "accepted, and nothing comes of it" && reason == "OK" && shown && !changes_of(records).is_empty();
    // What it does a moment later is done.
    let late = what == "accepted, and done later" && reason == "BMC_REFUSED" && message.contains("still shows");
    let typed = !believed && !late && TYPED.contains(&reason) || (verb == "RotateCredential" && reason == "no end");
    if !typed || !twice.is_empty() || message.len() > 4096 {
        seen.wrong.push(format!(
            "{name}: {verb}, {what}: {reason} ({message}), {} requests, {twice:?}",
            records.len()
        ));
    }
}

/// The same verbs while another machine stands there: nothing is written.
async fn another_machine(clients: &Clients, name: &str, foreign: &Foreign, seen: &Mutex<Seen>) {
    let meant = SystemName {
        bmc: name.to_owned(),
        expected: Some(bmc::MachineIdentity {
            system_uuid: "99999999-1111-4222-8333-444444444444".to_owned(),
            manufacturer: "Another".to_owned(),
            serial_number: "ANOTHER-1".to_owned(),
        }),
        ..Default::default()
    };
    let before = foreign.log().await.len();
    let system = || Some(meant.clone());
    let mut outcomes = vec![];
    let mut told = |what: &str, outcome: Result<(), tonic::Status>| outcomes.push((what.to_owned(), outcome.map_err(|s| failure(&s))));
    let mut long = vec![];
    let mut systems = clients.systems.clone();
    for action in [
        bmc::PowerAction::On,
        bmc::PowerAction::ForceOff,
        bmc::PowerAction::Reset,
        bmc::PowerAction::Nmi,
        bmc::PowerAction::AcCycle,
    ] {
        let request = bmc::SetPowerRequest {
            system: system(),
            action: action.into(),
            ..Default::default()
        };
        long.push(systems.set_power(request).await.unwrap().into_inner());
    }
    let request = bmc::EraseDriveRequest {
        system: system(),
        drive_serial_number: format!("NV{:06}A", name.rsplit('-').next().unwrap().parse::<u32>().unwrap()),
        ..Default::default()
    };
    long.push(systems.erase_drive(request).await.unwrap().into_inner());
    let request = bmc::SetBootOverrideRequest {
        system: system(),
        target: "Pxe".into(),
        ..Default::default()
    };
    told("SetBootOverride", systems.set_boot_override(request).await.map(drop));
    let request = bmc::InsertMediaRequest {
        system: system(),
        image: "http://192.0.2.1/x.iso".into(),
    };
    told("InsertMedia", systems.insert_media(request).await.map(drop));
    told(
        "EjectMedia",
        systems.eject_media(bmc::EjectMediaRequest { system: system() }).await.map(drop),
    );
    told(
        "ResetBios",
        systems.reset_bios(bmc::ResetBiosRequest { system: system() }).await.map(drop),
    );
    let request = bmc::SetSecureBootRequest {
        system: system(),
        enabled: true,
    };
    told("SetSecureBoot", systems.set_secure_boot(request).await.map(drop));
    let request = bmc::SetIndicatorLedRequest {
        system: system(),
        on: true,
    };
    told("SetIndicatorLed", systems.set_indicator_led(request).await.map(drop));
    for operation in long {
        let outcome = finished(clients, &operation).await;
        outcomes.push((operation.verb.clone(), outcome.map(drop)));
    }
    let records = foreign.log().await;
    let written: Vec<String> = changes_of(&records[before..])
        .iter()
        .map(|r| format!("{} {}", r["method"], r["path"]))
        .collect();
    let mut seen = seen.lock().unwrap();
    for (verb, outcome) in outcomes {
        seen.cells += 1;
        if !matches!(&outcome, Err((reason, _)) if reason == "WRONG_MACHINE") {
            seen.wrong.push(format!("{name}: {verb}, another machine: {outcome:?}"));
        }
    }
    if !written.is_empty() {
        seen.wrong.push(format!("{name}, another machine: {written:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_repeated_or_reaches_another_machine_on_the_foreign_bmc() {
    let alone = Alone::start(|settings| settings.requests_per_second = 0).await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut work = vec![];
    for (f, family) in FAMILIES.iter().enumerate() {
        for n in 0..OF_EACH {
            // What leaves an outcome unknown meets each family; the rest goes round.
            let mut cells = vec![];
            for (v, verb) in changes().into_iter().enumerate() {
                for (t, fault) in FAULTS.iter().enumerate() {
                    let shown = SHOWN.contains(&verb) && fault.0 == "accepted, and nothing comes of it";
                    let meets = if shown {
                        true
                    } else if fault.2 {
                        t < 2 || (v + t + f) % 4 == 0
                    } else {
                        (v + t + f) % FAMILIES.len() == 0
                    };
                    // What is refused because the machine is busy is asked for two minutes.
                    let long = verb.starts_with("SetPower") && fault.0 == "a conflict";
                    if meets && !long && (v + t) % OF_EACH == n {
                        cells.push((verb, fault));
                    }
                }
            }
            let (clients, seen, family) = (alone.clients.clone(), seen.clone(), *family);
            work.push(tokio::spawn(async move {
                let (name, foreign) = enrolled(&clients, family, f * OF_EACH + n).await?;
                if n == 0 {
                    another_machine(&clients, &name, &foreign, &seen).await;
                }
                for (verb, fault) in cells {
                    cell(&clients, &name, &foreign, verb, fault, &seen).await;
                    ready(&clients, &name).await;
                }
                Some(())
            }));
        }
    }
    for one in work {
        if one.await.unwrap().is_none() {
            return;
        }
    }
    let seen = seen.lock().unwrap();
    println!("{} cells, in {} of which a change reached the BMC", seen.cells, seen.asked);
    for (fault, reasons) in &seen.told {
        println!("  {fault}: {reasons:?}");
    }
    assert!(
        seen.wrong.is_empty(),
        "{} cells are wrong:\n{}",
        seen.wrong.len(),
        seen.wrong.join("\n")
    );
    assert!(
        seen.asked * 2 > seen.cells,
        "{} of {} cells changed anything",
        seen.asked,
        seen.cells
    );
}
