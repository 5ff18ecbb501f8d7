//! Machines that were never wiped here: none is offered with what is on its drives, nor erased, before somebody said so.

use ironyard_bmc_simulator::EraseBehaviour;
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    common::{FirstWipe, Metadata},
    inventory::{self, Server, ServerState},
};
use ironyard_testkit::poll;
use ironyard_types::hardware;

use crate::{
    wipes::stays_out,
    world::{On, World},
};

const NAME: &str = "bmc-0-1";

async fn unknown(on: On, in_band: InBand) -> Option<World> {
    World::tuned(on, 1, in_band, |config| config.first_wipe = hardware::FirstWipe::Wait).await
}

/// What each drive held before anybody knew the machine.
const OLD: u8 = 0xA5;

fn scribble(world: &World) -> usize {
    let drives = world.machine(0).drives();
    for drive in &drives {
        let written = world.machine(0).with_drive(&drive.serial, |drive| {
            let block = drive.read(0).map(|_| OLD);
            drive.write(0, block);
        });
        assert_eq!(written, Some(()));
    }
    drives.len()
}

/// How many drives still hold it.
fn old_bytes(world: &World) -> usize {
    let drives = world.machine(0).drives();
    drives.iter().filter(|drive| drive.read(0).iter().all(|byte| *byte == OLD)).count()
}

async fn says(world: &World, policy: FirstWipe) {
    let request = inventory::UpdateServerRequest {
        server: Some(Server {
            metadata: Some(Metadata {
                name: NAME.to_owned(),
                ..Default::default()
            }),
            spec: Some(inventory::ServerSpec {
                first_wipe: policy.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["spec.first_wipe".to_owned()],
        }),
        request_id: String::new(),
    };
    world.clients.servers.clone().update_server(request).await.unwrap();
}

async fn waits_for_a_word(world: &World) {
    let server = poll::until("it waits for a word", || async {
        let server = world.server(NAME).await?;
        assert!(!matches!(
            server.state(),
            ServerState::Available | ServerState::Cleanup | ServerState::Reserved
        ));
        let waiting = server.waiting_because.as_ref()?;
        (waiting.reason == "NEVER_WIPED").then_some(server)
    })
    .await;
    let message = server.waiting_because.unwrap().message;
    for way in ["first-wipe wipe bmc-0-1", "first-wipe waive bmc-0-1", "lost"] {
        assert!(message.contains(way), "{message}");
    }
    assert!(
        !server.observed.unwrap().hardware.unwrap().drives.is_empty(),
        "it was read all the same"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_never_wiped_here_is_neither_offered_nor_erased_before_somebody_says_so() {
    for in_band in [InBand::Required, InBand::Off] {
        let world = unknown(On::Sqlite, in_band).await.unwrap();
        let drives = scribble(&world);
        world.register().await;
        waits_for_a_word(&world).await;
        world.claim("any").await;
        poll::until("nobody gets it", || async { world.get_claim("any").await?.waiting_because }).await;
        assert_eq!(old_bytes(&world), drives);
        world.release("any").await;
        says(&world, FirstWipe::Waive).await;
        world.reaches(NAME, ServerState::Available).await;
        assert_eq!(old_bytes(&world), drives, "it is offered as it is");
        let history = world.history(NAME).await;
        assert!(history.iter().any(|entry| entry.reason.contains("its server says")), "{history:?}");
    }
}

async fn is_wiped_first(on: On, in_band: InBand) {
    let Some(world) = unknown(on, in_band).await else { return };
    let drives = scribble(&world);
    world.register().await;
    waits_for_a_word(&world).await;
    says(&world, FirstWipe::Wipe).await;
    let server = world.reaches(NAME, ServerState::Available).await;
    assert!(server.sanitization_debt.is_none());
    assert_eq!(old_bytes(&world), 0);
    let certificates = world.certificates(NAME).await;
    let [certificate] = certificates.as_slice() else {
        panic!("{certificates:?}")
    };
    assert!(certificate.passed && certificate.drives.len() == drives, "{certificate:?}");
    assert!(certificate.claim.clone().unwrap_or_default().name.is_empty(), "no claim made it");
    // From then on it is a server like any other.
    world.claim("a").await;
    world.runs("a").await;
    world.release("a").await;
    poll::until("a second certificate", || async {
        (world.certificates(NAME).await.len() == 2).then_some(())
    })
    .await;
    world.reaches(NAME, ServerState::Available).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_never_wiped_here_is_wiped_first_where_that_is_wanted() {
    is_wiped_first(On::Sqlite, InBand::Required).await;
    is_wiped_first(On::Postgres, InBand::Off).await;
}

/// It owes from the end of its discovery on: what fails leaves it in Error, and nothing short of a named waiver offers it.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_wipe_that_fails_keeps_the_machine_out() {
    let world = unknown(On::Sqlite, InBand::Off).await.unwrap();
    world.register().await;
    waits_for_a_word(&world).await;
    world.machine(0).set_erase("SA000000B", EraseBehaviour::Lies);
    says(&world, FirstWipe::Wipe).await;
    let server = world.reaches(NAME, ServerState::Error).await;
    assert!(server.discovered && server.sanitization_debt.is_some());
    stays_out(&world).await;
    world.machine(0).set_erase("SA000000B", EraseBehaviour::Good);
    let request = inventory::RetryServerRequest {
        name: NAME.into(),
        reason: "another try".into(),
        actor: "op".into(),
    };
    world.clients.servers.clone().retry_server(request).await.unwrap();
    world.reaches(NAME, ServerState::Available).await;
    let passed: Vec<bool> = world.certificates(NAME).await.iter().map(|c| c.passed).collect();
    assert!(passed.contains(&true) && passed.contains(&false), "{passed:?}");
}
