//! The gateway is killed in the middle of long work, and the hardware's own records tell how often anything was done.

use std::time::Duration;

use futures_util::StreamExt;
use ironyard::client::Clients;
use ironyard_bmc_simulator::{Action, Machine, Rule, Timing};
use ironyard_proto::{
    bmc::{self, PowerAction},
    common::Operation,
};
use ironyard_testkit::poll;

use crate::{
    gateway::{Alone, Killable, enroll, finished, fleet, ready, served, system},
    verbs::push,
};

async fn operation(clients: &Clients, name: &str) -> Option<Operation> {
    let request = bmc::GetOperationRequest { name: name.to_owned() };
    clients
        .operations
        .clone()
        .get_operation(request)
        .await
        .ok()
        .map(tonic::Response::into_inner)
}

/// Writes to paths that hold this, as the BMC counted them: all, and those without effect.
fn writes(machine: &Machine, part: &str) -> (usize, usize) {
    let all = machine.writes();
    let hits: Vec<_> = all.iter().filter(|w| w.path.contains(part) && w.status < 300).collect();
    (hits.len(), hits.iter().filter(|w| !w.effect).count())
}

/// When the gateway is killed.
const MOMENTS: [&str; 3] = ["at once", "when it has asked", "half way"];

async fn wait_for(moment: &str, gateway: &Killable, begun: &Operation) {
    poll::until(&format!("the moment {moment:?}"), || async {
        let now = operation(&gateway.clients, &begun.name).await?;
        let there = match moment {
            "at once" => true,
            "when it has asked" => now.done || !matches!(now.phase.as_str(), "Queued" | "Prepared"),
            _ => now.done || now.progress_percent >= 50 || now.phase.starts_with("Verifying") || now.phase.starts_with("Switching on"),
        };
        there.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_work_survives_kills_on_every_family() {
    let timing = Timing {
        power: Duration::from_millis(300),
        erase: Duration::from_millis(1500),
    };
    let (fleet, config) = fleet(7, [127, 95, 0, 1], timing, true);
    let serving = served(&fleet, false);
    let mut gateway = Killable::start().await;
    let machines = fleet.machines();
    for machine in &machines {
        let name = enroll(&gateway.clients, machine, &config, serving.port, "http").await;
        ready(&gateway.clients, &name).await;
    }
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        let version = format!("9.{round}.0");
        let mut begun = vec![];
        for machine in &machines {
            let (clients, bmc) = (&gateway.clients, crate::gateway::name_of(machine));
            let request = bmc::EraseDriveRequest {
                system: system(&bmc),
                drive_serial_number: format!("NV{:06}A", machine.config.number),
                ..Default::default()
            };
            // Somebody's data, anew in each round.
            machine.with_drive(&request.drive_serial_number, |d| d.write(7, [1; 512]));
            begun.push(clients.systems.clone().erase_drive(request).await.unwrap().into_inner());
            let request = bmc::SetPowerRequest {
                system: system(&bmc),
                action: PowerAction::Cycle.into(),
                ..Default::default()
            };
            begun.push(clients.systems.clone().set_power(request).await.unwrap().into_inner());
            let pushed = if machine.config.profile.multipart || machine.config.profile.raw_push {
                clients.managers.clone().push_firmware(push(&bmc, "NIC1", &version)).await
            } else {
                let request = bmc::UpdateFirmwareRequest {
                    bmc: bmc.clone(),
                    image_uri: format!("http://192.0.2.1/NIC1-{version}.bin"),
                    component_id: "NIC1".into(),
                    version: version.clone(),
                    ..Default::default()
                };
                clients.managers.clone().update_firmware(request).await
            };
            begun.push(pushed.unwrap().into_inner());
        }
        wait_for(moment, &gateway, begun.last().unwrap()).await;
        gateway.kill();
        gateway.again().await;
        for operation in &begun {
            finished(&gateway.clients, operation)
                .await
                .unwrap_or_else(|why| panic!("{moment}: {} of {}: {why:?}", operation.verb, operation.target));
        }
        for machine in &machines {
            let family = machine.config.profile.name;
            let serial = format!("NV{:06}A", machine.config.number);
            let erased = machine.with_drive(&serial, |d| d.read(7) != [1; 512]);
            assert_eq!(erased, Some(true), "{moment}: {family}: the drive is erased");
            assert_eq!(machine.power().to_string(), "On", "{moment}: {family}");
            assert_eq!(machine.settings()["firmware"]["NIC1"], version, "{moment}: {family}");
            // Each was asked for once in each round, and nothing was asked for that was so already.
            for part in ["Drive.SecureErase", "UpdateService"] {
                assert_eq!(writes(machine, part), (round + 1, 0), "{moment}: {family}: {part}");
            }
            assert_eq!(
                writes(machine, "ComputerSystem.Reset").1,
                0,
                "{moment}: {family}: {:?}",
                machine.writes()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bmcs_own_firmware_and_the_bios_end_as_they_do() {
    let (fleet, config) = fleet(7, [127, 95, 1, 1], Timing::default(), true);
    let serving = served(&fleet, false);
    let mut gateway = Killable::start().await;
    for machine in fleet.machines() {
        let name = enroll(&gateway.clients, &machine, &config, serving.port, "http").await;
        ready(&gateway.clients, &name).await;
    }
    let mut begun = vec![];
    for machine in fleet.machines() {
        for component in ["BMC", "BIOS"] {
            if !machine.config.profile.simple_update {
                continue;
            }
            let request = bmc::UpdateFirmwareRequest {
                bmc: crate::gateway::name_of(&machine),
                image_uri: format!("http://192.0.2.1/{component}-7.0.0.bin"),
                component_id: component.into(),
                version: "7.0.0".into(),
                ..Default::default()
            };
            let operation = gateway
                .clients
                .managers
                .clone()
                .update_firmware(request)
                .await
                .unwrap()
                .into_inner();
            begun.push((component, operation));
        }
    }
    gateway.kill();
    gateway.again().await;
    for (component, operation) in &begun {
        let outcome = finished(&gateway.clients, operation)
            .await
            .unwrap_or_else(|why| panic!("{component}: {why:?}"));
        let expected = if *component == "BMC" { "installed" } else { "staged" };
        assert_eq!(outcome.metadata["result"], expected, "{component} of {}", operation.target);
    }
    for machine in fleet.machines().iter().filter(|m| m.config.profile.simple_update) {
        assert_eq!(machine.settings()["firmware"]["BMC"], "7.0.0");
        assert_eq!(machine.settings()["staged"]["BIOS"], "7.0.0");
    }
}

async fn rotate(clients: &Clients, bmc: &str) -> Operation {
    let request = bmc::RotateCredentialRequest {
        bmc: bmc.to_owned(),
        request_id: String::new(),
    };
    clients.credentials.clone().rotate_credential(request).await.unwrap().into_inner()
}

async fn works(clients: &Clients, bmc: &str) {
    let request = bmc::GetManagerRequest {
        bmc: bmc.to_owned(),
        ..Default::default()
    };
    clients.managers.clone().get_manager(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_anywhere_loses_nothing() {
    let (fleet, config) = fleet(7, [127, 95, 2, 1], Timing::default(), true);
    let serving = served(&fleet, false);
    let mut gateway = Killable::start().await;
    let mut secrets = vec![config.password.clone()];
    let rule = |method: &str, path: &str, action| Rule {
        method: Some(method.to_owned()),
        path: format!("/redfish/v1/{path}"),
        action,
        remaining: None,
    };
    for machine in fleet.machines() {
        let name = enroll(&gateway.clients, &machine, &config, serving.port, "http").await;
        ready(&gateway.clients, &name).await;
        // What holds the rotation up where it is then killed.
        let places = [
            ("before it is set", Some(rule("PATCH", "AccountService", Action::Hang))),
            (
                "after it is set, before the answer",
                Some(rule("PATCH", "AccountService", Action::HangAfter)),
            ),
            ("before the login", Some(rule("POST", "SessionService", Action::Hang))),
            (
                "after the login, before the answer",
                Some(rule("POST", "SessionService", Action::HangAfter)),
            ),
            ("at once", None),
        ];
        for (place, rule) in places {
            let before = machine.password_of(&config.username).unwrap();
            let held = rule.is_some();
            if let Some(rule) = rule {
                machine.add_rule(rule);
            }
            let (before_held, begun) = (machine.held(), rotate(&gateway.clients, &name).await);
            if held {
                poll::until(&format!("it is held {place}"), || async {
                    (machine.held() > before_held).then_some(())
                })
                .await;
            }
            gateway.kill();
            machine.clear_rules();
            gateway.again().await;
            finished(&gateway.clients, &begun)
                .await
                .unwrap_or_else(|why| panic!("{name} killed {place}: {why:?}"));
            let after = machine.password_of(&config.username).unwrap();
            assert_ne!(after, before, "{name} killed {place}: the password is another one");
            works(&gateway.clients, &name).await;
            assert!(!machine.locked_out(), "{name} killed {place}");
            secrets.push(after);
        }
    }
    // Killed at moments that nobody chose.
    let machine = fleet.machines()[0].clone();
    for n in 0..12 {
        let begun = rotate(&gateway.clients, &crate::gateway::name_of(&machine)).await;
        tokio::time::sleep(Duration::from_millis(n * 3)).await;
        gateway.kill();
        gateway.again().await;
        finished(&gateway.clients, &begun).await.unwrap();
        works(&gateway.clients, &crate::gateway::name_of(&machine)).await;
        assert!(!machine.locked_out());
        secrets.push(machine.password_of(&config.username).unwrap());
    }
    gateway.kill();
    // No password, old or new, stands in the log (at trace level) or in the records.
    let mut looked = 0;
    for entry in std::fs::read_dir(gateway.folder()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        looked += bytes.len();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{} holds a password", path.display());
        }
    }
    assert!(looked > 100_000, "the log and the records were there to be looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_leave_sessions_for_others() {
    let (fleet, config) = fleet(7, [127, 95, 3, 1], Timing::default(), true);
    let serving = served(&fleet, false);
    let mut gateway = Killable::start().await;
    // The second one is of the family that keeps eight.
    let machine = fleet.machines()[1].clone();
    assert_eq!(machine.config.session_limit, 8);
    let name = enroll(&gateway.clients, &machine, &config, serving.port, "http").await;
    ready(&gateway.clients, &name).await;
    for _ in 0..50 {
        works(&gateway.clients, &name).await;
        gateway.kill();
        gateway.again().await;
        works(&gateway.clients, &name).await;
        assert!(machine.sessions() <= 2, "{} sessions", machine.sessions());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_images_are_kept_as_long_as_they_are_needed() {
    let (fleet, config) = fleet(1, [127, 95, 4, 1], Timing::default(), false);
    let serving = served(&fleet, false);
    let mut gateway = Killable::start().await;
    let machine = fleet.machines()[0].clone();
    let name = enroll(&gateway.clients, &machine, &config, serving.port, "http").await;
    ready(&gateway.clients, &name).await;
    let spool = gateway.folder().join("spool");
    let images = || std::fs::read_dir(&spool).map_or(0, Iterator::count);

    // A caller who hangs up leaves nothing.
    let (parts, begun) = tokio::sync::mpsc::channel(4);
    let mut managers = gateway.clients.managers.clone();
    let call = tokio::spawn(async move { managers.push_firmware(tokio_stream::wrappers::ReceiverStream::new(begun)).await });
    let whole: Vec<_> = push(&name, "NIC1", "8.0.0").collect().await;
    for part in whole.into_iter().take(2) {
        parts.send(part).await.unwrap();
    }
    poll::until("the image is being received", || async { (images() == 1).then_some(()) }).await;
    call.abort();
    poll::until("it is removed", || async { (images() == 0).then_some(()) }).await;

    // One that ended leaves nothing, and a replay brings no second one.
    let with_id = || {
        push(&name, "NIC1", "8.1.0").map(|mut part| {
            if let Some(bmc::push_firmware_request::Part::Head(head)) = &mut part.part {
                head.request_id = "once".into();
            }
            part
        })
    };
    let push_again = || {
        let mut managers = gateway.clients.managers.clone();
        async move { managers.push_firmware(with_id()).await.unwrap().into_inner() }
    };
    let (first, replay) = (push_again().await, push_again().await);
    assert_eq!(first.name, replay.name);
    finished(&gateway.clients, &first).await.unwrap();
    poll::until("it is removed", || async { (images() == 0).then_some(()) }).await;

    // One that is lost before the BMC got it is told.
    machine.add_rule(Rule {
        method: Some("GET".into()),
        path: "/redfish/v1/UpdateService".into(),
        action: Action::Hang,
        remaining: None,
    });
    let pushed = gateway.clients.managers.clone().push_firmware(push(&name, "NIC1", "8.2.0")).await;
    let pushed = pushed.unwrap().into_inner();
    gateway.kill();
    std::fs::remove_dir_all(&spool).unwrap();
    machine.clear_rules();
    gateway.again().await;
    let (reason, _) = finished(&gateway.clients, &pushed).await.unwrap_err();
    assert_eq!(reason, "IMAGE_GONE");
    assert_eq!(machine.settings()["firmware"]["NIC1"], "8.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_nobody_waits_for_any_more_is_not_begun() {
    let (fleet, config) = fleet(1, [127, 95, 5, 1], Timing::default(), false);
    let serving = served(&fleet, false);
    let alone = Alone::start(|gateway| gateway.write_timeout = Duration::from_secs(30)).await;
    let machine = fleet.machines()[0].clone();
    let name = enroll(&alone.clients, &machine, &config, serving.port, "http").await;
    ready(&alone.clients, &name).await;
    machine.add_rule(Rule {
        method: Some("PATCH".into()),
        path: "/redfish/v1/Managers".into(),
        action: Action::LatencyAfter(4000),
        remaining: Some(1),
    });
    let clients = alone.clients.clone();
    let clock = bmc::SyncClockRequest { bmc: name.clone() };
    let first = tokio::spawn(async move { clients.managers.clone().sync_clock(clock).await });
    let written = |part: &str| machine.writes().iter().filter(|w| w.path.contains(part)).count();
    poll::until("the first write is under way", || async { (written("Managers") > 0).then_some(()) }).await;
    // The second one waits for its turn, and whoever asked hangs up.
    let led = bmc::SetIndicatorLedRequest {
        system: system(&name),
        on: true,
    };
    let mut systems = alone.clients.systems.clone();
    let second = tokio::time::timeout(Duration::from_millis(300), systems.set_indicator_led(led)).await;
    assert!(second.is_err());
    first.await.unwrap().unwrap();
    // One that comes later comes after it.
    let ntp = bmc::SetNtpRequest {
        bmc: name.clone(),
        servers: vec!["ntp.example.net".into()],
    };
    alone.clients.managers.clone().set_ntp(ntp).await.unwrap();
    assert_eq!(written("Systems"), 0, "{:?}", machine.writes());
}

/// Power does not go off under work that a loss of power would spoil, whatever the machine is called; what was asked for earlier comes first.
#[tokio::test(flavor = "multi_thread")]
async fn power_waits_for_work_on_the_machine() {
    let timing = Timing {
        power: Duration::from_millis(100),
        erase: Duration::from_millis(200),
    };
    let (fleet, config) = fleet(1, [127, 95, 60, 1], timing, false);
    let serving = served(&fleet, false);
    let gateway = Alone::start(|_| {}).await;
    let machine = &fleet.machines()[0];
    let name = enroll(&gateway.clients, machine, &config, serving.port, "http").await;
    ready(&gateway.clients, &name).await;
    let clients = &gateway.clients;
    let power = async |action: PowerAction, id: &str| {
        let request = bmc::SetPowerRequest {
            system: Some(bmc::SystemName {
                bmc: name.clone(),
                system_id: id.to_owned(),
                ..Default::default()
            }),
            action: action.into(),
            ..Default::default()
        };
        clients.systems.clone().set_power(request).await.unwrap().into_inner()
    };
    let on = power(PowerAction::On, "").await;
    finished(clients, &on).await.unwrap();
    machine.set_knobs(ironyard_bmc_simulator::Knobs {
        tasks_stick: Some(true),
        ..Default::default()
    });
    let request = bmc::EraseDriveRequest {
        system: system(&name),
        drive_serial_number: format!("NV{:06}A", machine.config.number),
        ..Default::default()
    };
    let erase = clients.systems.clone().erase_drive(request).await.unwrap().into_inner();
    poll::until("the drive is being erased", || async {
        (operation(clients, &erase.name).await?.progress_percent > 50).then_some(())
    })
    .await;
    // By both of its names.
    let off = [power(PowerAction::ForceOff, "1").await, power(PowerAction::ForceOff, "").await];
    for off in &off {
        poll::until("the power waits, and says for what", || async {
            let phase = operation(clients, &off.name).await?.phase;
            (phase.contains("Waiting for an earlier operation") && phase.contains("EraseDrive")).then_some(())
        })
        .await;
    }
    let (resets, _) = writes(machine, "ComputerSystem.Reset");
    assert_eq!(resets, 1, "it was switched on, and nothing else");
    // A person decides that the erase does not count; then it is the power's turn.
    let request = bmc::CancelOperationRequest {
        name: erase.name.clone(),
        reason: "it hangs".into(),
    };
    clients.operations.clone().cancel_operation(request).await.unwrap();
    for off in &off {
        finished(clients, off).await.unwrap();
    }
    assert_eq!(writes(machine, "ComputerSystem.Reset").0, 2, "the second found it off");
}
