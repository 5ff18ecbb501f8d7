//! Several gateways on one database: each BMC has one of them, whichever is asked, whoever comes and goes.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use ironyard::client::{Addresses, Clients};
use ironyard_bmc_simulator::{Action, Fleet, Rule, Timing};
use ironyard_proto::{
    bmc::{self, PowerAction},
    common::Operation,
};
use ironyard_rpc::client::TlsConfig;
use ironyard_testkit::{Postgres, poll};
use tempfile::TempDir;

use crate::{
    gateway::{Killable, enroll, finished, fleet, name_of, ready, reason_of, served, system},
    verbs::{VERBS, push},
};

/// What gateways share: a database and a key.
struct Site {
    postgres: Postgres,
    folder: TempDir,
}

impl Site {
    async fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "00".repeat(32)).unwrap();
        Some(Self {
            postgres: Postgres::start().await?,
            folder,
        })
    }

    fn environment(&self, advertise: String) -> Vec<(String, String)> {
        let set = |name: &str, value: String| (format!("BMC_GATEWAY_{name}"), value);
        vec![
            set("DATABASE__URL", self.postgres.url()),
            set("DATABASE__SCHEMA", "bmc_gateway".to_owned()),
            set("GATEWAY__KEY_FILE", self.folder.path().join("key").display().to_string()),
            set("GATEWAY__CREATE_KEY", "false".to_owned()),
            set("GATEWAY__REPLICAS__ADVERTISE", advertise),
            // Who follows a gateway that was killed in the middle of a write waits for as long.
            set("GATEWAY__WRITE_TIMEOUT", "10s".to_owned()),
        ]
    }

    async fn gateway(&self) -> Killable {
        Killable::with(|port| {
            let address = format!("http://127.0.0.1:{port}");
            let clients = Clients::at(&address).unwrap();
            (self.environment(address), clients)
        })
        .await
    }
}

/// Waits until each of them has seen this many, and no other number since.
async fn know_of(gateways: &[&Killable], count: usize) {
    let expected = format!("\"replicas\":{count}");
    for gateway in gateways {
        poll::until(&format!("it knows of {count} gateways"), || async {
            let log = gateway.log();
            let last = log.lines().rfind(|line| line.contains("\"replicas\":"))?;
            last.contains(&expected).then_some(())
        })
        .await;
    }
}

/// How many requests to a BMC stand in a gateway's log, and starts of an owner for it.
fn requests(gateway: &Killable, address: &str) -> usize {
    let quoted = format!("\"server.address\":\"{address}\"");
    gateway.log().lines().filter(|line| line.contains(&quoted)).count()
}

/// Whose each BMC is: the number of the only gateway that has spoken to it.
fn owners(gateways: &[&Killable], fleet: &Fleet) -> BTreeMap<String, usize> {
    let owner = |address: String| {
        let asked: Vec<usize> = gateways.iter().map(|g| requests(g, &address)).collect();
        let those: Vec<usize> = (0..asked.len()).filter(|n| asked[*n] > 0).collect();
        assert_eq!(those.len(), 1, "{address}: one gateway speaks to it: {asked:?}");
        those[0]
    };
    let machines = fleet.machines();
    machines.iter().map(|m| (name_of(m), owner(m.address().to_string()))).collect()
}

async fn works(clients: &Clients, bmc: &str) -> Result<(), String> {
    let request = bmc::GetManagerRequest {
        bmc: bmc.to_owned(),
        ..Default::default()
    };
    let answer = clients.managers.clone().get_manager(request).await;
    answer
        .map(|_| ())
        .map_err(|status| format!("{}: {}", reason_of(&status), status.message()))
}

/// The answers of a sweep by BMC: how many, and the last reason.
async fn sweep(clients: &Clients, bmcs: &[&str]) -> BTreeMap<String, (usize, String)> {
    let request = bmc::SweepPowerRequest {
        selector: None,
        bmcs: bmcs.iter().map(|&name| name.to_owned()).collect(),
    };
    let mut stream = clients.telemetry.clone().sweep_power(request).await.unwrap().into_inner();
    let mut answers = BTreeMap::<String, (usize, String)>::new();
    while let Some(message) = stream.message().await.unwrap() {
        for reading in message.readings {
            let answer = answers.entry(reading.bmc).or_default();
            *answer = (answer.0 + 1, reading.reason);
        }
    }
    answers
}

/// Long work on each BMC of a fleet, begun through any gateway.
async fn begin_all(clients: &Clients, fleet: &Fleet, version: &str) -> Vec<Operation> {
    let mut begun = vec![];
    for machine in fleet.machines() {
        let bmc = name_of(&machine);
        let serial = format!("NV{:06}A", machine.config.number);
        machine.with_drive(&serial, |d| d.write(7, [1; 512]));
        let erase = bmc::EraseDriveRequest {
            system: system(&bmc),
            drive_serial_number: serial,
            ..Default::default()
        };
        begun.push(clients.systems.clone().erase_drive(erase).await.unwrap().into_inner());
        let power = bmc::SetPowerRequest {
            system: system(&bmc),
            action: PowerAction::Cycle.into(),
            ..Default::default()
        };
        begun.push(clients.systems.clone().set_power(power).await.unwrap().into_inner());
        let update = bmc::UpdateFirmwareRequest {
            bmc: bmc.clone(),
            image_uri: format!("http://192.0.2.1/NIC1-{version}.bin"),
            component_id: "NIC1".into(),
            version: version.to_owned(),
            ..Default::default()
        };
        if machine.config.profile.simple_update {
            begun.push(clients.managers.clone().update_firmware(update).await.unwrap().into_inner());
        }
    }
    begun
}

/// BMCs whose gateway went away just before it sent an image: it is not sent by another one, which cannot know that; a person is told. How often.
type Unsent = BTreeMap<String, usize>;

/// Everything was done, and nothing was done twice.
async fn all_done(clients: &Clients, fleet: &Fleet, begun: &[Operation], version: &str, rounds: usize, unsent: &mut Unsent) {
    let mut not_now = vec![];
    for operation in begun {
        match finished(clients, operation).await {
            Ok(_) => {}
            Err((_, why)) if operation.verb == "UpdateFirmware" && why.contains("the BMC's answer was lost") => {
                *unsent.entry(operation.target.clone()).or_default() += 1;
                not_now.push(operation.target.clone());
            }
            Err(why) => panic!("{} of {}: {why:?}", operation.verb, operation.target),
        }
    }
    for machine in fleet.machines() {
        let name = name_of(&machine);
        let serial = format!("NV{:06}A", machine.config.number);
        assert_eq!(machine.with_drive(&serial, |d| d.read(7) != [1; 512]), Some(true), "{name}");
        assert_eq!(machine.power().to_string(), "On", "{name}");
        let writes = machine.writes();
        let of = |part: &str| {
            let hits: Vec<_> = writes.iter().filter(|w| w.path.contains(part) && w.status < 300).collect();
            (hits.len(), hits.iter().filter(|w| !w.effect).count())
        };
        assert_eq!(of("Drive.SecureErase"), (rounds, 0), "{name}");
        assert_eq!(of("ComputerSystem.Reset").1, 0, "{name}");
        if machine.config.profile.simple_update {
            // What was told as lost had not reached the BMC: what had would show.
            let lost = unsent.get(&name).copied().unwrap_or(0);
            assert_eq!(of("SimpleUpdate"), (rounds - lost, 0), "{name}");
            if !not_now.contains(&name) {
                assert_eq!(machine.settings()["firmware"]["NIC1"], version, "{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_share_the_bmcs_and_inherit_them() {
    let Some(site) = Site::new().await else { return };
    let timing = Timing {
        power: Duration::from_millis(300),
        erase: Duration::from_millis(1500),
    };
    let (fleet, config) = fleet(14, [127, 97, 0, 1], timing, true);
    let serving = served(&fleet, false);
    let (a, mut b) = (site.gateway().await, site.gateway().await);
    know_of(&[&a, &b], 2).await;
    let machines = fleet.machines();
    let names: Vec<String> = machines.iter().map(|m| name_of(m)).collect();
    for machine in &machines {
        enroll(&a.clients, machine, &config, serving.port, "http").await;
    }
    for name in &names {
        ready(&b.clients, name).await;
        for clients in [&a.clients, &b.clients] {
            works(clients, name).await.unwrap();
        }
    }
    // Each has some, and each BMC has one, who was asked both times.
    let whose = owners(&[&a, &b], &fleet);
    for n in [0, 1] {
        assert!(whose.values().any(|owner| *owner == n), "{whose:?}");
    }
    // A sweep through any of them has one answer for each BMC.
    for clients in [&a.clients, &b.clients] {
        let all = sweep(clients, &[]).await;
        assert_eq!(all.len(), machines.len());
        assert!(all.values().all(|answer| *answer == (1, String::new())), "{all:?}");
        let some = sweep(clients, &[&names[3], &names[8], "nobody"]).await;
        let nobody = (1, "BMC_NOT_FOUND".to_owned());
        let expected = [
            (names[3].clone(), (1, String::new())),
            (names[8].clone(), (1, String::new())),
            ("nobody".to_owned(), nobody),
        ];
        assert_eq!(some, BTreeMap::from(expected));
    }
    owners(&[&a, &b], &fleet);
    for machine in &machines {
        assert!(machine.sessions() <= 1, "{}: {} sessions", name_of(machine), machine.sessions());
    }

    // Streams find their way too.
    let theirs = machines
        .iter()
        .find(|m| whose[&name_of(m)] == 1 && m.config.profile.multipart)
        .unwrap();
    let pushed = a
        .clients
        .managers
        .clone()
        .push_firmware(push(&name_of(theirs), "BMC", "5.0.0"))
        .await;
    finished(&a.clients, &pushed.unwrap().into_inner()).await.unwrap();
    assert_eq!(theirs.settings()["firmware"]["BMC"], "5.0.0");
    owners(&[&a, &b], &fleet);

    // One is killed in the middle of its work: the other one does it, and answers all calls in the meantime.
    let begun = begin_all(&a.clients, &fleet, "9.0.0").await;
    b.kill();
    for name in &names {
        works(&a.clients, name).await.unwrap();
        // Changes too: they do not reach the one that is gone.
        let request = bmc::SyncClockRequest { bmc: name.clone() };
        if let Err(status) = a.clients.managers.clone().sync_clock(request).await {
            assert_eq!(reason_of(&status), "BMC_BUSY", "{name}: {status:?}");
        }
    }
    assert_eq!(sweep(&a.clients, &[]).await.len(), machines.len());
    let mut unsent = Unsent::new();
    all_done(&a.clients, &fleet, &begun, "9.0.0", 1, &mut unsent).await;
    know_of(&[&a], 1).await;

    // Another one comes: it takes its part, and those that it took are let go of.
    let c = site.gateway().await;
    know_of(&[&a, &c], 2).await;
    let before: Vec<usize> = machines.iter().map(|m| requests(&a, &m.address().to_string())).collect();
    let begun = begin_all(&c.clients, &fleet, "9.1.0").await;
    all_done(&a.clients, &fleet, &begun, "9.1.0", 2, &mut unsent).await;
    let mut taken = 0;
    for (machine, before) in machines.iter().zip(before) {
        let (address, name) = (machine.address().to_string(), name_of(machine));
        works(&a.clients, &name).await.unwrap();
        works(&c.clients, &name).await.unwrap();
        poll::until(&format!("{name} has one session"), || async {
            (machine.sessions() <= 1).then_some(())
        })
        .await;
        taken += usize::from(requests(&c, &address) > 0);
        assert!(requests(&c, &address) > 0 || requests(&a, &address) > before, "{name}");
    }
    assert!(taken > 0 && taken < machines.len(), "{taken} of {} moved", machines.len());

    // One that hangs loses its part too; when it wakes up, it finds itself in its place again.
    let begun = begin_all(&a.clients, &fleet, "9.2.0").await;
    c.signal("-STOP");
    for name in &names {
        poll::until(&format!("{name} is answered for"), || async { works(&a.clients, name).await.ok() }).await;
    }
    c.signal("-CONT");
    all_done(&a.clients, &fleet, &begun, "9.2.0", 3, &mut unsent).await;
    know_of(&[&a, &c], 2).await;
    for name in &names {
        works(&c.clients, name).await.unwrap();
    }

    // One that is stopped logs out, and leaves at once.
    let mut c = c;
    c.stop();
    know_of(&[&a], 1).await;
    for name in &names {
        works(&a.clients, name).await.unwrap();
    }
    for machine in &machines {
        assert!(machine.sessions() <= 1, "{}: {} sessions", name_of(machine), machine.sessions());
    }
}

fn certificate(tls: &Path, name: &str) -> TlsConfig {
    TlsConfig {
        ca: tls.join("ca.pem"),
        certificate: Some(tls.join(format!("{name}.pem"))),
        key: Some(tls.join(format!("{name}.key"))),
        server_name: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_may_go_to_any_gateway_by_whoever_may_make_it() {
    let Some(site) = Site::new().await else { return };
    let tls = site.folder.path().join("tls");
    let certs = Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"))
        .args(["certs", "--out"])
        .arg(&tls)
        .output()
        .unwrap();
    assert!(certs.status.success());
    let at = |port: u16, who: &str| {
        let address = format!("https://127.0.0.1:{port}");
        let addresses = Addresses {
            inventory: address.clone(),
            bmc_gateway: address.clone(),
            discovery: address.clone(),
            claim: address.clone(),
            maintenance: address,
        };
        Clients::new(&addresses, Some(&certificate(&tls, who))).unwrap()
    };
    let mut ports = vec![];
    let mut gateways = vec![];
    for _ in 0..2 {
        let gateway = Killable::with(|port| {
            ports.push(port);
            let mut environment = site.environment(format!("https://127.0.0.1:{port}"));
            let show = certificate(&tls, "bmc-gateway");
            for (name, file) in [
                ("CLIENT_CA", &show.ca),
                ("CERTIFICATE", show.certificate.as_ref().unwrap()),
                ("KEY", show.key.as_ref().unwrap()),
            ] {
                environment.push((format!("BMC_GATEWAY_SERVER__TLS__{name}"), file.display().to_string()));
                let name = name.trim_start_matches("CLIENT_");
                environment.push((format!("BMC_GATEWAY_GATEWAY__REPLICAS__TLS__{name}"), file.display().to_string()));
            }
            environment.push((
                "BMC_GATEWAY_GATEWAY__REPLICAS__TLS__SERVER_NAME".to_owned(),
                "bmc-gateway".to_owned(),
            ));
            (environment, at(port, "administrator"))
        });
        gateways.push(gateway.await);
    }
    let [a, b] = &gateways[..] else { unreachable!() };
    know_of(&[a, b], 2).await;
    let (fleet, config) = fleet(10, [127, 97, 1, 1], Timing::default(), false);
    let serving = served(&fleet, false);
    for machine in fleet.machines() {
        enroll(&a.clients, &machine, &config, serving.port, "http").await;
        ready(&a.clients, &name_of(&machine)).await;
    }
    let whose = owners(&[a, b], &fleet);
    let theirs = whose.iter().find(|(_, owner)| **owner == 1).map(|(name, _)| name.clone()).unwrap();
    // Every verb, asked of the one that does not have the BMC.
    for (verb, call) in VERBS {
        call(&a.clients, &theirs)
            .await
            .unwrap_or_else(|(reason, message)| panic!("{verb}: {reason}: {message}"));
        ready(&a.clients, &theirs).await;
    }
    owners(&[a, b], &fleet);
    assert!(
        b.log().contains("administrator through bmc-gateway"),
        "the log says for whom it was passed on"
    );

    // An upload that stands still holds up nobody else on the way between the gateways.
    let (parts, stream) = tokio::sync::mpsc::channel(4);
    let mut managers = a.clients.managers.clone();
    let stalled = tokio::spawn(async move { managers.push_firmware(tokio_stream::wrappers::ReceiverStream::new(stream)).await });
    let mut head: Vec<_> = futures_util::StreamExt::collect(push(&theirs, "NIC1", "30.0.0")).await;
    parts.send(head.remove(0)).await.unwrap();
    for _ in 0..100 {
        works(&a.clients, &theirs).await.unwrap();
    }
    assert!(!stalled.is_finished());
    stalled.abort();

    // Who may not, may not by way of another gateway, and nobody else may say to speak for somebody.
    let claim = at(ports[0], "claim");
    let raw = bmc::GetRawRequest {
        bmc: theirs.clone(),
        path: "/redfish/v1/AccountService".into(),
    };
    let refused = claim.managers.clone().get_raw(raw.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    for port in &ports {
        let mut request = tonic::Request::new(raw.clone());
        request
            .metadata_mut()
            .insert("ironyard-on-behalf-of", "administrator".parse().unwrap());
        let refused = at(*port, "claim").managers.clone().get_raw(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }

    // Somebody who asks a slow BMC for much waits behind themselves: another caller has their turn.
    let machine = fleet.machines()[0].clone();
    let slow = name_of(&machine);
    machine.add_rule(Rule {
        method: Some("GET".into()),
        path: "/redfish/v1/Managers".into(),
        action: Action::Latency(150),
        remaining: None,
    });
    let answered = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let ask = |clients: Clients| {
        let (slow, answered) = (slow.clone(), answered.clone());
        tokio::spawn(async move {
            works(&clients, &slow).await.unwrap();
            answered.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
        })
    };
    let before = machine.requests();
    // Through both gateways: it is one caller.
    let greedy: Vec<_> = (0..24).map(|n| ask(if n % 2 == 0 { a } else { b }.clients.clone())).collect();
    poll::until("the greedy one is being served", || async {
        (machine.requests() > before + 2).then_some(())
    })
    .await;
    let place = ask(claim.clone()).await.unwrap();
    for call in greedy {
        call.await.unwrap();
    }
    assert!(place < 12, "{place} of the greedy one's were answered first");
}
