use std::collections::{BTreeMap, BTreeSet};

use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    bmc,
    claim::{self, ClaimPhase, ServerClaim, ServerClaimSpec},
    common::{self, LabelSelector},
    inventory::{self, ServerState},
};
use ironyard_testkit::poll;

use crate::world::{On, World};

async fn all(world: &World) -> Vec<ServerClaim> {
    let request = claim::ListServerClaimsRequest {
        page_size: 1000,
        ..Default::default()
    };
    world
        .clients
        .claims
        .clone()
        .list_server_claims(request)
        .await
        .unwrap()
        .into_inner()
        .server_claims
}

async fn two_hundred_on_eight(on: On) {
    let Some(world) = World::with(on, 8, InBand::Off).await else {
        return;
    };
    let creations = (0..200).map(|n| {
        let world = &world;
        async move { world.try_claim(&format!("claim-{n:03}"), ServerClaimSpec::default()).await.unwrap() }
    });
    futures_util::future::join_all(creations).await;
    let claims = poll::until("eight are bound and the others say why they wait", || async {
        let claims = all(&world).await;
        let bound = claims.iter().filter(|c| c.phase() == ClaimPhase::Bound).count();
        let explained = claims
            .iter()
            .filter(|c| c.phase() == ClaimPhase::Pending && c.waiting_because.is_some())
            .count();
        (bound == 8 && explained == 192).then_some(claims)
    })
    .await;
    let servers: BTreeSet<String> = claims.iter().filter_map(|c| c.bound_server.clone()).map(|s| s.name).collect();
    assert_eq!(servers.len(), 8, "no server is bound twice");
    assert!(
        claims
            .iter()
            .filter(|c| c.phase() == ClaimPhase::Pending)
            .filter_map(|c| c.waiting_because.clone())
            .all(|w| w.message.contains("Reserved"))
    );

    // A server that is freed goes to the oldest claim that waits.
    let oldest = claims
        .iter()
        .filter(|c| c.phase() == ClaimPhase::Pending)
        .min_by_key(|c| {
            let created = c.metadata.as_ref().unwrap().create_time.unwrap();
            (created.seconds, created.nanos, c.metadata.as_ref().unwrap().name.clone())
        })
        .map(|c| c.metadata.clone().unwrap().name)
        .unwrap();
    let freed = claims.iter().find(|c| c.phase() == ClaimPhase::Bound).unwrap();
    world.release(&freed.metadata.as_ref().unwrap().name).await;
    let next = poll::until("the freed server is bound again", || async {
        let claims = all(&world).await;
        let bound: Vec<_> = claims.iter().filter(|c| c.phase() == ClaimPhase::Bound).collect();
        let server = &freed.bound_server.as_ref().unwrap().name;
        bound
            .iter()
            .find(|c| c.bound_server.as_ref().is_some_and(|s| s.name == *server) && c.metadata != freed.metadata)
            .map(|c| (*c).clone())
    })
    .await;
    assert_eq!(next.metadata.unwrap().name, oldest);
    world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_claims_on_eight_servers_on_sqlite() {
    two_hundred_on_eight(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_claims_on_eight_servers_on_postgres() {
    two_hundred_on_eight(On::Postgres).await;
}

/// A claim that never got a server goes when it is deleted, and says nothing of what it waited for.
async fn a_waiting_claim_goes(on: On) {
    let Some(world) = World::with(on, 1, InBand::Off).await else {
        return;
    };
    let nowhere = ServerClaimSpec {
        server_ref: Some(common::Reference {
            name: "nowhere".to_owned(),
            uid: String::new(),
        }),
        ..Default::default()
    };
    world.try_claim("a", nowhere).await.unwrap();
    poll::until("it waits", || async { world.get_claim("a").await?.waiting_because }).await;
    world.release("a").await;
    poll::until("it is gone", || async { world.get_claim("a").await.is_none().then_some(()) }).await;
    assert_eq!(world.server("bmc-0-1").await.unwrap().state(), ServerState::Available);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_claim_goes_on_sqlite() {
    a_waiting_claim_goes(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_claim_goes_on_postgres() {
    a_waiting_claim_goes(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_taints_and_cordons_decide() {
    let world = World::with(On::Sqlite, 3, InBand::Off).await.unwrap();
    let change = async |n: u32, change: fn(&mut inventory::Server)| {
        let mut server = world.server(&format!("bmc-{n}-1")).await.unwrap();
        server.metadata.as_mut().unwrap().etag.clear();
        change(&mut server);
        let request = inventory::UpdateServerRequest {
            server: Some(server),
            ..Default::default()
        };
        world.clients.servers.clone().update_server(request).await.unwrap();
    };
    change(0, |s| s.spec.as_mut().unwrap().unclaimable = true).await;
    change(1, |s| {
        s.metadata.as_mut().unwrap().labels.insert("gpu".into(), "yes".into());
        let taint = inventory::Taint {
            key: "noisy".into(),
            value: "fan".into(),
            effect: String::new(),
        };
        s.spec.as_mut().unwrap().taints.push(taint);
    })
    .await;
    let gpu = LabelSelector {
        match_labels: BTreeMap::from([("gpu".into(), "yes".into())]),
        ..Default::default()
    };
    world
        .try_claim(
            "plain",
            ServerClaimSpec {
                server_selector: Some(gpu.clone()),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    poll::until("the taint is named", || async {
        world
            .get_claim("plain")
            .await?
            .waiting_because
            .filter(|w| w.message.contains("taint"))
    })
    .await;
    let request = inventory::ExplainReservationRequest {
        selector: Some(gpu.clone()),
        ..Default::default()
    };
    let candidates = world
        .clients
        .servers
        .clone()
        .explain_reservation(request)
        .await
        .unwrap()
        .into_inner()
        .candidates;
    let reasons: Vec<_> = candidates.iter().map(|c| c.reason.as_str()).collect();
    assert_eq!(reasons, ["LABELS_DIFFER", "TAINTED", "LABELS_DIFFER"]);
    let tolerations = vec![claim::ClaimToleration {
        key: "noisy".into(),
        operator: "Exists".into(),
        value: String::new(),
    }];
    world
        .try_claim(
            "tolerant",
            ServerClaimSpec {
                server_selector: Some(gpu),
                tolerations,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    world.reaches("bmc-1-1", ServerState::Reserved).await;
    world.try_claim("any", ServerClaimSpec::default()).await.unwrap();
    world.reaches("bmc-2-1", ServerState::Reserved).await;
    assert_eq!(world.server("bmc-0-1").await.unwrap().state(), ServerState::Available, "cordoned");
}

/// Who cannot be switched on, or wiped afterwards, is not offered; and what servers depend on is not deleted by mistake.
async fn unusable_bmcs_are_not_offered(on: On) {
    let Some(world) = World::with(on, 2, InBand::Off).await else {
        return;
    };
    let bmcs = world.clients.bmcs.clone();
    let delete = |force: bool, reason: &str| bmc::DeleteBmcRequest {
        name: "bmc-0".into(),
        force,
        reason: reason.into(),
        ..Default::default()
    };
    let refused = bmcs.clone().delete_bmc(delete(false, "")).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "BMC_IN_USE", "{refused:?}");
    assert!(refused.message().contains("bmc-0-1"), "{refused:?}");
    let refused = bmcs.clone().delete_bmc(delete(true, "")).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "INVALID_FIELD", "{refused:?}");
    bmcs.clone().delete_bmc(delete(true, "the rack is sold")).await.unwrap();
    world.machine(1).set_knobs(ironyard_bmc_simulator::Knobs {
        gone: Some(true),
        ..Default::default()
    });
    for (name, why) in [("bmc-0-1", "NoBmc"), ("bmc-1-1", "BmcNotReady")] {
        poll::until(&format!("{name} says {why}"), || async {
            let server = world.server(name).await?;
            let told = |c: &common::Condition| c.r#type == "BmcReachable" && c.status() == common::ConditionStatus::False;
            server.conditions.iter().any(|c| told(c) && c.reason == why).then_some(())
        })
        .await;
    }
    world.claim("a").await;
    poll::until("the claim says why it waits", || async {
        let waiting = world.get_claim("a").await?.waiting_because?;
        waiting.message.contains("2 have a BMC that cannot be used").then_some(())
    })
    .await;
    let only = common::Reference {
        name: "bmc-0-1".into(),
        uid: String::new(),
    };
    let spec = ServerClaimSpec {
        server_ref: Some(only),
        ..Default::default()
    };
    world.try_claim("b", spec).await.unwrap();
    poll::until("the one that names its server says why", || async {
        let waiting = world.get_claim("b").await?.waiting_because?;
        waiting.message.contains("BMC bmc-0 does not exist").then_some(())
    })
    .await;
    // The one that comes back is offered again.
    world.machine(1).set_knobs(ironyard_bmc_simulator::Knobs {
        gone: Some(false),
        ..Default::default()
    });
    assert_eq!(world.runs("a").await, "bmc-1-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_bmcs_are_not_offered_on_sqlite() {
    unusable_bmcs_are_not_offered(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_bmcs_are_not_offered_on_postgres() {
    unusable_bmcs_are_not_offered(On::Postgres).await;
}

/// Claims that no server can serve cost nothing: they hide nobody, nothing rewrites them, and they are served once something can serve them.
async fn hopeless_claims_hide_nobody(on: On) {
    let Some(world) = World::with(on, 2, InBand::Off).await else {
        return;
    };
    let wants = |label: String| ServerClaimSpec {
        server_selector: Some(LabelSelector {
            match_labels: BTreeMap::from([("rack".to_owned(), label)]),
            ..Default::default()
        }),
        ..Default::default()
    };
    // Three of each of a hundred requests: more than are looked at at once.
    let creations = (0..300).map(|n| {
        let (world, spec) = (&world, wants(format!("none-{:03}", n % 100)));
        async move { world.try_claim(&format!("hopeless-{n:03}"), spec).await.unwrap() }
    });
    futures_util::future::join_all(creations).await;
    let pending = |claims: &[ServerClaim]| -> BTreeMap<String, String> {
        let told = claims
            .iter()
            .filter(|c| c.phase() == ClaimPhase::Pending && c.waiting_because.is_some());
        told.filter_map(|c| c.metadata.clone()).map(|m| (m.name, m.etag)).collect()
    };
    let before = poll::until("all say why they wait", || async {
        let told = pending(&all(&world).await);
        (told.len() == 300).then_some(told)
    })
    .await;
    // A life of another claim is several events, and not one of them touches those that it cannot help.
    for _ in 0..2 {
        world.claim("a").await;
        let server = world.runs("a").await;
        world.release("a").await;
        world.reaches(&server, ServerState::Available).await;
    }
    poll::until("the claim is gone", || async { world.get_claim("a").await.is_none().then_some(()) }).await;
    assert_eq!(pending(&all(&world).await), before);
    // What one of them asks for appears: the oldest who asks for it is served, and nobody else is touched.
    let mut server = world.server("bmc-1-1").await.unwrap();
    let metadata = server.metadata.as_mut().unwrap();
    metadata.etag.clear();
    metadata.labels.insert("rack".into(), "none-042".into());
    let request = inventory::UpdateServerRequest {
        server: Some(server),
        ..Default::default()
    };
    world.clients.servers.clone().update_server(request).await.unwrap();
    let bound = poll::until("one is bound", || async {
        let claims = all(&world).await;
        let bound = claims.iter().find(|c| c.phase() == ClaimPhase::Bound).cloned();
        bound.and_then(|c| c.metadata)
    })
    .await;
    let age = |name: &str| {
        let world = &world;
        let name = name.to_owned();
        async move { world.get_claim(&name).await.unwrap().metadata.unwrap().create_time.unwrap() }
    };
    let mut oldest: Option<(i64, i32, String)> = None;
    for name in ["hopeless-042", "hopeless-142", "hopeless-242"] {
        let at = age(name).await;
        let this = (at.seconds, at.nanos, name.to_owned());
        oldest = Some(oldest.map_or(this.clone(), |o| o.min(this)));
    }
    assert_eq!(bound.name, oldest.unwrap().2);
    let mut rest = before.clone();
    rest.remove(&bound.name);
    // Those that ask for the same may say something newer; all others are as they were.
    let now = pending(&all(&world).await);
    assert!(
        rest.iter()
            .filter(|(name, _)| !name.ends_with("42"))
            .all(|(name, etag)| now.get(name) == Some(etag))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hopeless_claims_hide_nobody_on_sqlite() {
    hopeless_claims_hide_nobody(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hopeless_claims_hide_nobody_on_postgres() {
    hopeless_claims_hide_nobody(On::Postgres).await;
}

/// What is too large to be matched, stored with every change or sent to every watcher is refused by name, with its limit.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    let world = World::apart(On::Sqlite, 0, InBand::Off).await.unwrap();
    let labels = |n: usize| (0..n).map(|i| (format!("l{i}"), "v".to_owned())).collect::<BTreeMap<_, _>>();
    let selector = |n| ServerClaimSpec {
        server_selector: Some(LabelSelector {
            match_labels: labels(n),
            ..Default::default()
        }),
        ..Default::default()
    };
    world.try_claim("fits", selector(64)).await.unwrap();
    let refused = world.try_claim("large", selector(65)).await.unwrap_err();
    assert!(
        refused.message().contains("match_labels") && refused.message().contains("at most 64"),
        "{refused:?}"
    );
    let create = async |metadata: common::Metadata| {
        let request = claim::CreateServerClaimRequest {
            server_claim: Some(ServerClaim {
                metadata: Some(metadata),
                spec: Some(ServerClaimSpec::default()),
                ..Default::default()
            }),
            request_id: String::new(),
        };
        world.clients.claims.clone().create_server_claim(request).await.unwrap_err()
    };
    let refused = create(common::Metadata {
        name: "labels".into(),
        labels: labels(65),
        ..Default::default()
    })
    .await;
    assert!(
        refused.message().contains("metadata.labels") && refused.message().contains("at most 64"),
        "{refused:?}"
    );
    let refused = create(common::Metadata {
        name: "annotations".into(),
        annotations: BTreeMap::from([("note".to_owned(), "x".repeat(300_000))]),
        ..Default::default()
    })
    .await;
    assert!(
        refused.message().contains("metadata.annotations") && refused.message().contains("at most 65536"),
        "{refused:?}"
    );
}

/// Point by point: what the spec names and the machine does not run is said, for as long as it is so.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_applied_is_said() {
    let Some(world) = World::with(On::Sqlite, 1, InBand::Off).await else {
        return;
    };
    let spec = |image: &str, power: common::PowerState| ServerClaimSpec {
        power: power.into(),
        image: image.to_owned(),
        server_selector: Some(LabelSelector::default()),
        ..Default::default()
    };
    world.try_claim("imaged", spec("debian-13", common::PowerState::On)).await.unwrap();
    world.runs("imaged").await;
    let says = async |words: &str| {
        let reason = format!("the claim says {words}");
        poll::until(&reason, || async {
            let claim = world.get_claim("imaged").await?;
            let waiting = claim.waiting_because.as_ref().map(|w| format!("{}: {}", w.reason, w.message));
            (claim.power_state() == common::PowerState::On && waiting.unwrap_or_default().contains(words)).then_some(())
        })
        .await;
    };
    says("IMAGE_NOT_APPLIED: image \"debian-13\" is a name for a boot service").await;

    let change = async |image: &str, power: common::PowerState| {
        let request = claim::UpdateServerClaimRequest {
            server_claim: Some(ServerClaim {
                metadata: Some(common::Metadata {
                    name: "imaged".to_owned(),
                    ..Default::default()
                }),
                spec: Some(spec(image, power)),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["spec.image".to_owned(), "spec.power".to_owned()],
            }),
            request_id: String::new(),
        };
        world.clients.claims.clone().update_server_claim(request).await.unwrap();
    };
    let image = "http://127.0.0.1/debian.iso";
    change(image, common::PowerState::On).await;
    says("IMAGE_NOT_APPLIED: the machine was switched on before the image became").await;
    change(image, common::PowerState::Off).await;
    poll::until("it is off", || async {
        let claim = world.get_claim("imaged").await?;
        (claim.power_state() == common::PowerState::Off).then_some(())
    })
    .await;
    change(image, common::PowerState::On).await;
    poll::until("it runs what it should, and waits for nothing", || async {
        let claim = world.get_claim("imaged").await?;
        (claim.power_state() == common::PowerState::On && claim.waiting_because.is_none()).then_some(())
    })
    .await;
    assert!(format!("{:?}", world.machine(0).writes()).contains(image), "it was inserted");
}

/// Two claims of one batch that name the same server, or of which one names what the other's selector finds: one gets it.
async fn a_batch_gives_no_server_twice(on: On) {
    let Some(world) = World::with(on, 1, InBand::Off).await else {
        return;
    };
    let name = world
        .clients
        .servers
        .clone()
        .list_servers(inventory::ListServersRequest::default())
        .await
        .unwrap()
        .into_inner()
        .servers[0]
        .metadata
        .clone()
        .unwrap()
        .name;
    let ask = |n: usize, server: &str| inventory::ReserveServerRequest {
        claim: Some(common::Reference {
            name: format!("claim-{n}"),
            uid: format!("uid-{n}"),
        }),
        server: server.to_owned(),
        selector: server.is_empty().then(LabelSelector::default),
        ..Default::default()
    };
    let reserve = async |claims: Vec<inventory::ReserveServerRequest>| {
        let request = inventory::ReserveServersRequest { requests: claims };
        let answers = world
            .clients
            .servers
            .clone()
            .reserve_servers(request)
            .await
            .unwrap()
            .into_inner()
            .reservations;
        answers.iter().map(|answer| answer.server.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(reserve(vec![ask(0, ""), ask(1, &name), ask(2, &name)]).await, [true, false, false]);
    assert_eq!(
        reserve(vec![ask(1, &name), ask(0, "")]).await,
        [false, true],
        "who has one gets it again"
    );
    let held = world.server(&name).await.unwrap();
    assert_eq!(held.claim_ref.unwrap().uid, "uid-0");
    let reserved = world.history(&name).await.iter().filter(|entry| entry.event == "Reserve").count();
    assert_eq!(reserved, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_no_server_twice_on_sqlite() {
    a_batch_gives_no_server_twice(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_no_server_twice_on_postgres() {
    a_batch_gives_no_server_twice(On::Postgres).await;
}
