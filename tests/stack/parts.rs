//! Parts that cannot be read, and parts that are replaced.

use std::time::Duration;

use ironyard_bmc_simulator::{Action, Rule};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::inventory::{self, ServerState};
use ironyard_testkit::poll;

use crate::world::{On, World};

async fn drives(world: &World) -> Vec<String> {
    let server = world.server("bmc-0-1").await.unwrap();
    let hardware = server.observed.and_then(|o| o.hardware).unwrap_or_default();
    let mut serials: Vec<String> = hardware.drives.into_iter().map(|d| d.serial_number).collect();
    serials.sort();
    serials
}

async fn wiped(world: &World) -> Vec<String> {
    let certificate = world.certificates("bmc-0-1").await.remove(0);
    assert!(certificate.passed);
    let mut serials: Vec<String> = certificate.drives.into_iter().map(|d| d.serial_number).collect();
    serials.sort();
    serials
}

/// A BMC that is busy in the middle of a read makes no server of half a machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_read_offers_no_server() {
    let world = World::apart(On::Sqlite, 1, InBand::Off).await.unwrap();
    world.machine(0).add_rule(Rule {
        method: Some("GET".into()),
        path: "/redfish/v1/Systems/1/Storage/1/Drives/SA".into(),
        action: Action::Status(503),
        remaining: None,
    });
    world.register().await;
    let waits = poll::until("the server waits for the rest of its hardware", || async {
        let waiting = world.server("bmc-0-1").await?.waiting_because?;
        (waiting.reason == "HARDWARE_INCOMPLETE").then_some(waiting)
    })
    .await;
    assert!(waits.message.contains("Drives"), "{waits:?}");
    let server = world.server("bmc-0-1").await.unwrap();
    assert_eq!(server.state(), ServerState::Discovery);
    assert_eq!(drives(&world).await.len(), 1, "what was read is shown");
    world.machine(0).clear_rules();
    let server = world.reaches("bmc-0-1", ServerState::Available).await;
    assert_eq!(drives(&world).await.len(), 2);
    let complete = server.conditions.iter().find(|c| c.r#type == "HardwareComplete").unwrap();
    assert_eq!(complete.status(), ironyard_proto::common::ConditionStatus::True);
}

/// What nobody can see in the end is an error with its reason, unless the site wants otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn storage_that_nobody_can_see_is_not_offered() {
    for (offer, reaches) in [(false, ServerState::Error), (true, ServerState::Available)] {
        let world = World::tuned(On::Sqlite, 1, InBand::Off, |config| {
            (config.patience, config.offer_unread_storage) = (Duration::from_secs(6), offer);
        });
        let world = world.await.unwrap();
        world.machine(0).add_rule(Rule {
            method: Some("GET".into()),
            path: "/redfish/v1/Systems/1/Storage/1/Drives/SA".into(),
            action: Action::Status(500),
            remaining: None,
        });
        world.register().await;
        let server = world.reaches("bmc-0-1", reaches).await;
        let complete = server.conditions.iter().find(|c| c.r#type == "HardwareComplete").unwrap();
        assert_eq!(complete.status(), ironyard_proto::common::ConditionStatus::False);
        if !offer {
            let message = server.failure.unwrap().message;
            assert!(message.contains("nobody has seen") && message.contains("Drives"), "{message}");
        }
    }
}

/// What cannot be tidied up after the agent is told, and undoes nothing that was reached.
#[tokio::test(flavor = "multi_thread")]
async fn tidying_up_undoes_no_discovery() {
    let world = World::apart(On::Sqlite, 1, InBand::Required).await.unwrap();
    world.machine(0).add_rule(Rule {
        method: Some("POST".into()),
        path: "/redfish/v1/Managers/BMC/VirtualMedia/CD1/Actions/VirtualMedia.EjectMedia".into(),
        action: Action::Status(500),
        remaining: None,
    });
    world.register().await;
    let server = world.reaches("bmc-0-1", ServerState::Available).await;
    assert!(server.observed.unwrap().in_band_time.is_some());
    let left = server.conditions.iter().find(|c| c.r#type == "TidiedUp").unwrap();
    assert!(left.reason == "AgentLeftBehind" && left.message.contains("ejected"), "{left:?}");
}

/// A drive that left while it was owed is named, and waived by name; the one that took its place is wiped from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_drive_stops_one_cleanup_and_no_other() {
    let world = World::with(On::Sqlite, 1, InBand::Optional).await.unwrap();
    world.claim("a").await;
    world.runs("a").await;
    let old = drives(&world).await;
    assert_eq!(old.len(), 2);
    world.machine(0).with_drive(&old[1], |drive| drive.serial = "NEW1".to_owned());
    world.release("a").await;
    let server = world.reaches("bmc-0-1", ServerState::Error).await;
    assert!(server.failure.unwrap().message.contains(&old[1]));
    let mut servers = world.clients.servers.clone();
    let waive = inventory::WaiveSanitizationRequest {
        name: "bmc-0-1".into(),
        reason: "the old drive was shredded".into(),
        actor: "Ada Lovelace".into(),
        part: 0,
    };
    servers.waive_sanitization(waive).await.unwrap();
    let resolve = inventory::ResolveServerRequest {
        name: "bmc-0-1".into(),
        reason: "a new drive is in".into(),
        actor: "op".into(),
    };
    servers.resolve_server(resolve).await.unwrap();
    world.reaches("bmc-0-1", ServerState::Available).await;
    world.claim("b").await;
    world.runs("b").await;
    let mut now = vec![old[0].clone(), "NEW1".to_owned()];
    now.sort();
    assert_eq!(drives(&world).await, now, "nobody has it before its drives are known again");
    world.release("b").await;
    world.reaches("bmc-0-1", ServerState::Available).await;
    assert_eq!(wiped(&world).await, now);
}

/// What is replaced while nobody uses the server is seen before somebody does.
#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_replaced_while_a_server_is_free_are_seen() {
    let tuned = World::tuned(On::Sqlite, 1, InBand::Off, |config| {
        (config.poll, config.hardware_refresh) = (Duration::from_secs(1), Duration::from_secs(1));
    });
    let world = tuned.await.unwrap();
    world.discovered().await;
    let old = drives(&world).await;
    world.machine(0).with_drive(&old[1], |drive| drive.serial = "NEW1".to_owned());
    let mut now = vec![old[0].clone(), "NEW1".to_owned()];
    now.sort();
    poll::until("the new drive is seen, and the old one no more", || async {
        (drives(&world).await == now).then_some(())
    })
    .await;
    world.claim("a").await;
    world.runs("a").await;
    world.release("a").await;
    world.reaches("bmc-0-1", ServerState::Available).await;
    assert_eq!(wiped(&world).await, now);
}
