use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    bmc,
    common::{ConditionStatus, Health, Metadata, PowerState, Reference},
    discovery,
    inventory::{self, ReclaimPolicy, ServerState},
    maintenance::{self, ServerMaintenance, ServerMaintenanceSpec},
};
use ironyard_testkit::poll;

use crate::world::{On, World};

async fn whole_life(on: On) {
    let Some(world) = World::with(on, 2, InBand::Required).await else {
        return;
    };
    let server = world.server("bmc-0-1").await.unwrap();
    let hardware = server.observed.clone().unwrap().hardware.unwrap();
    assert_eq!(
        (
            hardware.processors.len(),
            hardware.memory_mib,
            hardware.drives.len(),
            hardware.network_interfaces.len()
        ),
        (2, 131_072, 2, 2)
    );
    assert!(
        hardware.drives.iter().all(|d| !d.device.is_empty() && !d.uri.is_empty()),
        "seen from both sides"
    );
    assert!(
        hardware.network_interfaces.iter().all(|n| !n.neighbors.is_empty()),
        "neighbours come from inside"
    );

    world.claim("a").await;
    let name = world.runs("a").await;
    let reserved = world.server(&name).await.unwrap();
    assert!(reserved.sanitization_debt.is_some(), "a reserved server owes a wipe");
    let machine = world
        .fleet
        .machines()
        .into_iter()
        .find(|m| name == format!("bmc-{}-1", m.config.number))
        .unwrap();
    for drive in machine.drives() {
        machine.with_drive(&drive.serial, |d| d.write(77, [1; 512]));
    }
    world.release("a").await;
    poll::until("the server is wiped", || async {
        (!world.certificates(&name).await.is_empty()).then_some(())
    })
    .await;
    let server = world.reaches(&name, ServerState::Available).await;
    assert!(server.sanitization_debt.is_none() && server.claim_ref.is_none());
    let certificate = world.certificates(&name).await.remove(0);
    assert!(certificate.passed && certificate.drives.len() == 2, "{certificate:?}");
    assert!(machine.drives().iter().all(|d| d.read(77) != [1; 512]), "nothing survives");
    assert!(
        machine.writes().iter().filter(|w| !w.path.contains("Session")).all(|w| w.effect),
        "no write was repeated: {:?}",
        machine.writes()
    );
    let settings = machine.settings();
    assert_eq!(
        (settings["image"].is_null(), settings["power"].as_str()),
        (true, Some("Off")),
        "left tidy"
    );
    let states: Vec<_> = world
        .history(&name)
        .await
        .iter()
        .map(|e| e.to().as_str_name().trim_start_matches("SERVER_STATE_").to_owned())
        .collect();
    assert_eq!(states, ["INITIAL", "DISCOVERY", "AVAILABLE", "RESERVED", "CLEANUP", "AVAILABLE"]);
    world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_life_on_sqlite() {
    whole_life(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_life_on_postgres() {
    whole_life(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_server_is_kept_until_it_is_let_go() {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    let name = "bmc-0-1";
    let set = async |policy: ReclaimPolicy| {
        let mut server = world.server(name).await.unwrap();
        server.spec.as_mut().unwrap().reclaim_policy = policy.into();
        // Whatever version there is: the policy is the operator's to set.
        server.metadata.as_mut().unwrap().etag.clear();
        let request = inventory::UpdateServerRequest {
            server: Some(server),
            ..Default::default()
        };
        world.clients.servers.clone().update_server(request).await.unwrap();
    };
    world.claim("a").await;
    world.runs("a").await;
    // Set after the reservation, it holds as long as it is set.
    set(ReclaimPolicy::Retain).await;
    world.release("a").await;
    poll::until("it says that it is retained", || async {
        world.server(name).await?.waiting_because.filter(|w| w.reason == "RETAINED")
    })
    .await;
    assert!(world.machine(0).drives().iter().all(|d| d.read(1) != [0; 512]), "not wiped");
    set(ReclaimPolicy::Recycle).await;
    world.reaches(name, ServerState::Available).await;
    assert!(world.certificates(name).await[0].passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_behind_our_back_reaches_the_server() {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    let machine = world.machine(0);
    let seen = |health: Health, power: PowerState| {
        let world = &world;
        async move {
            poll::until(&format!("the server is {health:?} and {power:?}"), || async {
                let observed = world.server("bmc-0-1").await?.observed?;
                (observed.health() == health && observed.power_state() == power).then_some(())
            })
            .await;
        }
    };
    for (healthy, health) in [(false, Health::Critical), (true, Health::Ok)] {
        let (reset, power) = match machine.power() {
            ironyard_types::hardware::PowerState::On => ("ForceOff", PowerState::Off),
            _ => ("On", PowerState::On),
        };
        machine.set_knobs(ironyard_bmc_simulator::Knobs {
            healthy: Some(healthy),
            ..Default::default()
        });
        crate::events::somebody_switches(&machine, &world.fleet_config, world.port, reset).await;
        seen(health, power).await;
    }
    // One that is gone is told as well.
    machine.set_knobs(ironyard_bmc_simulator::Knobs {
        gone: Some(true),
        ..Default::default()
    });
    poll::until("its BMC does not answer", || async {
        let server = world.server("bmc-0-1").await?;
        let told = server
            .conditions
            .iter()
            .any(|c| c.r#type == "BmcReachable" && c.status() == ConditionStatus::False);
        told.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_operating_system_does_not_keep_a_server() {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    world.claim("a").await;
    world.runs("a").await;
    world.machine(0).set_knobs(ironyard_bmc_simulator::Knobs {
        hung_os: Some(true),
        ..Default::default()
    });
    let mut spec = world.get_claim("a").await.unwrap();
    spec.spec.as_mut().unwrap().power = PowerState::Off.into();
    spec.metadata.as_mut().unwrap().etag.clear();
    // The gateway's own patience for a graceful shutdown is three seconds here; claims give two minutes.
    let system = ironyard_proto::bmc::SystemName {
        bmc: "bmc-0".into(),
        system_id: String::new(),
        ..Default::default()
    };
    let request = ironyard_proto::bmc::SetPowerRequest {
        system: Some(system),
        action: ironyard_proto::bmc::PowerAction::GracefulOff.into(),
        graceful_timeout_seconds: 1,
        request_id: String::new(),
    };
    let operation = world.clients.systems.clone().set_power(request).await.unwrap().into_inner();
    let done = poll::until("the power is cut", || async {
        let request = ironyard_proto::bmc::WaitOperationRequest {
            name: operation.name.clone(),
        };
        let seen = world.clients.operations.clone().wait_operation(request).await.ok()?.into_inner();
        seen.done.then_some(seen)
    })
    .await;
    assert!(done.error.is_none(), "{done:?}");
    let resets: Vec<_> = world
        .machine(0)
        .writes()
        .into_iter()
        .filter(|w| w.path.ends_with("Reset"))
        .map(|w| w.body)
        .collect();
    assert_eq!(resets.last().unwrap()["ResetType"], "ForceOff");
    world.release("a").await;
    world.reaches("bmc-0-1", ServerState::Available).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_holds_a_server_and_lets_it_go() {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    let maintenance = ServerMaintenance {
        metadata: Some(Metadata {
            name: "fan".into(),
            ..Default::default()
        }),
        spec: Some(ServerMaintenanceSpec {
            server_ref: Some(Reference {
                name: "bmc-0-1".into(),
                uid: String::new(),
            }),
            reason: "replace a fan".into(),
            power: PowerState::Off.into(),
            locator_led: true,
        }),
        ..Default::default()
    };
    let request = maintenance::CreateServerMaintenanceRequest {
        server_maintenance: Some(maintenance),
        request_id: "once".into(),
    };
    let mut client = world.clients.maintenances.clone();
    let first = client.create_server_maintenance(request.clone()).await.unwrap().into_inner();
    let again = client.create_server_maintenance(request).await.unwrap().into_inner();
    assert_eq!(first.metadata, again.metadata, "the same request has the same answer");
    world.reaches("bmc-0-1", ServerState::Maintenance).await;
    poll::until("the LED shines", || async {
        (world.machine(0).settings()["led"] == true).then_some(())
    })
    .await;
    let spec = ironyard_proto::claim::ServerClaimSpec::default();
    world.try_claim("a", spec).await.unwrap();
    poll::until("the claim says why it waits", || async {
        world
            .get_claim("a")
            .await?
            .waiting_because
            .filter(|w| w.message.contains("Maintenance"))
    })
    .await;
    let request = maintenance::DeleteServerMaintenanceRequest {
        name: "fan".into(),
        etag: String::new(),
    };
    client.delete_server_maintenance(request).await.unwrap();
    world.reaches("bmc-0-1", ServerState::Reserved).await;
    assert_eq!(world.machine(0).settings()["led"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_is_known_by_its_mac_address_alone() {
    let world = World::apart(On::Sqlite, 2, InBand::Off).await.unwrap();
    crate::gateway::set_credential(&world.clients, "fleet", &world.fleet_config).await;
    let message = |port: i32| bmc::Bmc {
        metadata: Some(Metadata {
            name: "by-mac".into(),
            ..Default::default()
        }),
        spec: Some(bmc::BmcSpec {
            mac_address: "00-1A-2B-3C-4D-5E".into(),
            credential: "fleet".into(),
            scheme: "http".into(),
            port,
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = bmc::CreateBmcRequest {
        bmc: Some(message(world.port.into())),
        request_id: String::new(),
    };
    world.clients.bmcs.clone().create_bmc(request).await.unwrap();
    let waits = poll::until("it says what it waits for", || async {
        let bmc = crate::gateway::get_bmc(&world.clients, "by-mac").await?;
        bmc.conditions.into_iter().find(|c| c.r#type == "Ready")
    })
    .await;
    assert_eq!((waits.reason.as_str(), waits.status()), ("BMC_NOT_READY", ConditionStatus::False));
    assert!(waits.message.contains("00:1a:2b:3c:4d:5e"), "{}", waits.message);
    // Its endpoint shows up, and moves later.
    for n in [0, 1] {
        let endpoint = discovery::Endpoint {
            metadata: Some(Metadata {
                name: "rack-1".into(),
                ..Default::default()
            }),
            spec: Some(discovery::EndpointSpec {
                mac_address: "00:1a:2b:3c:4d:5e".into(),
                ip: world.machine(n).address().to_string(),
            }),
            ..Default::default()
        };
        let mut endpoints = world.clients.endpoints.clone();
        if n == 0 {
            let request = discovery::CreateEndpointRequest {
                endpoint: Some(endpoint),
                request_id: String::new(),
            };
            endpoints.create_endpoint(request).await.unwrap();
        } else {
            let request = discovery::UpdateEndpointRequest {
                endpoint: Some(endpoint),
                update_mask: None,
                request_id: String::new(),
            };
            endpoints.update_endpoint(request).await.unwrap();
        }
        let serial = world.machine(n).config.serial();
        poll::until(&format!("it stands at machine {n}"), || async {
            let bmc = crate::gateway::get_bmc(&world.clients, "by-mac")
                .await
                .filter(crate::gateway::is_ready)?;
            (bmc.observed?.serial_number == serial).then_some(())
        })
        .await;
        // A document that only names the MAC address, applied again, leaves the address that was found.
        let request = bmc::UpdateBmcRequest {
            bmc: Some(message(world.port.into())),
            update_mask: None,
            request_id: String::new(),
        };
        let updated = world.clients.bmcs.clone().update_bmc(request).await.unwrap().into_inner();
        assert_eq!(updated.spec.unwrap().address, world.machine(n).address().to_string());
        if n == 0 {
            world.reaches("by-mac-1", ServerState::Available).await;
        }
    }
}

/// BIOS settings that cannot be had are said: on the server, in its conditions, and nothing claims that it is as wanted.
#[tokio::test(flavor = "multi_thread")]
async fn bios_settings_that_cannot_be_had_are_said() {
    let Some(world) = World::with(On::Sqlite, 1, InBand::Off).await else {
        return;
    };
    let name = "bmc-0-1";
    let want = async |version: &str, attribute: &str| {
        let mut server = world.server(name).await.unwrap();
        // Whatever version there is: the mask names the one field that changes.
        server.metadata.as_mut().unwrap().etag.clear();
        let settings = inventory::BiosSettings {
            version: version.to_owned(),
            settings: [(attribute.to_owned(), "Enabled".to_owned())].into(),
        };
        server.spec.as_mut().unwrap().bios = vec![settings];
        let request = inventory::UpdateServerRequest {
            server: Some(server),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["spec.bios".to_owned()],
            }),
            request_id: String::new(),
        };
        world.clients.servers.clone().update_server(request).await
    };
    let says = async |reason: &str, words: &str| {
        poll::until(&format!("the server says {reason}"), || async {
            let server = world.server(name).await?;
            let wanted = server.conditions.iter().find(|c| c.r#type == "AsWanted")?;
            let waits = server.waiting_because.as_ref()?;
            let told = waits.reason == "BIOS_NOT_AS_WANTED" && waits.message.contains(words);
            (told && wanted.status() == ConditionStatus::False && wanted.reason == reason).then_some(())
        })
        .await;
    };
    want("0.0.1", "Virtualization").await.unwrap();
    says("VersionDiffers", "no settings are given for it").await;
    want("", "NoSuchThing").await.unwrap();
    says("UnknownAttribute", "NoSuchThing").await;
    want("", "Virtualization").await.unwrap();
    poll::until("the server is as wanted, and waits for nothing", || async {
        let server = world.server(name).await?;
        let wanted = server.conditions.iter().find(|c| c.r#type == "AsWanted")?;
        (wanted.status() == ConditionStatus::True && server.waiting_because.is_none() && server.state() == ServerState::Available)
            .then_some(())
    })
    .await;
}

/// The power that the spec of a free server wants is given to it out of the pool, so that it cannot meet a claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_free_server_is_switched_in_a_maintenance() {
    let Some(world) = World::with(On::Sqlite, 1, InBand::Off).await else {
        return;
    };
    let name = "bmc-0-1";
    for (switched, wanted, power) in [(1, PowerState::On, "On"), (2, PowerState::Off, "Off")] {
        let request = inventory::UpdateServerRequest {
            server: Some(inventory::Server {
                metadata: Some(Metadata {
                    name: name.to_owned(),
                    ..Default::default()
                }),
                spec: Some(inventory::ServerSpec {
                    power: wanted.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["spec.power".to_owned()],
            }),
            request_id: String::new(),
        };
        world.clients.servers.clone().update_server(request).await.unwrap();
        let entries = async || {
            let request = inventory::ListServerHistoryRequest { name: name.to_owned() };
            let history = world
                .clients
                .servers
                .clone()
                .list_server_history(request)
                .await
                .unwrap()
                .into_inner();
            let seen = history
                .entries
                .into_iter()
                .filter(|entry| entry.reason.contains("as its spec wants it"));
            seen.count()
        };
        ironyard_testkit::poll::until(&format!("{name} is {power}"), || async {
            let server = world.server(name).await?;
            let rests = server.state() == ServerState::Available && server.maintenance_ref.is_none();
            (rests && world.machine(0).power().to_string() == power && entries().await == switched).then_some(())
        })
        .await;
    }
}
