//! Against a BMC that shares nothing with our client and simulator: `tests/foreign`, written from the standard and from dumps of real ones.
//! What it logged is the evidence.

use std::time::Duration;

use ironyard::{
    client::Clients,
    stack::{Config, Stack},
};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    bmc::{self, PowerAction},
    common::ConditionStatus,
    inventory::{ListServersRequest, Server, ServerState},
};
use ironyard_testkit::poll;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    foreign_bmc::{Foreign, OFF, switched_off, update_bmc},
    gateway::{finished, get_bmc, is_ready, ready, reason_of, system},
    seed::cli,
};

struct Site {
    stack: Stack,
    clients: Clients,
    _data: TempDir,
}

impl Site {
    async fn new() -> Self {
        Self::tuned(|_| {}).await
    }

    /// With settings of its own.
    async fn tuned(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path(), ([127, 0, 0, 1], 0).into());
        config.first_wipe = ironyard_types::hardware::FirstWipe::Waive;
        config.in_band = InBand::Off;
        config.gateway.requests_per_second = 0;
        config.gateway.polling.power = Duration::from_secs(2);
        config.gateway.patience.graceful = Duration::from_secs(3);
        change(&mut config);
        let stack = Stack::start(config).await.unwrap();
        let clients = Clients::at(&stack.address).unwrap();
        Self {
            stack,
            clients,
            _data: data,
        }
    }

    /// Makes a BMC known.
    async fn register(&self, name: &str, foreign: &Foreign) {
        foreign.register(&self.clients, name).await;
    }

    async fn servers(&self) -> Vec<Server> {
        let request = ListServersRequest {
            page_size: 100,
            ..Default::default()
        };
        self.clients
            .servers
            .clone()
            .list_servers(request)
            .await
            .unwrap()
            .into_inner()
            .servers
    }

    /// The only server, once it is Available.
    async fn discovered(&self) -> String {
        poll::until("a server is Available", || async {
            let servers = self.servers().await;
            let [server] = servers.as_slice() else { return None };
            assert_ne!(server.state(), ServerState::Error, "{:?}", server.failure);
            (server.state() == ServerState::Available).then(|| server.metadata.clone().unwrap().name)
        })
        .await
    }
}

/// A refusal because the machine is busy is asked again; it never counts as accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_change_that_is_refused_for_now_is_asked_again() {
    let Some(foreign) = Foreign::start("dell", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("dell", &foreign).await;
    site.discovered().await;
    let refuses = json!([{
        "match": {"method": "POST", "path": "ComputerSystem.Reset", "times": 2},
        "do": {"status": 409, "error": {"message_id": "Base.1.12.ResourceInUse", "message": "The machine is busy."}},
    }]);
    foreign.behave(&refuses).await;
    let request = bmc::SetPowerRequest {
        system: system("dell"),
        action: PowerAction::On.into(),
        ..Default::default()
    };
    let operation = site.clients.systems.clone().set_power(request).await.unwrap().into_inner();
    finished(&site.clients, &operation).await.unwrap();
    foreign.power("On").await;
    assert_eq!(foreign.writes().await.len(), 3, "{:#?}", foreign.writes().await);
}

/// What another machine shows in the place of a server is not switched, wiped or changed by that server's name.
#[tokio::test(flavor = "multi_thread")]
async fn another_machine_is_not_touched_by_the_name_of_the_first() {
    let Some(foreign) = Foreign::start("standard", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("rack", &foreign).await;
    let name = site.discovered().await;
    let machine = foreign.machine().await;
    let id = machine["systems"].as_object().unwrap().keys().next().unwrap().clone();
    // Somebody puts another machine there, which runs.
    let other = json!({"power": "On", "identity": {"uuid": "99999999-1111-4222-8333-444444444444", "serial": "OTHER-1"}});
    foreign.control("POST", "/machine", &json!({"systems": {id: other}})).await;
    foreign.power("On").await;
    let before = foreign.writes().await;
    for arguments in [["power", &name, "off"], ["power", &name, "force-off"]] {
        let (code, why) = cli(&site.stack.address, &[&arguments[..], &["--yes"]].concat()).unwrap_err();
        assert!(why.contains("another machine than the one that is meant"), "{code}: {why}");
    }
    foreign.power("On").await;
    assert_eq!(foreign.writes().await, before);
}

/// A certificate that was pinned stays pinned wherever the BMC moves to: whoever stands there is shown no password.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_survives_a_move() {
    let tls = ["--scheme", "https", "--tls", r#"{"key": "ec256"}"#];
    let more = [OFF, &tls].concat();
    let (Some(first), Some(second)) = (Foreign::start("standard", &more), Foreign::start("standard", &more)) else {
        return;
    };
    let site = Site::new().await;
    site.register("rack", &first).await;
    let bmc = ready(&site.clients, "rack").await;
    let pinned = bmc.observed.clone().unwrap().certificate_sha256;
    assert_eq!(pinned.len(), 64);
    let mut spec = bmc.spec.clone().unwrap();
    spec.port = second.port();
    update_bmc(&site.clients, "rack", spec, &["port"]).await.unwrap();
    poll::until("the certificate is refused", || async {
        let bmc = get_bmc(&site.clients, "rack").await?;
        let told = bmc.conditions.iter().find(|c| c.r#type == "Reachable")?;
        (told.status() == ConditionStatus::False && told.reason == "CertificateRefused").then_some(())
    })
    .await;
    assert_eq!(second.log().await, Vec::<Value>::new(), "nothing was asked of it");
    assert_eq!(
        get_bmc(&site.clients, "rack").await.unwrap().observed.unwrap().certificate_sha256,
        pinned
    );
}

/// A resource that is closed to the account is that resource's matter: the BMC stays usable, and no session is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_refused_closes_nothing_else() {
    let Some(foreign) = Foreign::start("standard", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("rack", &foreign).await;
    site.discovered().await;
    foreign
        .behave(&json!({"rules": [], "settings": {"unauthorized_paths": ["/Bios"]}}))
        .await;
    for _ in 0..6 {
        let request = bmc::GetBiosRequest { system: system("rack") };
        let refused = site.clients.systems.clone().get_bios(request).await.unwrap_err();
        assert_eq!(reason_of(&refused), "BMC_FORBIDDEN", "{refused}");
        let request = bmc::GetSystemRequest { system: system("rack") };
        site.clients.systems.clone().get_system(request).await.unwrap();
    }
    assert!(get_bmc(&site.clients, "rack").await.is_some_and(|bmc| is_ready(&bmc)));
    let sessions = foreign.machine().await["sessions"].as_object().unwrap().len();
    assert!(sessions <= 1, "{sessions} sessions");
}

/// An image whose answer is lost is not sent a second time: the task that the BMC began is found, though it does not say what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn firmware_is_not_sent_again_when_its_answer_is_lost() {
    let Some(foreign) = Foreign::start("dell", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("dell", &foreign).await;
    ready(&site.clients, "dell").await;
    foreign
        .behave(&json!([{"match": {"method": "POST", "path": "SimpleUpdate", "times": 1}, "do": {"lose_answer": true}}]))
        .await;
    let request = bmc::UpdateFirmwareRequest {
        bmc: "dell".to_owned(),
        image_uri: "http://127.0.0.1:9/image.bin".to_owned(),
        ..Default::default()
    };
    let operation = site.clients.managers.clone().update_firmware(request).await.unwrap().into_inner();
    poll::until("the task was found", || async {
        let request = bmc::GetOperationRequest {
            name: operation.name.clone(),
        };
        let now = site.clients.operations.clone().get_operation(request).await.ok()?.into_inner();
        (now.done || now.phase.contains("Found") || now.phase.contains("at work") || now.phase.contains("Verifying")).then_some(())
    })
    .await;
    let sent = foreign.writes().await.into_iter().filter(|w| w.contains("SimpleUpdate")).count();
    assert_eq!(sent, 1);
}

/// Nobody's power goes off under firmware that is being written, by neither of the names of the system.
#[tokio::test(flavor = "multi_thread")]
async fn power_waits_for_firmware_by_either_name() {
    let Some(foreign) = Foreign::start("dell", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("dell", &foreign).await;
    ready(&site.clients, "dell").await;
    let list = bmc::ListSystemsRequest { bmc: "dell".to_owned() };
    let systems = site.clients.systems.clone().list_systems(list).await.unwrap().into_inner().systems;
    let id = systems[0].system_id.clone();
    foreign.behave(&json!({"rules": [], "settings": {"task_seconds": 4}})).await;
    let request = bmc::UpdateFirmwareRequest {
        bmc: "dell".to_owned(),
        image_uri: "http://127.0.0.1:9/image.bin".to_owned(),
        ..Default::default()
    };
    let firmware = site.clients.managers.clone().update_firmware(request).await.unwrap().into_inner();
    let get = async |name: &str| {
        let request = bmc::GetOperationRequest { name: name.to_owned() };
        site.clients.operations.clone().get_operation(request).await.unwrap().into_inner()
    };
    poll::until("the BMC is at work", || async {
        get(&firmware.name).await.phase.contains("at work").then_some(())
    })
    .await;
    for system_id in [id.clone(), String::new()] {
        let request = bmc::SetPowerRequest {
            system: Some(bmc::SystemName {
                bmc: "dell".to_owned(),
                system_id,
                ..Default::default()
            }),
            action: bmc::PowerAction::On.into(),
            ..Default::default()
        };
        let power = site.clients.systems.clone().set_power(request).await.unwrap().into_inner();
        poll::until("the power waits, and says for what", || async {
            let now = get(&power.name).await;
            assert!(!now.done || get(&firmware.name).await.progress_percent == 100, "{now:?}");
            (now.done || now.phase.contains("UpdateFirmware")).then_some(())
        })
        .await;
    }
    let resets = async || {
        foreign
            .writes()
            .await
            .into_iter()
            .filter(|w| w.contains("ComputerSystem.Reset"))
            .count()
    };
    assert_eq!(resets().await, 0, "nothing was switched while the firmware was written");
    poll::until("the machine is switched on once the task is over", || async {
        (resets().await == 1).then_some(())
    })
    .await;
    foreign.power("On").await;
}

/// An erase whose answer is lost, whether it took effect or never arrived, is not asked for a second time, and the operation says that nobody
/// knows; what became of the drive is for those to say who read it. A volume that nobody sees fails.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_done_is_not_asked_for_again() {
    for loses in ["lose_answer", "lose_request"] {
        let Some(foreign) = Foreign::start("dell", OFF) else { return };
        switched_off(&foreign).await;
        let site = Site::tuned(|config| config.gateway.patience.lost_answer = Duration::from_secs(6)).await;
        site.register("dell", &foreign).await;
        site.discovered().await;
        let server = site.servers().await.remove(0);
        let drives = server.observed.unwrap().hardware.unwrap().drives;
        let serial = drives
            .iter()
            .find(|drive| !drive.serial_number.is_empty())
            .unwrap()
            .serial_number
            .clone();
        // Its tasks do not say what they are for, and are soon gone.
        foreign
            .behave(&json!([
                {"match": {"method": "POST", "path": "SecureErase"}, "do": {loses: true}},
                {"match": {"method": "POST", "path": "/Volumes$"}, "do": {"lose_request": true}},
            ]))
            .await;
        let request = bmc::EraseDriveRequest {
            system: system("dell"),
            drive_serial_number: serial.clone(),
            ..Default::default()
        };
        let erase = site.clients.systems.clone().erase_drive(request).await.unwrap().into_inner();
        let done = finished(&site.clients, &erase).await.unwrap();
        let asked = async |path: &str| foreign.writes().await.into_iter().filter(|w| w.contains(path)).count();
        assert_eq!(asked("SecureErase").await, 1);
        if loses == "lose_request" {
            let evidence = done.metadata.get("evidence").cloned().unwrap_or_default();
            assert!(evidence.contains("answer was lost"), "{:?}", done.metadata);
            let request = bmc::CreateVolumeRequest {
                system: system("dell"),
                name: "data".into(),
                raid_type: "RAID0".into(),
                drive_serial_numbers: vec![serial],
                ..Default::default()
            };
            let volume = site.clients.storage.clone().create_volume(request).await.unwrap().into_inner();
            let (reason, message) = finished(&site.clients, &volume).await.unwrap_err();
            assert!(
                reason == "BMC_TIMEOUT" && message.contains("answer was lost"),
                "{reason}: {message}"
            );
            assert_eq!(asked("/Volumes ").await, 1);
        }
    }
}

/// Two machines that show one system UUID are two servers, of which one waits and both say so; neither is forgotten, and none becomes the other.
#[tokio::test(flavor = "multi_thread")]
async fn machines_of_one_identity_are_shown_and_say_so() {
    let (Some(first), Some(second)) = (Foreign::start("standard", OFF), Foreign::start("standard", OFF)) else {
        return;
    };
    switched_off(&first).await;
    switched_off(&second).await;
    let site = Site::tuned(|config| config.poll = Duration::from_millis(500)).await;
    site.register("one", &first).await;
    let holder = site.discovered().await;
    site.register("two", &second).await;
    let server = async |mine: bool| {
        let mut servers = site.servers().await;
        servers.retain(|server| (server.metadata.as_ref().unwrap().name == holder) == mine);
        servers.pop()
    };
    let unique = |server: &Server| {
        let found = server.conditions.iter().find(|c| c.r#type == "IdentityUnique")?;
        Some((found.status(), found.message.clone()))
    };
    let other = poll::until("the second waits, and says for whom", || async {
        let other = server(false).await?;
        assert_eq!(other.state(), ServerState::Initial);
        let waiting = other.waiting_because.as_ref()?;
        (waiting.reason == "DUPLICATE_IDENTITY" && waiting.message.contains(&holder)).then_some(other)
    })
    .await;
    let name = other.metadata.unwrap().name;
    poll::until("the first says so too", || async {
        let (status, message) = unique(&server(true).await?)?;
        (status == ConditionStatus::False && message.contains(&name)).then_some(())
    })
    .await;
    assert_eq!(server(true).await.unwrap().state(), ServerState::Available);
    assert_eq!(second.writes().await, Vec::<String>::new());
    // Somebody gives the second board a UUID of its own.
    let machine = second.machine().await;
    let systems: serde_json::Map<String, Value> = machine["systems"]
        .as_object()
        .unwrap()
        .keys()
        .map(|id| {
            (
                id.clone(),
                json!({"identity": {"uuid": "0b0e8400-e29b-41d4-a716-446655440000", "serial": "OTHER1"}}),
            )
        })
        .collect();
    second.control("POST", "/machine", &json!({"systems": systems})).await;
    poll::until("both are servers", || async {
        let other = server(false).await?;
        assert_ne!(other.state(), ServerState::Error, "{:?}", other.failure);
        let (status, _) = unique(&server(true).await?)?;
        (other.state() == ServerState::Available && status == ConditionStatus::True).then_some(())
    })
    .await;
}

/// A BMC that takes five seconds for each request is slow and not broken: what takes many requests is done for those who set no deadline of their
/// own, and it stays Ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_bmc_is_slow_and_not_broken() {
    let Some(foreign) = Foreign::start("dell", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::tuned(|config| config.gateway.polling.power = Duration::from_secs(60)).await;
    site.register("dell", &foreign).await;
    site.discovered().await;
    foreign.behave(&json!({"rules": [], "settings": {"latency": 5}})).await;
    let mut systems = site.clients.systems.clone();
    let boot = bmc::SetBootOverrideRequest {
        system: system("dell"),
        target: "Pxe".into(),
        ..Default::default()
    };
    let begun = std::time::Instant::now();
    systems.set_boot_override(boot).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(30), "it was quick: {:?}", begun.elapsed());
    let power = bmc::SetPowerRequest {
        system: system("dell"),
        action: PowerAction::On.into(),
        ..Default::default()
    };
    let operation = systems.set_power(power).await.unwrap().into_inner();
    finished(&site.clients, &operation).await.unwrap();
    foreign.power("On").await;
    let bmc = get_bmc(&site.clients, "dell").await.unwrap();
    assert!(is_ready(&bmc), "{:?}", bmc.conditions);
}

/// The first contact with a BMC offers a password that is wrong once, whatever else is tried: accounts lock.
#[test]
fn conformance_offers_a_wrong_password_once() {
    let Some(foreign) = Foreign::start("dell", &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "not-the-password").unwrap();
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"))
        .args([
            "conformance",
            "--scheme",
            "http",
            "--address",
            "127.0.0.1",
            "--username",
            "root",
            "--port",
        ])
        .arg(foreign.port().to_string())
        .arg("--password-file")
        .arg(&password)
        .output()
        .unwrap();
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("the BMC refused the credential"), "{said}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = runtime.block_on(foreign.log());
    let refused: Vec<_> = log.iter().filter(|r| r["status"] == 401).collect();
    assert_eq!(refused.len(), 1, "{refused:#?}");
}

/// Gives all systems of a BMC this UUID and serial number.
async fn identify(foreign: &Foreign, uuid: &str, serial: &str) {
    let machine = foreign.machine().await;
    let ids = machine["systems"].as_object().unwrap().keys();
    let identity = json!({"identity": {"uuid": uuid, "serial": serial, "sku": ""}});
    let systems: serde_json::Map<String, Value> = ids.map(|id| (id.clone(), identity.clone())).collect();
    foreign.control("POST", "/machine", &json!({"systems": systems})).await;
}

/// The halves of a blade that have no UUID and show one serial number, that of what holds them, are servers of their own all the same: their
/// places tell them apart.
#[tokio::test(flavor = "multi_thread")]
async fn halves_of_a_blade_that_share_a_serial_number_are_servers() {
    let Some(foreign) = Foreign::start("blade", OFF) else { return };
    switched_off(&foreign).await;
    identify(&foreign, "", "FRU-1").await;
    let site = Site::new().await;
    site.register("blade", &foreign).await;
    let hosts = foreign.machine().await["systems"].as_object().unwrap().len();
    assert!(hosts > 1);
    poll::until("each half is a server", || async {
        let servers = site.servers().await;
        for server in &servers {
            assert_ne!(server.state(), ServerState::Error, "{:?}", server.failure);
        }
        let free = servers.iter().filter(|server| server.state() == ServerState::Available).count();
        (free == hosts).then_some(())
    })
    .await;
}

/// Machines behind several BMCs that have no UUID and show one serial number cannot be told apart: the second waits and says so, for as long as that
/// is so, and never ends in Error.
#[tokio::test(flavor = "multi_thread")]
async fn machines_of_one_serial_number_are_told_apart_or_wait() {
    let (Some(first), Some(second)) = (Foreign::start("standard", OFF), Foreign::start("standard", OFF)) else {
        return;
    };
    for foreign in [&first, &second] {
        switched_off(foreign).await;
        identify(foreign, "", "FRU-1").await;
    }
    let site = Site::tuned(|config| {
        config.poll = Duration::from_millis(500);
        // No patience may end it.
        (config.patience, config.boot_timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    })
    .await;
    site.register("one", &first).await;
    let holder = site.discovered().await;
    site.register("two", &second).await;
    let other = async || {
        let mut servers = site.servers().await;
        servers.retain(|server| server.metadata.as_ref().unwrap().name != holder);
        servers.pop()
    };
    let waits = async || {
        let server = other().await?;
        assert_ne!(server.state(), ServerState::Error, "{:?}", server.failure);
        let waiting = server.waiting_because?;
        (waiting.reason == "DUPLICATE_IDENTITY" && waiting.message.contains("serial number")).then_some(waiting.attempts)
    };
    poll::until("the second waits, and says why", waits).await;
    let asked = second.log().await.len();
    poll::until("it was looked at again and again", || async {
        (second.log().await.len() > asked + 60).then_some(())
    })
    .await;
    assert!(waits().await.is_some());
    identify(&second, "", "FRU-2").await;
    poll::until("both are servers", || async {
        (other().await?.state() == ServerState::Available).then_some(())
    })
    .await;
}
