//! Whole lives of simulated machines: found, claimed, given back, wiped by the real agent, and offered again.
//!
//! `cargo bench -p ironyard-tests --bench lives` (DATABASE=sqlite or postgres; DISCOVER=100,1000; RELEASE=50,500; LIVES=1000 on SERVERS=20).
//! The five services run in this process, machines and agents in another one: their CPU is told apart. This process also has the clients and
//! one watch. Machines answer and erase at once, so what is left is what Ironyard costs.
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ironyard::{
    client::Clients,
    demo::register,
    simulate::boot_agent,
    stack::{Config, Stack},
};
use ironyard_bmc_simulator::{Fleet, FleetConfig, serve};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    claim::{self, ServerClaim, ServerClaimSpec},
    common::{Metadata, PowerState, Reference},
    inventory::{ServerState, WatchServersRequest},
};
use ironyard_testkit::Postgres;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};
use tempfile::TempDir;
use tokio::sync::watch;

fn numbers(name: &str, default: &str) -> Vec<usize> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').filter_map(|n| n.parse().ok()).collect()
}

/// A fleet of so many machines; their addresses are all of one loopback network.
fn fleet(count: usize) -> FleetConfig {
    FleetConfig {
        count: u32::try_from(count).unwrap(),
        first: Ipv4Addr::new(127, 99, 0, 1),
        ..FleetConfig::default()
    }
}

/// CPU seconds and resident MiB of a process.
fn spent(pid: &str) -> (f64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, in clock ticks of which Linux shows a hundred a second.
    let ticks = |n: usize| rest.get(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default().to_owned();
    let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    ((ticks(11) + ticks(12)) / 100.0, kib / 1024)
}

/// The machines, in a process of their own that ends with this one.
struct Machines {
    process: Child,
    port: u16,
}

impl Machines {
    fn start(count: usize) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env("MACHINES", count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        Self { process, port }
    }

    fn cpu(&self) -> f64 {
        spent(&self.process.id().to_string()).0
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What [`Machines`] runs.
async fn be_machines(count: usize) {
    let serving = serve(Fleet::new(&fleet(count), Some(boot_agent())), 0, false).unwrap();
    println!("{}", serving.port);
    // Until the parent is gone.
    let wait = || std::io::stdin().read_to_end(&mut Vec::new());
    let _ = tokio::task::spawn_blocking(wait).await;
}

type States = BTreeMap<String, ServerState>;

struct World {
    stack: Stack,
    clients: Clients,
    machines: Machines,
    states: watch::Receiver<States>,
    data: TempDir,
    postgres: Option<Postgres>,
}

impl World {
    async fn start(count: usize) -> Self {
        let postgres = match std::env::var("DATABASE").as_deref() {
            Ok("postgres") => Some(Postgres::durable().await.unwrap()),
            _ => None,
        };
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path(), ([127, 0, 0, 1], 0).into());
        config.first_wipe = ironyard_types::hardware::FirstWipe::Waive;
        config.database_url = postgres.as_ref().map(Postgres::url);
        config.in_band = InBand::Off;
        config.gateway.requests_per_second = 0;
        let stack = Stack::start(config).await.unwrap();
        let clients = Clients::at(&stack.address).unwrap();
        let (tell, states) = watch::channel(States::new());
        let mut watching = clients.servers.clone();
        tokio::spawn(async move {
            let mut events = watching.watch_servers(WatchServersRequest::default()).await.unwrap().into_inner();
            while let Ok(Some(event)) = events.message().await {
                let Some(server) = event.server else { continue };
                let (name, state) = (server.metadata.clone().unwrap_or_default().name, server.state());
                assert_ne!(state, ServerState::Error, "{name}: {:?}", server.failure);
                tell.send_if_modified(|states| states.insert(name, state) != Some(state));
            }
        });
        Self {
            stack,
            clients,
            machines: Machines::start(count),
            states,
            data,
            postgres,
        }
    }

    async fn all(&self, count: usize, state: ServerState) {
        let there = |states: &States| states.values().filter(|s| **s == state).count() == count;
        self.states.clone().wait_for(there).await.unwrap();
    }

    /// What so many claims do to their machines is over: each is switched off.
    async fn all_switched(&self, count: usize) {
        let mut claims = self.clients.claims.clone();
        let mut events = claims
            .watch_server_claims(claim::WatchServerClaimsRequest::default())
            .await
            .unwrap()
            .into_inner();
        let mut off = BTreeSet::new();
        while off.len() < count {
            let claim = events.message().await.unwrap().unwrap().server_claim.unwrap_or_default();
            if claim.power_state() == PowerState::Off && claim.waiting_because.is_none() {
                off.insert(claim.metadata.unwrap_or_default().name);
            }
        }
    }

    async fn is(&self, server: &str, state: ServerState) {
        self.states
            .clone()
            .wait_for(|states| states.get(server) == Some(&state))
            .await
            .unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.states.borrow().keys().cloned().collect()
    }

    /// CPU of this process and of the machines. PostgreSQL's is not counted.
    fn cpu(&self) -> (f64, f64) {
        (spent("self").0, self.machines.cpu())
    }

    async fn claim(&self, name: &str, server: &str) {
        let spec = ServerClaimSpec {
            server_ref: Some(Reference {
                name: server.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = claim::CreateServerClaimRequest {
            server_claim: Some(ServerClaim {
                metadata: Some(Metadata {
                    name: name.to_owned(),
                    ..Default::default()
                }),
                spec: Some(spec),
                ..Default::default()
            }),
            request_id: String::new(),
        };
        self.clients.claims.clone().create_server_claim(request).await.unwrap();
    }

    async fn release(&self, name: &str) {
        let request = claim::DeleteServerClaimRequest {
            name: name.to_owned(),
            etag: String::new(),
        };
        self.clients.claims.clone().delete_server_claim(request).await.unwrap();
    }

    /// Rows of each table.
    async fn rows(&self) -> BTreeMap<String, i64> {
        let mut rows = BTreeMap::new();
        for service in ["inventory", "bmc_gateway", "discovery", "claim", "maintenance"] {
            let (url, list) = match &self.postgres {
                Some(postgres) => (
                    postgres.url(),
                    format!("select table_name::text as name from information_schema.tables where table_schema = '{service}'"),
                ),
                None => (
                    format!("sqlite://{}", self.data.path().join(format!("{service}.db")).display()),
                    "select name from sqlite_master where type = 'table' and name not like 'sqlite%'".to_owned(),
                ),
            };
            let mut connection = AnyConnection::connect(&url).await.unwrap();
            let tables = sqlx::query(AssertSqlSafe(list)).fetch_all(&mut connection).await.unwrap();
            for table in tables {
                let table: String = table.try_get("name").unwrap();
                let prefix = self.postgres.as_ref().map_or(String::new(), |_| format!("{service}."));
                let sql = format!("select count(*) as n from {prefix}{table}");
                let count = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
                rows.insert(format!("{service}.{table}"), count.try_get("n").unwrap());
            }
        }
        rows
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn per(seconds: f64, count: usize) -> f64 {
    seconds * 1000.0 / count as f64
}

/// Says what was spent on each of so many.
fn tell(world: &World, what: &str, each: &str, count: usize, before: (f64, f64), begun: Instant) {
    let after = world.cpu();
    println!(
        "  {what}: {:>6.1} s; CPU per {each} {:.1} ms here, {:.1} ms in the machines",
        begun.elapsed().as_secs_f64(),
        per(after.0 - before.0, count),
        per(after.1 - before.1, count),
    );
}

/// From unknown to Available, out of band.
async fn discover(count: usize) -> World {
    let world = World::start(count).await;
    let (before, begun) = (world.cpu(), Instant::now());
    register(&world.clients, &fleet(count), world.machines.port).await.unwrap();
    world.all(count, ServerState::Available).await;
    tell(&world, &format!("discovery of {count:>5}"), "server", count, before, begun);
    world
}

/// So many given back at once, each wiped.
async fn release(world: &World, count: usize) {
    let names = world.names();
    let some = &names[..count];
    for (n, server) in some.iter().enumerate() {
        world.claim(&format!("release-{count}-{n}"), server).await;
    }
    world.all(count, ServerState::Reserved).await;
    world.all_switched(count).await;
    let (before, begun) = (world.cpu(), Instant::now());
    let all = (0..count).map(|n| async move { world.release(&format!("release-{count}-{n}")).await });
    futures_util::future::join_all(all).await;
    world.all(names.len(), ServerState::Available).await;
    tell(world, &format!("{count:>5} released at once"), "wipe", count, before, begun);
}

/// One life after the other on each of a few servers.
async fn lives(servers: usize, count: usize) {
    const PARTS: usize = 10;
    let world = Arc::new(discover(servers).await);
    let next = Arc::new(AtomicUsize::new(0));
    println!("  {count} lives on {servers} servers:");
    let mut first = BTreeMap::new();
    for part in 0..PARTS {
        let (before, begun) = (world.cpu(), Instant::now());
        let most = count * (part + 1) / PARTS;
        let each = world.names().into_iter().map(|server| {
            let (world, next) = (world.clone(), next.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= most {
                        return took;
                    }
                    let (name, at) = (format!("life-{n}"), Instant::now());
                    world.claim(&name, &server).await;
                    world.is(&server, ServerState::Reserved).await;
                    world.release(&name).await;
                    world.is(&server, ServerState::Available).await;
                    took.push(at.elapsed());
                }
            })
        });
        let mut took: Vec<Duration> = Vec::new();
        for server in futures_util::future::join_all(each).await {
            took.extend(server.unwrap());
        }
        next.store(most, Ordering::Relaxed);
        took.sort();
        let (after, rows) = (world.cpu(), world.rows().await);
        let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default().as_secs_f64();
        println!(
            "    {most:>6}: {:>6.1} s, p50 {:.2} s, p99 {:.2} s; CPU per life {:.1} ms here, {:.1} ms in the machines; {} MiB; {} rows",
            begun.elapsed().as_secs_f64(),
            at(50),
            at(99),
            per(after.0 - before.0, took.len()),
            per(after.1 - before.1, took.len()),
            spent("self").1,
            rows.values().sum::<i64>(),
        );
        if part == 0 {
            first = rows;
        } else if part + 1 == PARTS {
            let grown = rows
                .iter()
                .filter(|(table, rows)| **rows > first.get(*table).copied().unwrap_or(0) + 100);
            let grown: Vec<String> = grown
                .map(|(table, rows)| format!("{table} {} → {rows}", first.get(table).copied().unwrap_or(0)))
                .collect();
            println!("    tables that grew since the first tenth: {}", grown.join(", "));
        }
    }
    if let Some(world) = Arc::into_inner(world) {
        world.stack.stop().await;
    }
}

#[tokio::main]
async fn main() {
    if let Some(count) = std::env::var("MACHINES").ok().and_then(|n| n.parse().ok()) {
        return be_machines(count).await;
    }
    sqlx::any::install_default_drivers();
    println!("{}:", std::env::var("DATABASE").unwrap_or_else(|_| "sqlite".to_owned()));
    for count in numbers("DISCOVER", "100,1000") {
        discover(count).await.stack.stop().await;
    }
    let releases = numbers("RELEASE", "50,500");
    if let Some(most) = releases.iter().max() {
        let world = discover(*most).await;
        for count in &releases {
            release(&world, *count).await;
        }
        world.stack.stop().await;
    }
    let (servers, count) = (numbers("SERVERS", "20"), numbers("LIVES", "1000"));
    if let (Some(servers), Some(count)) = (servers.first(), count.first().filter(|n| **n > 0)) {
        lives(*servers, *count).await;
    }
}
