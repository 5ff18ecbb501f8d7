//! What a claim, a life and a discovery cost in PostgreSQL, by its own count of statements: so that it cannot grow unseen.

use std::{collections::BTreeMap, time::Duration};

use ironyard_proto::{
    claim::{ClaimPhase, ServerClaimSpec, WatchServerClaimsRequest},
    common::{LabelSelector, Metadata},
    inventory::{CreateServerRequest, Server, ServerEvent, ServerSpec, ServerState, TransitionServerRequest, WatchServersRequest},
};
use ironyard_discovery::domain::discovery_run::InBand;
use sqlx::{AnyConnection, Connection, Row};

use crate::world::{On, World};

/// Statements and commits since the last call.
struct Count(AnyConnection);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Spent {
    statements: f64,
    commits: f64,
}

impl Count {
    async fn new(world: &World) -> Self {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&world.database("claim").0).await.unwrap();
        let create = "create extension if not exists pg_stat_statements schema public";
        if let Err(error) = sqlx::query(create).execute(&mut connection).await {
            panic!("pg_stat_statements is not there: {error}");
        }
        Self(connection)
    }

    async fn read(&mut self) -> Spent {
        let sql = "select coalesce(sum(calls), 0)::double precision as statements,
            coalesce(sum(calls) filter (where query ilike 'commit%'), 0)::double precision as commits
            from public.pg_stat_statements where query not ilike '%pg_stat_statements%'";
        let row = sqlx::query(sql).fetch_one(&mut self.0).await.unwrap();
        Spent {
            statements: row.try_get("statements").unwrap(),
            commits: row.try_get("commits").unwrap(),
        }
    }

    /// Waits until nothing goes on any more: what follows is counted from there.
    async fn rest(&mut self) -> Spent {
        let mut before = self.read().await;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.read().await;
            if now.statements - before.statements < 30.0 {
                return now;
            }
            before = now;
        }
    }

    async fn since(&mut self, before: Spent, number: f64) -> Spent {
        let now = self.read().await;
        Spent {
            statements: (now.statements - before.statements) / number,
            commits: (now.commits - before.commits) / number,
        }
    }
}

#[track_caller]
fn within(what: &str, spent: Spent, statements: f64, commits: f64) {
    println!("{what}: {:.1} statements and {:.1} commits; at most {statements} and {commits}", spent.statements, spent.commits);
    assert!(spent.statements <= statements && spent.commits <= commits, "{what}: {spent:?}, at most {statements} and {commits}");
}

/// From the call that creates it until it is bound; servers without BMCs, so that nothing else follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_costs_so_many_statements() {
    let Some(world) = World::apart(On::Postgres, 0, InBand::Off).await else {
        return;
    };
    let mut count = Count::new(&world).await;
    let mut servers = world.clients.servers.clone();
    for n in 0..20 {
        let name = format!("server-{n}");
        let server = Server {
            metadata: Some(Metadata {
                name: name.clone(),
                labels: BTreeMap::from([("pool".to_owned(), "a".to_owned())]),
                ..Default::default()
            }),
            spec: Some(ServerSpec::default()),
            ..Default::default()
        };
        let request = CreateServerRequest {
            server: Some(server),
            request_id: String::new(),
        };
        servers.create_server(request).await.unwrap();
        for event in [ServerEvent::BeginDiscovery, ServerEvent::DiscoveryDone] {
            let request = TransitionServerRequest {
                name: name.clone(),
                event: event.into(),
                ..Default::default()
            };
            servers.transition_server(request).await.unwrap();
        }
    }
    let request = WatchServerClaimsRequest::default();
    let mut watch = world.clients.claims.clone().watch_server_claims(request).await.unwrap().into_inner();
    let before = count.rest().await;
    for n in 0..20 {
        let name = format!("claim-{n}");
        let spec = ServerClaimSpec {
            server_selector: Some(LabelSelector {
                match_labels: BTreeMap::from([("pool".to_owned(), "a".to_owned())]),
                ..Default::default()
            }),
            ..Default::default()
        };
        world.try_claim(&name, spec).await.unwrap();
        // Who polls pays by the poll; who watches, by the change.
        while let Some(event) = watch.message().await.unwrap() {
            let claim = event.server_claim.unwrap_or_default();
            if claim.phase() == ClaimPhase::Bound && claim.metadata.is_some_and(|m| m.name == name) {
                break;
            }
        }
    }
    let spent = count.since(before, 20.0).await;
    within("a claim", spent, 100.0, 20.0);
}

/// A machine with its BMC and agent: found, claimed, given back, wiped, and Available again.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_costs_so_many_statements() {
    let Some(world) = World::apart(On::Postgres, 1, InBand::Off).await else {
        return;
    };
    let mut count = Count::new(&world).await;
    let request = WatchServersRequest::default();
    let mut watch = world.clients.servers.clone().watch_servers(request).await.unwrap().into_inner();
    let mut reaches = async |state: ServerState| {
        while let Some(event) = watch.message().await.unwrap() {
            let server = event.server.unwrap_or_default();
            assert_ne!(server.state(), ServerState::Error, "{:?}", server.failure);
            if server.state() == state {
                return;
            }
        }
    };
    let before = count.rest().await;
    world.register().await;
    reaches(ServerState::Available).await;
    let spent = count.since(before, 1.0).await;
    within("a discovery", spent, 1000.0, 200.0);

    let before = count.rest().await;
    world.claim("mine").await;
    reaches(ServerState::Reserved).await;
    world.release("mine").await;
    reaches(ServerState::Available).await;
    let spent = count.since(before, 1.0).await;
    within("a claim and its wipe", spent, 3000.0, 500.0);
}
