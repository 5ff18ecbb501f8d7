//! Machines that run when they are discovered: nothing is written to one before somebody has said what is to become of it.

use ironyard_bmc_simulator::{Action, Machine, Rule};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    claim::{ClaimPhase, ServerClaimSpec},
    common::{Metadata, Reference, RunningMachines},
    inventory::{self, Server, ServerState},
};
use ironyard_testkit::poll;
use ironyard_types::hardware;

use crate::{
    events::somebody_switches,
    world::{On, World},
};

const NAME: &str = "bmc-0-1";

/// A machine that runs before anybody knows it, as it is once it has been found.
async fn found_running(on: On, in_band: InBand, running: hardware::RunningMachines) -> Option<World> {
    let world = World::tuned(on, 1, in_band, |config| config.running_machines = running).await?;
    somebody_switches(&world.machine(0), &world.fleet_config, world.port, "On").await;
    poll::until("it runs", || async {
        (world.machine(0).power() == hardware::PowerState::On).then_some(())
    })
    .await;
    world.register().await;
    Some(world)
}

/// What was written to a machine since it was switched on by hand, logins aside.
fn written(machine: &Machine) -> Vec<String> {
    let writes = machine.writes().into_iter();
    let writes = writes.filter(|w| !w.path.contains("/SessionService/") && !w.path.contains("/EventService/"));
    let writes: Vec<String> = writes.map(|w| format!("{} {} {}", w.method, w.path, w.body)).collect();
    writes.into_iter().filter(|w| !w.contains("\"On\"")).collect()
}

async fn waits(world: &World, reason: &str) -> Server {
    poll::until(&format!("{NAME} waits: {reason}"), || async {
        let server = world.server(NAME).await?;
        assert!(
            matches!(server.state(), ServerState::Initial | ServerState::Discovery),
            "{:?}",
            server.state()
        );
        let waiting = server.waiting_because.as_ref()?;
        (waiting.reason == reason).then_some(server)
    })
    .await
}

fn adopting() -> ServerClaimSpec {
    ServerClaimSpec {
        server_ref: Some(Reference {
            name: NAME.to_owned(),
            uid: String::new(),
        }),
        adopt: true,
        ..Default::default()
    }
}

async fn bound(world: &World, claim: &str) {
    poll::until(&format!("claim {claim} is bound"), || async {
        let claim = world.get_claim(claim).await?;
        (claim.phase() == ClaimPhase::Bound).then_some(())
    })
    .await;
}

/// With the agent or without: a machine that runs is read, and left alone, until it is off.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_runs_is_left_alone_until_it_is_off() {
    for in_band in [InBand::Optional, InBand::Off] {
        let world = found_running(On::Sqlite, in_band, hardware::RunningMachines::Wait).await.unwrap();
        let server = waits(&world, "MACHINE_RUNS").await;
        let message = server.waiting_because.unwrap().message;
        for way in ["switch it off", "ironyard adopt bmc-0-1", "powerOff"] {
            assert!(message.contains(way), "{message}");
        }
        // It was read from outside all the same.
        let hardware = server.observed.unwrap().hardware.unwrap();
        assert!(!hardware.drives.is_empty() && !hardware.processors.is_empty());
        // Nobody gets it, whatever they ask for.
        world.claim("any").await;
        let named = ServerClaimSpec {
            adopt: false,
            ..adopting()
        };
        world.try_claim("named", named).await.unwrap();
        poll::until("both wait", || async {
            let claims = [world.get_claim("any").await?, world.get_claim("named").await?];
            claims.iter().all(|claim| claim.waiting_because.is_some()).then_some(())
        })
        .await;
        assert_eq!(written(&world.machine(0)), Vec::<String>::new());
        assert_eq!(world.machine(0).power(), hardware::PowerState::On);
        // Its owner switches it off: that is all that was waited for.
        for claim in ["any", "named"] {
            world.release(claim).await;
        }
        somebody_switches(&world.machine(0), &world.fleet_config, world.port, "ForceOff").await;
        world.reaches(NAME, ServerState::Available).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_switched_off_where_that_was_asked_for() {
    let world = found_running(On::Sqlite, InBand::Required, hardware::RunningMachines::Wait)
        .await
        .unwrap();
    waits(&world, "MACHINE_RUNS").await;
    let request = inventory::UpdateServerRequest {
        server: Some(Server {
            metadata: Some(Metadata {
                name: NAME.to_owned(),
                ..Default::default()
            }),
            spec: Some(inventory::ServerSpec {
                running_machines: RunningMachines::PowerOff.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["spec.running_machines".to_owned()],
        }),
        request_id: String::new(),
    };
    world.clients.servers.clone().update_server(request).await.unwrap();
    world.reaches(NAME, ServerState::Available).await;
    let writes = written(&world.machine(0));
    assert!(writes[0].contains("GracefulShutdown"), "gracefully first: {writes:?}");
}

/// Without the agent, too, nothing is offered that runs: where that was asked for, it is switched off first.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_to_be_switched_off_is_off_before_it_is_offered() {
    let world = found_running(On::Sqlite, InBand::Off, hardware::RunningMachines::PowerOff)
        .await
        .unwrap();
    world.reaches(NAME, ServerState::Available).await;
    assert_eq!(world.machine(0).power(), hardware::PowerState::Off);
    let writes = written(&world.machine(0));
    assert!(writes[0].contains("GracefulShutdown"), "gracefully first: {writes:?}");
}

/// Somebody switches a machine on while its discovery inserts the medium: it is theirs, and is neither rebooted nor switched off.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_switched_on_in_between_is_left_alone() {
    let world = World::apart(On::Sqlite, 1, InBand::Optional).await.unwrap();
    let machine = world.machine(0);
    machine.add_rule(Rule {
        method: Some("POST".to_owned()),
        path: "/redfish/v1/Managers/".to_owned(),
        action: Action::LatencyAfter(2000),
        remaining: Some(1),
    });
    world.register().await;
    let inserted = || machine.settings()["image"].as_str().is_some_and(|image| !image.is_empty());
    poll::until("the medium is inserted, and the BMC has yet to say so", || async {
        inserted().then_some(())
    })
    .await;
    somebody_switches(&machine, &world.fleet_config, world.port, "On").await;
    waits(&world, "MACHINE_RUNS").await;
    assert_eq!(machine.power(), hardware::PowerState::On);
    let resets = written(&machine).into_iter().filter(|w| w.contains("ComputerSystem.Reset"));
    assert_eq!(resets.collect::<Vec<_>>(), Vec::<String>::new());
    // Nor is the medium left in it.
    assert_eq!(machine.settings()["image"].as_str().unwrap_or_default(), "");
    somebody_switches(&machine, &world.fleet_config, world.port, "ForceOff").await;
    world.reaches(NAME, ServerState::Available).await;
}

async fn adopted_as_it_runs(on: On) {
    let Some(world) = found_running(on, InBand::Optional, hardware::RunningMachines::Wait).await else {
        return;
    };
    waits(&world, "MACHINE_RUNS").await;
    world.try_claim("mine", adopting()).await.unwrap();
    bound(&world, "mine").await;
    let server = world.reaches(NAME, ServerState::Reserved).await;
    let debt = server.sanitization_debt.clone().unwrap();
    assert_eq!(debt.claim_ref.unwrap().name, "mine");
    assert_eq!(
        debt.drive_serial_numbers.len(),
        server.observed.unwrap().hardware.unwrap().drives.len()
    );
    assert_eq!(written(&world.machine(0)), Vec::<String>::new());
    assert_eq!(world.machine(0).power(), hardware::PowerState::On);
    // Another cannot have it.
    world.try_claim("other", adopting()).await.unwrap();
    poll::until("the other waits", || async {
        world.get_claim("other").await?.waiting_because.map(drop)
    })
    .await;
    world.release("other").await;
    // Given back, it is wiped like any other.
    let drives = world.machine(0).drives().len();
    world.release("mine").await;
    world.reaches(NAME, ServerState::Available).await;
    let certificates = world.certificates(NAME).await;
    assert_eq!(certificates.len(), 1);
    assert!(certificates[0].passed && certificates[0].drives.len() == drives, "{certificates:?}");
    let history = inventory::ListServerHistoryRequest { name: NAME.to_owned() };
    let history = world
        .clients
        .servers
        .clone()
        .list_server_history(history)
        .await
        .unwrap()
        .into_inner();
    let moves: Vec<_> = history.entries.iter().map(|entry| entry.event.as_str()).collect();
    assert!(moves.contains(&"Adopt") && !moves.contains(&"DiscoveryDone"), "{moves:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_adopted_as_it_runs_on_sqlite() {
    adopted_as_it_runs(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_adopted_as_it_runs_on_postgres() {
    adopted_as_it_runs(On::Postgres).await;
}

/// Where the site says so, a claim named like the server takes it by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_may_adopt_whatever_runs() {
    let world = found_running(On::Sqlite, InBand::Optional, hardware::RunningMachines::Adopt)
        .await
        .unwrap();
    bound(&world, NAME).await;
    world.reaches(NAME, ServerState::Reserved).await;
    assert_eq!(written(&world.machine(0)), Vec::<String>::new());
    assert_eq!(world.machine(0).power(), hardware::PowerState::On);
}

/// A server that is not known to run, or is in another state, is not to be had this way.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_machine_that_was_found_running_is_adopted() {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    world.try_claim("mine", adopting()).await.unwrap();
    let waiting = poll::until("the claim says why", || async { world.get_claim("mine").await?.waiting_because }).await;
    assert!(waiting.message.contains("no machine that was found running"), "{}", waiting.message);
    let nameless = ServerClaimSpec {
        server_ref: None,
        ..adopting()
    };
    let refused = world.try_claim("nameless", nameless).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}
