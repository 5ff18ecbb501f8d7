//! Claims, from the call that creates one to the watch event that says Bound, beside pgbench's simple update on the same PostgreSQL in the
//! same run. All commits reach the disk.
//!
//! `cargo bench -p ironyard-tests --bench claims` (SERVERS=1000, HOPELESS=0, SECONDS=5, DATABASES=sqlite,postgres, CLIENTS=1,16,64, REST=0).
//! The five services, the clients and the watch run in this one process: its CPU is all of theirs. REST is for how many seconds it is watched
//! at rest before the first claim, after a start over the servers that are there.
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    process::Command,
    sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering},
    time::{Duration, Instant},
};

use ironyard::{
    client::Clients,
    stack::{Config, Stack},
};
use ironyard_proto::{
    claim::{self, ClaimPhase, ServerClaim, ServerClaimSpec},
    common::{LabelSelector, Metadata},
    inventory::{self, ServerEvent},
};
use ironyard_testkit::Postgres;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};
use tokio::sync::oneshot;

/// Selectors that the hopeless claims have between them.
const SELECTORS: usize = 1000;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn words(name: &str, default: &str) -> Vec<String> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(str::to_owned).collect()
}

/// CPU seconds that a process has used.
fn cpu_of(pid: &str) -> f64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0.0;
    };
    let rest: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (rest[11].parse::<f64>().unwrap() + rest[12].parse::<f64>().unwrap()) / 100.0
}

/// The same of a process and its children.
fn cpu_of_family(pid: u32) -> f64 {
    let children = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let parent = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let family = children.filter(|child| child.parse::<u32>().is_ok_and(|own| own == pid) || parent(child) == Some(pid));
    family.map(|pid| cpu_of(&pid)).sum()
}

/// One server that can be claimed, made by calls, and copies of its row: a hundred thousand would take calls an hour.
async fn populate(clients: &Clients, url: &str, prefix: &str, count: usize) {
    let server = inventory::Server {
        metadata: Some(Metadata {
            name: "server-0".into(),
            labels: BTreeMap::from([("pool".to_owned(), "bench".to_owned())]),
            ..Default::default()
        }),
        spec: Some(inventory::ServerSpec::default()),
        ..Default::default()
    };
    let request = inventory::CreateServerRequest {
        server: Some(server),
        request_id: String::new(),
    };
    clients.servers.clone().create_server(request).await.unwrap();
    for event in [ServerEvent::BeginDiscovery, ServerEvent::DiscoveryDone] {
        let request = inventory::TransitionServerRequest {
            name: "server-0".into(),
            event: event.into(),
            ..Default::default()
        };
        clients.servers.clone().transition_server(request).await.unwrap();
    }
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let sql = format!("select body from {prefix}server where server_id = 'server-0'");
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
    let mut body: serde_json::Value = serde_json::from_str(&row.try_get::<String, _>("body").unwrap()).unwrap();
    let mut numbers = 1..count;
    loop {
        let some: Vec<usize> = numbers.by_ref().take(500).collect();
        if some.is_empty() {
            break;
        }
        let mut tx = connection.begin().await.unwrap();
        let values: Vec<String> = (0..some.len())
            .map(|i| format!("(${}, ${}, 1, ${}, 0, 0, 'Available', 'yes')", 3 * i + 1, 3 * i + 2, 3 * i + 3))
            .collect();
        let sql = format!(
            "insert into {prefix}server (server_id, uid, version, body, created_at, updated_at, state, claimable) values {}",
            values.join(", ")
        );
        let labels: Vec<String> = (1..=some.len()).map(|i| format!("('pool', 'bench', 'yes', ${i})")).collect();
        let label = format!(
            "insert into {prefix}server_label (label_key, label_value, claimable, server_id) values {}",
            labels.join(", ")
        );
        let (mut rows, mut marks) = (sqlx::query(AssertSqlSafe(sql)), sqlx::query(AssertSqlSafe(label)));
        for n in some {
            let (name, uid) = (format!("server-{n}"), format!("uid-{n}"));
            (body["metadata"]["name"], body["metadata"]["uid"]) = (name.clone().into(), uid.clone().into());
            rows = rows.bind(name.clone()).bind(uid).bind(body.to_string());
            marks = marks.bind(name);
        }
        rows.execute(&mut *tx).await.unwrap();
        marks.execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }
}

async fn create(clients: &Clients, name: String, label: (&str, String)) {
    let spec = ServerClaimSpec {
        server_selector: Some(LabelSelector {
            match_labels: BTreeMap::from([(label.0.to_owned(), label.1)]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = claim::CreateServerClaimRequest {
        server_claim: Some(ServerClaim {
            metadata: Some(Metadata {
                name,
                ..Default::default()
            }),
            spec: Some(spec),
            ..Default::default()
        }),
        request_id: String::new(),
    };
    clients.claims.clone().create_server_claim(request).await.unwrap();
}

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>;

/// Tells those who wait for a claim that it is bound.
async fn watch(clients: Clients, waiting: Waiting) {
    let request = claim::WatchServerClaimsRequest::default();
    let mut stream = clients.claims.clone().watch_server_claims(request).await.unwrap().into_inner();
    while let Ok(Some(event)) = stream.message().await {
        if let Some(claim) = event.server_claim.filter(|claim| claim.phase() == ClaimPhase::Bound)
            && let Some(metadata) = claim.metadata
            && let Some(told) = waiting.lock().unwrap().remove(&metadata.name)
        {
            let _ = told.send(());
        }
    }
}

/// Each client claims, waits until it has its server, and claims again.
async fn run(clients: &Clients, waiting: &Waiting, round: usize, at_once: usize, most: usize, time: Duration) -> (Vec<Duration>, Duration) {
    let (begun, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let each = (0..at_once).map(|_| {
        let (clients, waiting, next) = (clients.clone(), waiting.clone(), next.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < time {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= most {
                    break;
                }
                let name = format!("claim-{round}-{n}");
                let (told, bound) = oneshot::channel();
                waiting.lock().unwrap().insert(name.clone(), told);
                let at = Instant::now();
                create(&clients, name, ("pool", "bench".to_owned())).await;
                bound.await.unwrap();
                took.push(at.elapsed());
            }
            took
        })
    });
    let mut all = Vec::new();
    for client in futures_util::future::join_all(each).await {
        all.extend(client.unwrap());
    }
    (all, begun.elapsed())
}

fn pgbench(url: &str, clients: usize) -> Option<String> {
    let folder = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .next()?
        .path()
        .join("bin/pgbench");
    let quiet = |args: &[&str]| Command::new(&folder).args(args).arg(url).output().ok();
    quiet(&["-i", "-q", "-s", "10"])?;
    let count = clients.to_string();
    let output = quiet(&["-N", "-n", "-c", &count, "-j", "2", "-T", "5"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find(|line| line.starts_with("tps")).map(str::to_owned)
}

/// What it costs when nobody asks for anything: the first look at everything, and what comes after that.
async fn rest(postgres: Option<&Postgres>, seconds: usize) {
    let theirs = || postgres.map_or(0.0, |p| cpu_of_family(p.pid()));
    let begun = Instant::now();
    // The first look is over when a second costs little.
    let (mut before, mut first) = (cpu_of("self"), 0.0);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = cpu_of("self");
        first += now - before;
        if now - before < 0.05 && begun.elapsed() > Duration::from_secs(5) {
            break;
        }
        before = now;
    }
    println!("  first look: {first:.1} s of CPU in {:.0} s", begun.elapsed().as_secs_f64());
    if let Some(mut counting) = counting(postgres).await {
        sqlx::query("select public.pg_stat_statements_reset()::text")
            .execute(&mut counting)
            .await
            .unwrap();
    }
    let (started, own, other) = (Instant::now(), cpu_of("self"), theirs());
    let (mut last, mut most) = (own, 0.0_f64);
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = cpu_of("self");
        most = most.max(now - last);
        last = now;
    }
    let (all, own, other) = (started.elapsed().as_secs_f64(), cpu_of("self") - own, theirs() - other);
    println!(
        "  at rest for {all:.0} s: {:.2} % of a core here (most in a second: {:.0} %), {:.2} % in PostgreSQL",
        own / all * 100.0,
        most * 100.0,
        other / all * 100.0,
    );
    if let Some(mut counting) = counting(postgres).await {
        // Whatever is not within a transaction of its own is one.
        let sql =
            "select sum(calls)::double precision as calls, coalesce(sum(calls) filter (where query ilike 'commit%'), 0)::double precision
            as commits from public.pg_stat_statements";
        let row = sqlx::query(sql).fetch_one(&mut counting).await.unwrap();
        let (calls, commits) = (row.try_get::<f64, _>("calls").unwrap(), row.try_get::<f64, _>("commits").unwrap());
        println!(
            "  {:.2} statements/s, {:.2} commits/s of transactions; most often:",
            calls / all,
            commits / all
        );
        let sql = "select calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 110) as text from public.pg_stat_statements
            order by calls desc limit 8";
        for row in sqlx::query(sql).fetch_all(&mut counting).await.unwrap() {
            println!(
                "    {:>6} {}",
                row.try_get::<i64, _>("calls").unwrap(),
                row.try_get::<String, _>("text").unwrap()
            );
        }
    }
}

/// A connection to a PostgreSQL that counts statements.
async fn counting(postgres: Option<&Postgres>) -> Option<AnyConnection> {
    let mut connection = AnyConnection::connect(&postgres?.url()).await.ok()?;
    let create = "create extension if not exists pg_stat_statements schema public";
    sqlx::query(create).execute(&mut connection).await.ok()?;
    Some(connection)
}

#[tokio::main]
async fn main() {
    let (servers, hopeless) = (setting("SERVERS", 1000), setting("HOPELESS", 0));
    let time = Duration::from_secs(u64::try_from(setting("SECONDS", 5)).unwrap());
    let rounds = words("CLIENTS", "1,16,64");
    for database in words("DATABASES", "sqlite,postgres") {
        let postgres = match database.as_str() {
            "postgres" => Some(Postgres::durable().await.unwrap()),
            _ => None,
        };
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path(), ([127, 0, 0, 1], 0).into());
        config.first_wipe = ironyard_types::hardware::FirstWipe::Waive;
        config.database_url = postgres.as_ref().map(Postgres::url);
        let mut stack = Stack::start(config.clone()).await.unwrap();
        let mut clients = Clients::at(&stack.address).unwrap();
        let file = format!("sqlite://{}", data.path().join("inventory.db").display());
        let (url, prefix) = postgres.as_ref().map_or((file, ""), |p| (p.url(), "inventory."));
        populate(&clients, &url, prefix, servers).await;
        println!("{database}: {servers} servers, {hopeless} hopeless claims of {SELECTORS} selectors");
        if setting("REST", 0) > 0 {
            stack.stop().await;
            stack = loop {
                // SQLite's files are free once the last task has let go of them.
                match Stack::start(config.clone()).await {
                    Ok(stack) => break stack,
                    Err(error) => println!("  {error}"),
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            };
            clients = Clients::at(&stack.address).unwrap();
            rest(postgres.as_ref(), setting("REST", 0)).await;
        }
        let begun = Instant::now();
        for chunk in (0..hopeless).collect::<Vec<_>>().chunks(64) {
            let some = chunk
                .iter()
                .map(|n| create(&clients, format!("hopeless-{n}"), ("rack", format!("none-{}", n % SELECTORS))));
            futures_util::future::join_all(some).await;
        }
        if hopeless > 0 {
            println!("  created in {:.1} s", begun.elapsed().as_secs_f64());
            // The binder has looked at the last of them once this one says why it waits.
            loop {
                let request = claim::GetServerClaimRequest {
                    name: format!("hopeless-{}", hopeless - 1),
                };
                let last = clients.claims.clone().get_server_claim(request).await.unwrap().into_inner();
                if last.waiting_because.is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            println!("  all looked at after {:.1} s", begun.elapsed().as_secs_f64());
        }
        let waiting: Waiting = Arc::default();
        let watcher = tokio::spawn(watch(clients.clone(), waiting.clone()));
        let mut left = servers;
        for (round, at_once) in rounds.iter().enumerate() {
            let at_once: usize = at_once.parse().unwrap();
            let most = left / (rounds.len() - round);
            let cpu = |postgres: &Option<Postgres>| {
                let theirs = postgres.as_ref().map_or(0.0, |p| cpu_of_family(p.pid()));
                (cpu_of("self"), theirs)
            };
            let before = cpu(&postgres);
            let (mut took, all) = run(&clients, &waiting, round, at_once, most, time).await;
            let after = cpu(&postgres);
            took.sort();
            let count = took.len();
            left -= count;
            let at = |share: f64| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "an index"
                )]
                let index = ((count as f64 * share) as usize).min(count - 1);
                took[index].as_secs_f64() * 1000.0
            };
            #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
            let number = count as f64;
            println!(
                "  {at_once:>3} clients: {:>6.0} claims/s, p50 {:.1} ms, p99 {:.1} ms; CPU per claim {:.2} ms here, {:.2} ms in PostgreSQL ({count} claims)",
                number / all.as_secs_f64(),
                at(0.5),
                at(0.99),
                (after.0 - before.0) / number * 1000.0,
                (after.1 - before.1) / number * 1000.0,
            );
            if let Some(postgres) = &postgres {
                let line = pgbench(&postgres.url(), at_once).unwrap_or_else(|| "pgbench: not there".to_owned());
                println!("      pgbench -N, {at_once} clients: {line}");
            }
        }
        watcher.abort();
        stack.stop().await;
    }
}
