//! What a claim, a life and a discovery cost in PostgreSQL, by its own count of statements: so that it cannot grow unseen.

use std::{collections::BTreeMap, time::Duration};

use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    claim::{ClaimPhase, ServerClaimSpec, WatchServerClaimsRequest},
    common::{LabelSelector, Metadata},
    inventory::{CreateServerRequest, Server, ServerEvent, ServerSpec, ServerState, TransitionServerRequest, WatchServersRequest},
};
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

    /// What was asked most often, for who wants to know why it costs so much.
    async fn told(&mut self) -> Vec<String> {
        let sql = "select calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 150) as text from public.pg_stat_statements
            where query not ilike '%pg_stat_statements%' order by calls desc limit 25";
        let rows = sqlx::query(sql).fetch_all(&mut self.0).await.unwrap();
        let told = rows
            .iter()
            .map(|row| (row.try_get::<i64, _>("calls").unwrap(), row.try_get::<String, _>("text").unwrap()));
        told.map(|(calls, text)| format!("{calls:>6} {text}")).collect()
    }

    async fn since(&mut self, before: Spent, number: f64) -> Spent {
        let now = self.read().await;
        Spent {
            statements: (now.statements - before.statements) / number,
            commits: (now.commits - before.commits) / number,
        }
    }
}

async fn within(count: &mut Count, what: &str, spent: Spent, statements: f64, commits: f64) {
    let told = format!(
        "{what}: {:.1} statements and {:.1} commits; at most {statements} and {commits}",
        spent.statements, spent.commits
    );
    println!("{told}");
    if spent.statements > statements || spent.commits > commits {
        panic!("{told}; most often since the start:\n{}", count.told().await.join("\n"));
    }
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
    let mut watch = world
        .clients
        .claims
        .clone()
        .watch_server_claims(request)
        .await
        .unwrap()
        .into_inner();
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
    within(&mut count, "a claim", spent, 55.0, 5.0).await;
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
    within(&mut count, "a discovery", spent, 230.0, 16.0).await;

    let before = count.rest().await;
    world.claim("mine").await;
    reaches(ServerState::Reserved).await;
    world.release("mine").await;
    reaches(ServerState::Available).await;
    let spent = count.since(before, 1.0).await;
    within(&mut count, "a claim and its wipe", spent, 1900.0, 150.0).await;
}
