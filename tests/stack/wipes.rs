use std::collections::{BTreeMap, BTreeSet};

use ironyard_bmc_simulator::{Action, EraseBehaviour, Rule};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    bmc, claim,
    discovery::{self, agent_run_service_client::AgentRunServiceClient, agent_service_client::AgentServiceClient},
    inventory::{self, ReclaimPolicy, SanitizationPart, Server, ServerState},
};
use ironyard_testkit::poll;

use crate::{
    checkers::evidence::objections,
    world::{On, World},
};

/// Claims the only server, does something to the machine, gives it back, and sees it fail.
async fn fails(break_it: impl FnOnce(&World)) -> (World, Server) {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    world.claim("a").await;
    world.runs("a").await;
    break_it(&world);
    world.release("a").await;
    let server = world.reaches("bmc-0-1", ServerState::Error).await;
    assert!(server.sanitization_debt.is_some(), "it still owes a wipe");
    assert!(
        world.certificates("bmc-0-1").await.iter().all(|c| !c.passed),
        "no certificate passes"
    );
    (world, server)
}

fn message(server: &Server) -> String {
    server.failure.clone().unwrap().message
}

/// Nothing that an operator can do, short of a named waiver, makes it Available.
pub async fn stays_out(world: &World) {
    let mut servers = world.clients.servers.clone();
    let request = inventory::ResolveServerRequest {
        name: "bmc-0-1".into(),
        reason: "looks fine".into(),
        actor: "op".into(),
    };
    let refused = servers.resolve_server(request).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "SANITIZATION_OWED");
    let request = inventory::DeleteServerRequest {
        name: "bmc-0-1".into(),
        etag: String::new(),
    };
    let refused = servers.delete_server(request).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "SANITIZATION_OWED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_lies_is_found_out() {
    for serial in ["NV000000A", "SA000000B"] {
        let (world, server) = fails(|world| world.machine(0).set_erase(serial, EraseBehaviour::Lies)).await;
        assert!(message(&server).contains(serial), "{}", message(&server));
        stays_out(&world).await;
    }
}

/// A drive whose key is said to be changed, and that shows what a tenant left.
#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_restores_every_old_byte_is_found_out() {
    let (world, server) = fails(|world| {
        let machine = world.machine(0);
        machine.with_drive("NV000000A", |drive| drive.sanitization = vec!["CryptographicErase".to_owned()]);
        machine.set_erase("NV000000A", EraseBehaviour::Restores);
    })
    .await;
    assert!(message(&server).contains("what it held before the erase"), "{}", message(&server));
    stays_out(&world).await;
}

/// Storage that nobody can look at is not passed over in silence.
#[tokio::test(flavor = "multi_thread")]
async fn storage_that_the_agent_cannot_reach_refuses_the_wipe() {
    let hide = |hidden: bool| ironyard_bmc_simulator::Knobs {
        storage_without_driver: Some(hidden),
        ..Default::default()
    };
    let (world, server) = fails(|world| world.machine(0).set_knobs(hide(true))).await;
    let failure = server.failure.unwrap();
    assert_eq!(failure.reason, "STORAGE_UNREACHABLE");
    assert!(failure.message.contains("0000:00:17.0"), "{}", failure.message);
    stays_out(&world).await;
    world.machine(0).set_knobs(hide(false));
    retry(&world).await;
    world.reaches("bmc-0-1", ServerState::Available).await;
}

async fn retry(world: &World) {
    let request = inventory::RetryServerRequest {
        name: "bmc-0-1".into(),
        reason: "mended".into(),
        actor: "op".into(),
    };
    world.clients.servers.clone().retry_server(request).await.unwrap();
}

/// What a certificate rests on is kept, place by place, and no two wipes look at the same places.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_certificate_rests_on_is_kept() {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    let mut earlier: Vec<claim::SanitizationEvidence> = Vec::new();
    for name in ["a", "b"] {
        world.claim(name).await;
        world.runs(name).await;
        world.release(name).await;
        world.reaches("bmc-0-1", ServerState::Available).await;
        let certificate = world.certificates("bmc-0-1").await.remove(0);
        assert!(certificate.passed);
        let request = claim::GetEvidenceRequest {
            name: certificate.name.clone(),
        };
        let evidence = world.clients.sanitization.clone().get_evidence(request).await.unwrap().into_inner();
        assert_eq!(evidence.server, "bmc-0-1");
        assert_ne!(evidence.seed, evidence.fresh_seed);
        for drive in &certificate.drives {
            assert!(drive.evidence.contains(&"SampledByAgent".to_owned()), "{drive:?}");
            let read = evidence.drives.iter().find(|d| d.serial_number == drive.serial_number).unwrap();
            let blocks = |samples: &[claim::PlaceSample]| samples.iter().map(|s| s.block).collect::<BTreeSet<_>>();
            let (before, after) = (blocks(&read.before), blocks(&read.after));
            assert!(
                before.len() > 200 && before.is_subset(&after) && after.len() > before.len() + 50,
                "{drive:?}"
            );
            assert!(before.contains(&0) && before.contains(&(drive.capacity_bytes / 512 - 1)));
            assert_eq!(drive.places_read, i64::try_from(after.len()).unwrap());
            assert_eq!(drive.places_blank + drive.places_changed, drive.places_read, "{drive:?}");
            let then: BTreeMap<i64, &str> = read.before.iter().map(|s| (s.block, s.digest.as_str())).collect();
            let blank = blank();
            let kept = read.after.iter().filter(|s| then.get(&s.block) == Some(&s.digest.as_str()));
            assert!(kept.clone().all(|s| blank.contains(&s.digest)), "{:?}", kept.collect::<Vec<_>>());
        }
        if let Some(objections) = objections(&certificate, &evidence, &earlier) {
            assert_eq!(objections, "", "{name}");
        }
        // It would object to a place that still holds something, and to a wipe that was written down twice.
        let mut lying = evidence.clone();
        lying.drives[0].after[20].digest = "0123456789abcdef".to_owned();
        for (certificate, evidence, earlier) in [(&certificate, &lying, vec![]), (&certificate, &evidence, vec![evidence.clone()])] {
            let said = objections(certificate, evidence, &earlier);
            assert!(said.is_none_or(|said| !said.is_empty()));
        }
        earlier.push(evidence);
    }
    let same = blocks_of(&earlier[0]).intersection(&blocks_of(&earlier[1])).count();
    assert!(same < earlier[0].drives[0].before.len() / 5, "{same} places are the same");
}

fn blocks_of(evidence: &claim::SanitizationEvidence) -> BTreeSet<i64> {
    evidence.drives[0].before.iter().map(|s| s.block).collect()
}

fn stick(world: &World, on: bool) {
    world.machine(0).set_knobs(ironyard_bmc_simulator::Knobs {
        tasks_stick: Some(on),
        ..Default::default()
    });
}

/// A server in Cleanup whose BMC erases its drives and does not come to an end.
async fn erasing_for_ever() -> World {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    world.claim("a").await;
    world.runs("a").await;
    stick(&world, true);
    world.release("a").await;
    poll::until("the drives are being erased", || async {
        let waiting = world.server("bmc-0-1").await?.waiting_because?;
        (waiting.reason == "ERASING").then_some(())
    })
    .await;
    world
}

/// An HTTP request for a path at an address, from another address on loopback; the answer.
async fn get(url: &str, from: [u8; 4]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Who reads what a BMC shows cannot speak for the machine; who has the token all the same ends the run, and nothing passes.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_agent_speaks_for_a_machine() {
    let world = erasing_for_ever().await;
    let request = bmc::GetSystemRequest {
        system: Some(bmc::SystemName {
            bmc: "bmc-0".into(),
            ..Default::default()
        }),
    };
    let shown = world.clients.systems.clone().get_system(request).await.unwrap().into_inner();
    let image = shown.inserted_image;
    assert!(image.contains("/agent/"), "{image}");
    // Another than the BMC gets nothing, and the BMC nothing any more that opens anything.
    let refused = get(&image, [127, 90, 0, 77]).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let mine = get(&image, [127, 90, 0, 1]).await;
    assert!(mine.starts_with("HTTP/1.1 200") && !mine.contains("discovery"), "{mine}");
    let missing = get(&image.replace("/agent/", "/agent/0"), [127, 90, 0, 1]).await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");

    let channel = ironyard_rpc::Channel::new(&world.stack.address, None).unwrap();
    // Which of it was fetched and what was refused stands in the run.
    let runs = AgentRunServiceClient::new(channel.clone());
    let name = current_run(&world).await["metadata"]["name"].as_str().unwrap().to_owned();
    let delivery = poll::until("both requests are in the run", || async {
        let request = discovery::GetAgentRunRequest { name: name.clone() };
        let run = runs.clone().get_agent_run(request).await.ok()?.into_inner();
        run.delivery.filter(|d| d.refused_requests > 0)
    })
    .await;
    assert_eq!((delivery.refused_requests, delivery.refused_address.as_str()), (1, "127.90.0.77"));
    assert!(delivery.sent_bytes > 0 && delivery.first_fetch_time.is_some(), "{delivery:?}");
    let mut agent = AgentServiceClient::new(channel);
    let mut report = async |token: &str| {
        let hardware = world.server("bmc-0-1").await.unwrap().observed.unwrap().hardware;
        let request = discovery::ReportRequest {
            token: token.to_owned(),
            session: "0123456789abcdef0123456789abcdef".to_owned(),
            hardware,
        };
        let refused = agent.report(request).await.unwrap_err();
        assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "AGENT_TOKEN_REFUSED", "{refused:?}");
        refused.message().to_owned()
    };
    let id = image.rsplit_once('/').unwrap().1.trim_end_matches(".iso");
    report(id).await;
    // Somebody has the token nevertheless, from memory or from a record.
    let token = token_of_run(&world).await;
    assert!(!image.contains(&token) && !mine.contains(&token));
    assert!(report(&token).await.contains("two agents"));
    // The machine is not switched off under an erase that goes on; a person ends that.
    let mut operations = world.clients.operations.clone();
    let request = bmc::ListOperationsRequest {
        running_only: true,
        ..Default::default()
    };
    let running = operations.list_operations(request).await.unwrap().into_inner().operations;
    for erase in running.into_iter().filter(|o| o.verb == "EraseDrive") {
        let request = bmc::CancelOperationRequest {
            name: erase.name,
            reason: "it hangs".into(),
        };
        operations.cancel_operation(request).await.unwrap();
    }
    let server = world.reaches("bmc-0-1", ServerState::Error).await;
    assert!(server.sanitization_debt.is_some());
    assert!(world.certificates("bmc-0-1").await.iter().all(|c| !c.passed));
    stays_out(&world).await;
    stick(&world, false);
    retry(&world).await;
    world.reaches("bmc-0-1", ServerState::Available).await;
}

async fn token_of_run(world: &World) -> String {
    current_run(world).await["token"].as_str().unwrap().to_owned()
}

/// The only run that has not ended, as it is stored.
async fn current_run(world: &World) -> serde_json::Value {
    sqlx::any::install_default_drivers();
    let (url, prefix) = world.database("discovery");
    let pool = sqlx::any::AnyPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    let sql = format!("select body from {prefix}agent_run where ended = 'false'");
    let body: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap();
    serde_json::from_str(&body).unwrap()
}

/// Digests of 512 zeros and 512 ones; known from outside: `head -c 512 /dev/zero | sha256sum`.
fn blank() -> [String; 2] {
    let zeros = "076a27c79e5ace2a3d47f9dd2e83e4ff6ea8872b3c2218f66c92b89b55f36560";
    let ones = "9f56cda75fefeab90f6fa5d5ddc9601544b121732c5ecccab32e631060453a5d";
    [zeros, ones].map(|hash| hash[..16].to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_fails_is_named() {
    let (world, server) = fails(|world| world.machine(0).set_erase("NV000000A", EraseBehaviour::Fails)).await;
    assert!(message(&server).contains("NV000000A"), "{}", message(&server));
    stays_out(&world).await;
    // Mended and tried again, it is wiped by a run of its own.
    world.machine(0).set_erase("NV000000A", EraseBehaviour::Good);
    let request = inventory::RetryServerRequest {
        name: "bmc-0-1".into(),
        reason: "drive replaced".into(),
        actor: "op".into(),
    };
    world.clients.servers.clone().retry_server(request).await.unwrap();
    world.reaches("bmc-0-1", ServerState::Available).await;
    let certificates = world.certificates("bmc-0-1").await;
    assert_eq!(certificates.iter().map(|c| c.passed).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_is_missing_is_named() {
    let (world, server) = fails(|world| world.machine(0).set_present("SA000000B", false)).await;
    assert!(message(&server).contains("SA000000B"), "{}", message(&server));
    stays_out(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiver_is_named_and_on_record() {
    let (world, _) = fails(|world| world.machine(0).set_erase("NV000000A", EraseBehaviour::Fails)).await;
    let mut servers = world.clients.servers.clone();
    let waive = |actor: &str| inventory::WaiveSanitizationRequest {
        name: "bmc-0-1".into(),
        reason: "drive shredded".into(),
        actor: actor.into(),
        part: 0,
    };
    assert_eq!(
        servers.waive_sanitization(waive("")).await.unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
    servers.waive_sanitization(waive("Ada Lovelace")).await.unwrap();
    let request = inventory::ResolveServerRequest {
        name: "bmc-0-1".into(),
        reason: "new drive".into(),
        actor: "Ada Lovelace".into(),
    };
    servers.resolve_server(request).await.unwrap();
    world.reaches("bmc-0-1", ServerState::Available).await;
    let history = world.history("bmc-0-1").await;
    assert!(
        history
            .iter()
            .any(|e| e.event == "Waive" && e.actor.contains("Ada Lovelace") && e.reason == "drive shredded"),
        "{history:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_is_refused_where_only_clear_is_possible() {
    // Every other machine has a drive that only the host can overwrite.
    let world = World::with(On::Sqlite, 2, InBand::Off).await.unwrap();
    let wants = async |minimum: &str| {
        let mut server = world.server("bmc-1-1").await.unwrap();
        server.metadata.as_mut().unwrap().etag.clear();
        server.spec.as_mut().unwrap().sanitization = Some(inventory::SanitizationPolicy { minimum: minimum.into() });
        let request = inventory::UpdateServerRequest {
            server: Some(server),
            ..Default::default()
        };
        world.clients.servers.clone().update_server(request).await.unwrap();
    };
    wants("Purge").await;
    let only = ironyard_proto::common::Reference {
        name: "bmc-1-1".into(),
        uid: String::new(),
    };
    let spec = ironyard_proto::claim::ServerClaimSpec {
        server_ref: Some(only),
        ..Default::default()
    };
    world.try_claim("a", spec).await.unwrap();
    world.reaches("bmc-1-1", ServerState::Reserved).await;
    poll::until("the claim is bound", || async { world.get_claim("a").await?.bound_server }).await;
    // A policy that is lowered after the reservation lowers no debt.
    wants("Clear").await;
    world.release("a").await;
    let server = world.reaches("bmc-1-1", ServerState::Error).await;
    assert_eq!(server.sanitization_debt.clone().unwrap().minimum, "Purge");
    assert!(message(&server).contains("Purge"), "{}", message(&server));
}

/// Where a system UUID is missing, the serial number tells one machine from another.
#[tokio::test(flavor = "multi_thread")]
async fn another_machine_is_neither_offered_nor_wiped() {
    let world = World::apart(On::Sqlite, 1, InBand::Off).await.unwrap();
    let machine = world.machine(0);
    let shows = |serial: &str| {
        let fields = serde_json::json!({"UUID": "00000000-0000-0000-0000-000000000000", "SerialNumber": serial, "SKU": serial});
        machine.clear_rules();
        machine.add_rule(Rule {
            method: Some("GET".to_owned()),
            path: "/redfish/v1/Systems/1".to_owned(),
            action: Action::Fields(fields.as_object().unwrap().clone()),
            remaining: None,
        });
    };
    shows("SIM000000");
    ironyard::demo::register(&world.clients, &world.fleet_config, world.port)
        .await
        .unwrap();
    let server = world.reaches("bmc-0-1", ServerState::Available).await;
    assert_eq!(server.spec.unwrap().system_uuid, "");
    world.claim("a").await;
    world.runs("a").await;
    shows("OTHER0001");
    world.release("a").await;
    let server = world.reaches("bmc-0-1", ServerState::Error).await;
    let failure = server.failure.clone().unwrap();
    assert_eq!(failure.reason, "WRONG_MACHINE", "{failure:?}");
    assert!(failure.message.contains("other0001"), "{failure:?}");
    assert_eq!(machine.power(), ironyard_types::hardware::PowerState::On, "nor is it switched off");
    stays_out(&world).await;
    let nothing = |c: &ironyard_proto::claim::SanitizationCertificate| !c.passed && c.drives.is_empty();
    assert!(world.certificates("bmc-0-1").await.iter().all(nothing), "nothing was wiped");
    // The right one is wiped.
    shows("SIM000000");
    let request = inventory::RetryServerRequest {
        name: "bmc-0-1".into(),
        reason: "the cable is where it was".into(),
        actor: "op".into(),
    };
    world.clients.servers.clone().retry_server(request).await.unwrap();
    world.reaches("bmc-0-1", ServerState::Available).await;
}

/// Changes the spec of the only server.
async fn wants(world: &World, change: impl FnOnce(&mut inventory::ServerSpec)) {
    let mut server = world.server("bmc-0-1").await.unwrap();
    server.metadata.as_mut().unwrap().etag.clear();
    change(server.spec.as_mut().unwrap());
    let request = inventory::UpdateServerRequest {
        server: Some(server),
        ..Default::default()
    };
    world.clients.servers.clone().update_server(request).await.unwrap();
}

/// What was wanted at the reservation is owed, whatever the spec says since; an administrator forgives a part of it, and it is on the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_lowered_lowers_no_debt() {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    wants(&world, |spec| spec.set_reclaim_policy(ReclaimPolicy::Retain)).await;
    world.claim("a").await;
    world.runs("a").await;
    wants(&world, |spec| spec.set_reclaim_policy(ReclaimPolicy::Recycle)).await;
    let history = world.history("bmc-0-1").await;
    let updates: Vec<_> = history.iter().filter(|e| e.event == "Update").map(|e| e.reason.as_str()).collect();
    let [.., first, second] = updates.as_slice() else {
        panic!("{updates:?}")
    };
    assert_eq!(*first, r#"reclaim_policy: "Recycle" → "Retain""#);
    assert_eq!(*second, r#"reclaim_policy: "Retain" → "Recycle""#);
    world.release("a").await;
    poll::until("the server is kept", || async {
        let waiting = world.server("bmc-0-1").await?.waiting_because?;
        (waiting.reason == "RETAINED").then_some(())
    })
    .await;
    let debt = world.server("bmc-0-1").await.unwrap().sanitization_debt.unwrap();
    assert_eq!(debt.reclaim_policy(), ReclaimPolicy::Retain);
    let mut servers = world.clients.servers.clone();
    let waive = |part: SanitizationPart| inventory::WaiveSanitizationRequest {
        name: "bmc-0-1".into(),
        reason: "the audit is over".into(),
        actor: "Ada Lovelace".into(),
        part: part.into(),
    };
    // The whole wipe is not forgiven on the way.
    let refused = servers.waive_sanitization(waive(SanitizationPart::Unspecified)).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "TRANSITION_REFUSED", "{refused:?}");
    servers.waive_sanitization(waive(SanitizationPart::Retention)).await.unwrap();
    world.reaches("bmc-0-1", ServerState::Available).await;
    let certificate = world.certificates("bmc-0-1").await.remove(0);
    assert!(certificate.passed, "{certificate:?}");
    assert_eq!(certificate.reclaim_policy, "Retain");
    let [forgiven] = certificate.forgiven.as_slice() else {
        panic!("{certificate:?}")
    };
    assert!(
        forgiven.contains("retention, by Ada Lovelace") && forgiven.contains("the audit is over"),
        "{forgiven}"
    );
    let history = world.history("bmc-0-1").await;
    assert!(
        history.iter().any(|e| e.event == "Forgive" && e.actor.contains("Ada Lovelace")),
        "{history:?}"
    );
}

/// From an erase that never ends there is a way out, by name; the wipe stays owed.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_erase_is_cancelled_by_name() {
    let world = erasing_for_ever().await;
    let mut sanitization = world.clients.sanitization.clone();
    let cancel = |actor: &str| claim::CancelCleanupRequest {
        server: "bmc-0-1".into(),
        reason: "it hangs for a day".into(),
        actor: actor.into(),
    };
    let refused = sanitization.cancel_cleanup(cancel("")).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "INVALID_FIELD");
    sanitization.cancel_cleanup(cancel("Grace Hopper")).await.unwrap();
    let server = world.reaches("bmc-0-1", ServerState::Error).await;
    let failure = server.failure.clone().unwrap();
    assert_eq!(failure.reason, "CANCELLED", "{failure:?}");
    assert!(failure.message.contains("Grace Hopper"), "{failure:?}");
    stays_out(&world).await;
    let request = claim::ListCleanupRunsRequest {
        server: "bmc-0-1".into(),
        ..Default::default()
    };
    let runs = sanitization.list_cleanup_runs(request).await.unwrap().into_inner().cleanup_runs;
    assert_eq!((runs[0].outcome.as_str(), runs[0].done), ("Failed", true), "{runs:?}");
    assert!(runs[0].failure.contains("Grace Hopper"), "{runs:?}");
    let certificate = world.certificates("bmc-0-1").await.remove(0);
    assert!(
        !certificate.passed && certificate.failure.contains("Grace Hopper"),
        "{certificate:?}"
    );
    let request = ironyard_proto::bmc::ListOperationsRequest {
        running_only: true,
        ..Default::default()
    };
    let running = world
        .clients
        .operations
        .clone()
        .list_operations(request)
        .await
        .unwrap()
        .into_inner();
    assert!(running.operations.iter().all(|o| o.verb != "EraseDrive"), "{running:?}");
    let refused = sanitization.cancel_cleanup(cancel("Grace Hopper")).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "TRANSITION_REFUSED");
    stick(&world, false);
    let request = inventory::RetryServerRequest {
        name: "bmc-0-1".into(),
        reason: "the BMC was reset".into(),
        actor: "op".into(),
    };
    world.clients.servers.clone().retry_server(request).await.unwrap();
    world.reaches("bmc-0-1", ServerState::Available).await;
}

/// A server whose claim is lost is shown, kept, and let go of only by name; then it is wiped like any other.
async fn a_server_of_a_lost_claim_is_let_go_of_by_name(on: On) {
    let soon = |config: &mut ironyard::stack::Config| config.claim.sweep = std::time::Duration::from_millis(500);
    let Some(world) = World::tuned(on, 1, InBand::Off, soon).await else {
        return;
    };
    world.discovered().await;
    world.claim("a").await;
    world.runs("a").await;
    let mut servers = world.clients.servers.clone();
    let release = || inventory::ReleaseServerRequest {
        name: "bmc-0-1".into(),
        reason: "its claim was lost with a disk".into(),
        actor: "Ada Lovelace".into(),
    };
    let refused = servers.release_server(release()).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "SERVER_IN_USE", "{refused:?}");
    let (database, table) = world.database("claim");
    sqlx::any::install_default_drivers();
    let mut connection = <sqlx::AnyConnection as sqlx::Connection>::connect(&database).await.unwrap();
    let lost = sqlx::query(sqlx::AssertSqlSafe(format!("delete from {table}server_claim"))).execute(&mut connection);
    assert_eq!(lost.await.unwrap().rows_affected(), 1);
    poll::until("the loss is shown", || async {
        let server = world.server("bmc-0-1").await?;
        assert_eq!(server.state(), ServerState::Reserved, "nothing is wiped by itself");
        let lost = |c: &ironyard_proto::common::Condition| c.r#type == "ClaimExists" && c.reason == "Lost";
        server.conditions.iter().any(lost).then_some(())
    })
    .await;
    servers.release_server(release()).await.unwrap();
    world.reaches("bmc-0-1", ServerState::Available).await;
    assert!(world.certificates("bmc-0-1").await[0].passed);
    let history = world.history("bmc-0-1").await;
    assert!(
        history.iter().any(|e| e.event == "Release" && e.actor.contains("Ada Lovelace")),
        "{history:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_a_lost_claim_is_let_go_of_by_name_on_sqlite() {
    a_server_of_a_lost_claim_is_let_go_of_by_name(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_a_lost_claim_is_let_go_of_by_name_on_postgres() {
    a_server_of_a_lost_claim_is_let_go_of_by_name(On::Postgres).await;
}

/// Nobody knows whether an erase whose answer was lost took effect, and it is not asked for again: what is read of the drive tells. Where it shows that
/// it did, the certificate rests on that alone; where it shows that it did not, another wipe begins.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_of_a_drive_tells_what_became_of_a_lost_erase() {
    // What was begun is found by its task, and reported by that; what never arrived is nowhere.
    for (action, outcomes, unknown) in [(Action::DropAfter, vec![true], 0), (Action::Drop, vec![false, true], 1)] {
        let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
        world.claim("a").await;
        world.runs("a").await;
        world.machine(0).add_rule(Rule {
            method: Some("POST".into()),
            path: "/redfish/v1/Systems/1/Storage".into(),
            action,
            remaining: Some(1),
        });
        world.release("a").await;
        world.reaches("bmc-0-1", ServerState::Available).await;
        let mut certificates = world.certificates("bmc-0-1").await;
        certificates.sort_by_key(|c| c.name.clone());
        let passed: Vec<bool> = certificates.iter().map(|c| c.passed).collect();
        assert_eq!(passed, outcomes);
        let reported = |d: &&claim::DriveSanitization| d.evidence.contains(&"ReportedByBMC".to_owned());
        let drives = &certificates[0].drives;
        assert_eq!(drives.len() - drives.iter().filter(reported).count(), unknown, "{drives:?}");
        let history = world.history("bmc-0-1").await;
        assert!(history.iter().all(|entry| entry.to() != ServerState::Error), "{history:?}");
    }
}
