use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use ironyard::client::{Addresses, Clients};
use ironyard_bmc_simulator::FleetConfig;
use ironyard_proto::{
    claim::{self, ServerClaim, ServerClaimSpec},
    common::{Metadata, PowerState},
    inventory::{self, Server, ServerState},
};
use ironyard_rpc::client::TlsConfig;
use ironyard_testkit::{Postgres, poll};

use crate::crash::Process;

const SERVICES: [&str; 5] = ["inventory", "bmc-gateway", "discovery", "claim", "maintenance"];

struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        // The script stops what it started.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn programs() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_BIN_EXE_ironyard-under-test")).parent().unwrap().to_owned();
    if SERVICES.iter().all(|s| folder.join(format!("ironyard-{s}")).is_file()) {
        return Some(folder);
    }
    ironyard_testkit::skip("the five services", "their programs are not built: cargo build --workspace --bins");
    None
}

async fn servers(clients: &Clients) -> Vec<Server> {
    let request = inventory::ListServersRequest {
        page_size: 100,
        ..Default::default()
    };
    clients
        .servers
        .clone()
        .list_servers(request)
        .await
        .map(|r| r.into_inner().servers)
        .unwrap_or_default()
}

async fn all(clients: &Clients, count: usize, state: ServerState) {
    poll::until(&format!("all are {}", state.as_str_name()), || async {
        let all = servers(clients).await;
        if let Some(failed) = all.iter().find(|s| s.state() == ServerState::Error) {
            panic!("in Error: {:?}", failed.failure);
        }
        (all.len() == count && all.iter().all(|s| s.state() == state)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_services_with_mutual_tls_survive_the_loss_of_any_one() {
    let (Some(bin), Some(postgres)) = (programs(), Postgres::start().await) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // Fifteen ports that no other run on this machine is likely to take.
    let base: u16 = 20_000 + u16::try_from(std::process::id() % 2000).unwrap() * 16;
    let mut child = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/loopback.sh"))
        .arg(folder.path())
        .args([postgres.url(), base.to_string()])
        .arg(&bin)
        .env("IRONYARD_CLI", "ironyard-under-test")
        .env("IN_BAND", "required")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "{line}");
    let _script = Script(child);
    let tls = folder.path().join("tls");
    let at = |n: u16| format!("https://127.0.0.1:{}", base + n);
    let addresses = Addresses {
        inventory: at(0),
        bmc_gateway: at(1),
        discovery: at(2),
        claim: at(3),
        maintenance: at(4),
    };
    let show = |name: &str| TlsConfig {
        server_name: None,
        ca: tls.join("ca.pem"),
        certificate: Some(tls.join(format!("{name}.pem"))),
        key: Some(tls.join(format!("{name}.key"))),
    };
    let clients = Clients::new(&addresses, Some(&show("administrator"))).unwrap();
    poll::until("inventory answers", || async {
        clients
            .servers
            .clone()
            .list_servers(inventory::ListServersRequest::default())
            .await
            .ok()
    })
    .await;

    // Deny by default: who shows nothing, and who is somebody else, is refused.
    let nobody = Clients::new(
        &addresses,
        Some(&TlsConfig {
            server_name: None,
            ca: tls.join("ca.pem"),
            ..TlsConfig::default()
        }),
    )
    .unwrap();
    let refused = nobody
        .servers
        .clone()
        .list_servers(inventory::ListServersRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    // Nor does who may do the daily work forgive a wipe.
    let waive = inventory::WaiveSanitizationRequest {
        name: "x".into(),
        reason: "r".into(),
        actor: "a".into(),
        part: 0,
    };
    for (who, code) in [
        ("claim", tonic::Code::PermissionDenied),
        ("operator", tonic::Code::PermissionDenied),
        ("administrator", tonic::Code::NotFound),
    ] {
        let caller = Clients::new(&addresses, Some(&show(who))).unwrap();
        let refused = caller.servers.clone().waive_sanitization(waive.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{who}: {refused:?}");
    }

    let simulator = Process::simulate(4);
    let fleet = FleetConfig {
        count: 4,
        ..FleetConfig::default()
    };
    poll::until("the fleet is registered", || async {
        ironyard::demo::register(&clients, &fleet, simulator.port).await.ok()
    })
    .await;
    all(&clients, 4, ServerState::Available).await;

    // One life for each service, which is stopped in the middle of it.
    for service in SERVICES {
        for n in 0..4 {
            let claim = ServerClaim {
                metadata: Some(Metadata {
                    name: format!("tenant-{n}"),
                    ..Default::default()
                }),
                spec: Some(ServerClaimSpec {
                    power: PowerState::On.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            poll::until("the claim is made", || async {
                let request = claim::CreateServerClaimRequest {
                    server_claim: Some(claim.clone()),
                    request_id: format!("{service}-{n}"),
                };
                clients.claims.clone().create_server_claim(request).await.ok()
            })
            .await;
        }
        // A service that is just being started again is stopped as soon as it is there.
        let stop = || {
            poll::until("the service is stopped", || async {
                let pid = std::fs::read_to_string(folder.path().join(format!("{service}.pid"))).ok()?;
                Command::new("kill")
                    .arg(pid.trim())
                    .stderr(Stdio::null())
                    .status()
                    .ok()?
                    .success()
                    .then_some(())
            })
        };
        stop().await;
        poll::until("every claim runs", || async {
            let request = claim::ListServerClaimsRequest {
                page_size: 100,
                ..Default::default()
            };
            let claims = clients
                .claims
                .clone()
                .list_server_claims(request)
                .await
                .ok()?
                .into_inner()
                .server_claims;
            (claims.len() == 4 && claims.iter().all(|c| c.power_state() == PowerState::On)).then_some(())
        })
        .await;
        for n in 0..4 {
            poll::until("the claim is released", || async {
                let request = claim::DeleteServerClaimRequest {
                    name: format!("tenant-{n}"),
                    etag: String::new(),
                };
                match clients.claims.clone().delete_server_claim(request).await {
                    Ok(_) => Some(()),
                    Err(status) => (status.code() == tonic::Code::NotFound).then_some(()),
                }
            })
            .await;
        }
        stop().await;
        all(&clients, 4, ServerState::Available).await;
    }
    let certificates = poll::until("certificates are told", || async {
        clients
            .sanitization
            .clone()
            .list_certificates(claim::ListCertificatesRequest::default())
            .await
            .ok()
    })
    .await;
    let passed = certificates.into_inner().certificates.iter().filter(|c| c.passed).count();
    assert_eq!(passed, 4 * SERVICES.len(), "one certificate for each life of each server");
}
