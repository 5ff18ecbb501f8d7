use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ironyard::client::Clients;
use ironyard_bmc_simulator::FleetConfig;
use ironyard_proto::{
    claim::{self, ClaimPhase, ServerClaim, ServerClaimSpec},
    common::{Metadata, PowerState},
    inventory::{self, Server, ServerState},
};
use ironyard_testkit::{Postgres, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A program that is killed with the test.
pub struct Process {
    child: Child,
    pub port: u16,
}

impl Process {
    pub fn start(arguments: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"))
            .args(arguments)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "{arguments:?} said {line:?}");
        let port = line
            .split("port ")
            .nth(1)
            .and_then(|rest| rest.split(';').next()?.trim().parse().ok())
            .unwrap_or(0);
        Self { child, port }
    }

    pub fn simulate(bmcs: u32) -> Self {
        let arguments = ["simulate", "--bmcs", &bmcs.to_string(), "--port", "0", "--session-limit", "8"].map(str::to_owned);
        Self::start(&arguments)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port()
}

const SERVERS: u32 = 8;
const KILLS: u32 = 20;

async fn servers(clients: &Clients) -> Option<Vec<Server>> {
    let request = inventory::ListServersRequest {
        page_size: 100,
        ..Default::default()
    };
    clients
        .servers
        .clone()
        .list_servers(request)
        .await
        .ok()
        .map(|r| r.into_inner().servers)
}

async fn claims(clients: &Clients) -> Option<Vec<ServerClaim>> {
    let request = claim::ListServerClaimsRequest {
        page_size: 100,
        ..Default::default()
    };
    clients
        .claims
        .clone()
        .list_server_claims(request)
        .await
        .ok()
        .map(|r| r.into_inner().server_claims)
}

/// Keeps the fleet busy: claims that are missing are made, claims whose servers run are given back. Whatever fails is tried again.
async fn drive(clients: Clients) {
    let mut round = 0;
    loop {
        if let Some(present) = claims(&clients).await {
            for n in 0..SERVERS {
                let name = format!("tenant-{n}");
                let found = present.iter().find(|c| c.metadata.as_ref().is_some_and(|m| m.name == name));
                match found {
                    None => {
                        let claim = ServerClaim {
                            metadata: Some(Metadata {
                                name,
                                ..Default::default()
                            }),
                            spec: Some(ServerClaimSpec {
                                power: PowerState::On.into(),
                                ..Default::default()
                            }),
                            ..Default::default()
                        };
                        round += 1;
                        let request = claim::CreateServerClaimRequest {
                            server_claim: Some(claim),
                            request_id: format!("round-{round}"),
                        };
                        let _ = clients.claims.clone().create_server_claim(request).await;
                    }
                    Some(claim) if claim.power_state() == PowerState::On && claim.phase() == ClaimPhase::Bound => {
                        let request = claim::DeleteServerClaimRequest { name, etag: String::new() };
                        let _ = clients.claims.clone().delete_server_claim(request).await;
                    }
                    Some(_) => {}
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the simulator's admin API answers; plain HTTP by hand, because only the Redfish client may have an HTTP library.
async fn admin(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: simulator\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

async fn killed_and_restarted(database: Option<String>) {
    let data = tempfile::tempdir().unwrap();
    let simulator = Process::simulate(SERVERS);
    let (port, images) = (free_port(), free_port());
    let up = || {
        let mut arguments: Vec<String> = [
            "up",
            "--first-wipe",
            "waive",
            "--requests-per-second",
            "0",
            "--in-band",
            "off",
            "--agent-image",
            "simulated",
            "--agent-image-listen",
            &format!("127.0.0.1:{images}"),
            "--port",
            &port.to_string(),
            "--data",
            &data.path().display().to_string(),
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(url) = &database {
            arguments.extend(["--database-url".to_owned(), url.clone()]);
        }
        Process::start(&arguments)
    };
    let mut running = up();
    let clients = Clients::at(&format!("http://127.0.0.1:{port}")).unwrap();
    let fleet = FleetConfig {
        count: SERVERS,
        ..FleetConfig::default()
    };
    ironyard::demo::register(&clients, &fleet, simulator.port).await.unwrap();
    let driver = tokio::spawn(drive(clients.clone()));
    let mut dice = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    eprintln!("dice: {dice}");
    for _ in 0..KILLS {
        // A random moment of the fleet's life, between 0.2 and 2.2 seconds after the start.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tokio::time::sleep(Duration::from_millis(200 + (dice >> 33) % 2000)).await;
        drop(running);
        running = up();
    }
    driver.abort();
    let everything = poll::within(Duration::from_secs(180), "every claim has come to rest", || async {
        let all = claims(&clients).await?;
        all.iter()
            .all(|c| c.phase() == ClaimPhase::Bound && c.power_state() == PowerState::On || c.phase() == ClaimPhase::Pending)
            .then_some(all)
    })
    .await;
    for claim in everything {
        let request = claim::DeleteServerClaimRequest {
            name: claim.metadata.unwrap().name,
            etag: String::new(),
        };
        clients.claims.clone().delete_server_claim(request).await.unwrap();
    }
    let rest = poll::within(Duration::from_secs(180), "every server has come to rest", || async {
        let all = servers(&clients).await?;
        if let Some(failed) = all.iter().find(|s| s.state() == ServerState::Error) {
            panic!("a server is in Error: {:?}", failed.failure);
        }
        let quiet = claims(&clients).await?.is_empty() && all.iter().all(|s| s.state() == ServerState::Available);
        quiet.then_some(all)
    })
    .await;
    assert_eq!(rest.len(), SERVERS as usize, "none is lost");
    assert!(rest.iter().all(|s| s.sanitization_debt.is_none()));
    let mut wipes = 0;
    for server in &rest {
        let name = server.metadata.clone().unwrap().name;
        let request = inventory::ListServerHistoryRequest { name: name.clone() };
        let history = clients
            .servers
            .clone()
            .list_server_history(request)
            .await
            .unwrap()
            .into_inner()
            .entries;
        let mut owes = false;
        for entry in &history {
            match entry.event.as_str() {
                "Reserve" => owes = true,
                "CleanupDone" => {
                    owes = false;
                    wipes += 1;
                }
                _ => {}
            }
            assert!(
                !owes || entry.to() != ServerState::Available,
                "{name} was Available with a debt: {history:?}"
            );
        }
    }
    assert!(wipes > 0, "something was wiped meanwhile");
    for n in 0..SERVERS {
        let answer = admin(simulator.port, &format!("/admin/bmcs/{n}/writes")).await;
        let body: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let writes = body["writes"].as_array().unwrap();
        assert!(!writes.is_empty());
        let repeated: Vec<_> = writes
            .iter()
            .filter(|w| w["effect"] == false && w["status"].as_u64() < Some(300) && !w["path"].as_str().unwrap().contains("Sessions"))
            .collect();
        assert!(
            repeated.is_empty(),
            "machine {n}: writes that had taken effect were repeated: {repeated:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_nothing_on_sqlite() {
    killed_and_restarted(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_nothing_on_postgres() {
    let Some(postgres) = Postgres::start().await else { return };
    killed_and_restarted(Some(postgres.url())).await;
}
