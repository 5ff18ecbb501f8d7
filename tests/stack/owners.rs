//! One writer for each BMC, whatever becomes of the gateways: paused, partitioned from the database, killed and stopped at random, while every
//! BMC is written to through any of them. What the BMCs logged is judged by `tests/foreign/writers.py`, which knows nothing else.
//!
//! `IRONYARD_SEED` picks the schedule, `IRONYARD_ROUNDS` how many outages there are.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ironyard::client::Clients;
use ironyard_proto::bmc::{self, PowerAction};
use ironyard_testkit::{Postgres, poll};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    foreign_bmc::Foreign,
    gateway::{Killable, ready, system},
    simulation::actors::Chance,
};

const GATEWAYS: usize = 3;
const FAMILIES: [&str; 7] = ["standard", "dell", "hpe", "supermicro", "lenovo", "openbmc", "ami"];
const OF_EACH: usize = 3;
/// With 21 BMCs, as many histories as there are BMCs and outages: 210.
const ROUNDS: u64 = 10;

fn monotonic() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    std::time::Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap()).as_secs_f64()
}

/// The way from a gateway to the database, which can be cut: what was under way stands still, and nothing new gets through.
struct Way {
    port: u16,
    open: watch::Sender<bool>,
}

async fn becomes(open: &mut watch::Receiver<bool>, wanted: bool) {
    let _ = open.wait_for(|open| *open == wanted).await;
}

impl Way {
    async fn to(url: &str) -> Self {
        let to = url.rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, is_open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut is_open) = (to.clone(), is_open.clone());
                tokio::spawn(async move {
                    let mut cut = is_open.clone();
                    let passes = async {
                        let mut far = TcpStream::connect(&to).await?;
                        copy_bidirectional(&mut near, &mut far).await
                    };
                    let is_cut = tokio::select! {
                        _ = passes => false,
                        () = becomes(&mut cut, false) => true,
                    };
                    if is_cut {
                        becomes(&mut is_open, true).await;
                    }
                });
            }
        });
        Self { port, open }
    }
}

/// A gateway and what is recorded of it.
struct Gateway {
    process: Killable,
    way: Way,
    agent: String,
    started: f64,
}

/// What the judge reads beside the BMCs' logs.
#[derive(Default)]
struct History {
    gateways: Vec<Value>,
    outages: Vec<Value>,
}

async fn gateway(url: &str, folder: &TempDir) -> Gateway {
    let way = Way::to(url).await;
    let port = way.port;
    let started = monotonic();
    let process = Killable::with(|own| {
        let address = format!("http://127.0.0.1:{own}");
        let set = |name: &str, value: String| (format!("BMC_GATEWAY_{name}"), value);
        let environment = vec![
            set("DATABASE__URL", format!("postgres://postgres@127.0.0.1:{port}/postgres")),
            set("DATABASE__SCHEMA", "bmc_gateway".to_owned()),
            set("GATEWAY__KEY_FILE", folder.path().join("key").display().to_string()),
            set("GATEWAY__CREATE_KEY", "false".to_owned()),
            set("GATEWAY__REPLICAS__ADVERTISE", address.clone()),
            set("GATEWAY__POLLING__POWER", "5s".to_owned()),
            set("GATEWAY__WRITE_TIMEOUT", "20s".to_owned()),
            set("TELEMETRY__FILTER", "info".to_owned()),
        ];
        (environment, Clients::at(&address).unwrap())
    })
    .await;
    let agent = agent(&process).await;
    Gateway {
        process,
        way,
        agent,
        started,
    }
}

/// What its requests are logged under.
async fn agent(process: &Killable) -> String {
    let id = poll::until("it says who it is", || async { process.replica() }).await;
    format!("ironyard/{} ({id})", env!("CARGO_PKG_VERSION"))
}

/// Something that is written to a BMC; whether it succeeds is not the question here.
async fn write(clients: &Clients, name: &str, which: usize) {
    let mut power = clients.systems.clone();
    let mut systems = clients.systems.clone();
    let switch = |action: PowerAction| {
        let mut request = tonic::Request::new(bmc::SetPowerRequest {
            system: system(name),
            action: action.into(),
            ..Default::default()
        });
        request.set_timeout(Duration::from_secs(15));
        request
    };
    let timed = |request| {
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(15));
        request
    };
    match which {
        0 => drop(power.set_power(switch(PowerAction::On)).await),
        1 => drop(power.set_power(switch(PowerAction::ForceOff)).await),
        2 => drop(power.set_power(switch(PowerAction::Cycle)).await),
        3 | 4 => {
            let request = bmc::SetIndicatorLedRequest {
                system: system(name),
                on: which == 3,
            };
            let mut request = tonic::Request::new(request);
            request.set_timeout(Duration::from_secs(15));
            drop(systems.set_indicator_led(request).await);
        }
        _ => {
            let target = ["Pxe", "Hdd", "Cd", "Usb"][which % 4];
            let request = bmc::SetBootOverrideRequest {
                system: system(name),
                target: target.to_owned(),
                ..Default::default()
            };
            drop(systems.set_boot_override(timed(request)).await);
        }
    }
}

/// One outage of one gateway, from its beginning to its end.
async fn outage(gateway: &mut Gateway, history: &mut History, chance: &mut Chance) {
    let seconds = Duration::from_millis(chance.between(1000, 15_000).unsigned_abs());
    let (agent, from) = (gateway.agent.clone(), monotonic());
    let mut told =
        |kind: &str, from: f64, to: Option<f64>| history.outages.push(json!({"agent": agent, "kind": kind, "from": from, "to": to}));
    let kind = chance.weighted(&[4, 4, 2, 1]);
    match kind {
        0 => {
            gateway.process.signal("-STOP");
            let from = monotonic();
            tokio::time::sleep(seconds).await;
            let to = monotonic();
            gateway.process.signal("-CONT");
            told("pause", from, Some(to));
        }
        1 => {
            gateway.way.open.send_replace(false);
            tokio::time::sleep(seconds).await;
            let to = monotonic();
            gateway.way.open.send_replace(true);
            told("partition", from, Some(to));
        }
        _ => {
            if kind == 2 {
                gateway.process.kill();
            } else {
                gateway.process.stop();
            }
            let ended = monotonic();
            // Who is killed may have sent something until then.
            told(if kind == 2 { "kill" } else { "stop" }, if kind == 2 { ended } else { from }, None);
            history
                .gateways
                .push(json!({"agent": gateway.agent, "started": gateway.started, "ended": ended}));
            tokio::time::sleep(seconds / 3).await;
            let before = gateway.process.replica();
            gateway.started = monotonic();
            gateway.process.again().await;
            poll::until("it is another one", || async {
                (gateway.process.replica() != before).then_some(())
            })
            .await;
            gateway.agent = self::agent(&gateway.process).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bmc_has_one_writer_whatever_becomes_of_the_gateways() {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = from_environment("IRONYARD_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = from_environment("IRONYARD_ROUNDS").unwrap_or(ROUNDS);
    println!("IRONYARD_SEED={seed} IRONYARD_ROUNDS={rounds}");
    let Some(postgres) = Postgres::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "00".repeat(32)).unwrap();
    // All at once, as they start after a site was without power.
    let url = postgres.url();
    let mut gateways = futures_util::future::join_all((0..GATEWAYS).map(|_| gateway(&url, &folder))).await;
    let quick = ["--set", r#"{"power_seconds": 0.3, "shutdown_seconds": 0.3, "post_seconds": 0.3}"#];
    let mut fleet = vec![];
    for n in 0..FAMILIES.len() * OF_EACH {
        let family = FAMILIES[n % FAMILIES.len()];
        let Some(foreign) = Foreign::start(family, &quick) else { return };
        let name = format!("{family}-{n}");
        foreign.register(&gateways[0].process.clients, &name).await;
        // A write takes a moment, now and then longer than a takeover does, and now and then its answer is lost.
        let rule = |nth: usize, does: Value| json!({"match": {"method": ["POST", "PATCH"], "path": "/Systems/", "nth": nth}, "do": does});
        let mut rules = vec![rule(7, json!({"lose_answer": true})), rule(12, json!({"delay": 1.5}))];
        rules.extend((1..7).map(|long| rule(5 + n + 12 * long, json!({"delay": 18}))));
        rules.push(json!({"match": {"method": ["POST", "PATCH"], "path": "/Systems/"}, "do": {"delay": 0.1}}));
        foreign.behave(&json!({"rules": rules, "settings": {}})).await;
        fleet.push((name, foreign));
    }
    for (name, _) in &fleet {
        ready(&gateways[0].process.clients, name).await;
    }

    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut users = vec![];
    for (n, (name, _)) in fleet.iter().enumerate() {
        let all: Vec<Clients> = gateways.iter().map(|gateway| gateway.process.clients.clone()).collect();
        let (name, over, asked) = (name.clone(), over.clone(), asked.clone());
        let mut chance = Chance::new(seed ^ (n as u64 + 1) << 32);
        users.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                // Two at a time, through any two gateways: they meet in front of the BMC.
                let (a, b) = (chance.below(GATEWAYS), chance.below(GATEWAYS));
                let (x, y) = (chance.below(9), chance.below(9));
                tokio::join!(write(&all[a], &name, x), write(&all[b], &name, y));
                asked.fetch_add(2, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(chance.between(50, 600).unsigned_abs())).await;
            }
        }));
    }
    let (mut history, mut chance) = (History::default(), Chance::new(seed));
    for round in 0..rounds {
        let victim = chance.below(GATEWAYS);
        println!("round {round}: gateway {victim}");
        outage(&mut gateways[victim], &mut history, &mut chance).await;
        // Long enough for whoever was away to be back among the others, and now and then not.
        tokio::time::sleep(Duration::from_millis(chance.between(500, 16_000).unsigned_abs())).await;
    }
    over.store(true, Ordering::Relaxed);
    for user in users {
        user.await.unwrap();
    }
    // Whatever became of them: in the end each BMC takes a change through each gateway.
    let last = &gateways;
    let each = fleet.iter().map(|(name, _)| async move {
        for gateway in last {
            poll::until(&format!("{name} is changed through {}", gateway.agent), || async {
                let request = bmc::SetBootOverrideRequest {
                    system: system(name),
                    target: "Pxe".to_owned(),
                    ..Default::default()
                };
                gateway.process.clients.systems.clone().set_boot_override(request).await.ok()
            })
            .await;
        }
    });
    futures_util::future::join_all(each).await;
    for gateway in &mut gateways {
        let started = gateway.started;
        gateway.process.stop();
        history
            .gateways
            .push(json!({"agent": gateway.agent, "started": started, "ended": monotonic()}));
    }
    let mut logs = serde_json::Map::new();
    for (name, foreign) in &fleet {
        logs.insert(name.clone(), Value::Array(foreign.log().await));
    }
    let record = json!({"silence": 10.0, "joined_within": 15.0, "bmcs": logs, "gateways": history.gateways, "outages": history.outages});
    let file = std::env::temp_dir().join(format!("ironyard-writers-{seed}.json"));
    std::fs::write(&file, record.to_string()).unwrap();
    let judged = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/writers.py"))
        .arg(&file)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(
        judged.status.success(),
        "IRONYARD_SEED={seed}: {} (the records are in {})",
        report,
        file.display()
    );
    std::fs::remove_file(&file).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    println!("{} writes were asked for; {report}", asked.load(Ordering::Relaxed));
    let count = |what: &str| report[what].as_u64().unwrap();
    assert!(count("writes") > 20 * rounds && count("handovers") > 0, "{report}");
}
