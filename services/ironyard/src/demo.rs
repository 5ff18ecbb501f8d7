//! The whole life of a simulated fleet, for people who want to see it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use ironyard_bmc_simulator::{Fleet, FleetConfig, serve};
use ironyard_proto::{bmc, claim, common, inventory};

use crate::{
    client::Clients,
    json::{text_at, to_json},
    simulate::boot_agent,
    stack::{Config, Stack},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Longest time that a step of the demonstration may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn metadata(name: String, labels: &[(&str, &str)]) -> Option<common::Metadata> {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Some(common::Metadata {
        name,
        labels,
        ..Default::default()
    })
}

/// Registers every BMC of a simulated fleet, with one credential for all.
pub async fn register(clients: &Clients, fleet: &FleetConfig, port: u16) -> Result<(), tonic::Status> {
    let secret = bmc::SetCredentialRequest {
        name: "simulated".to_owned(),
        username: fleet.username.clone(),
        password: fleet.password.clone(),
        replace: false,
        networks: vec![],
    };
    clients.credentials.clone().set_credential(secret).await?;
    for n in 0..fleet.count {
        let spec = bmc::BmcSpec {
            address: Ipv4Addr::from(u32::from(fleet.first) + n).to_string(),
            credential: "simulated".to_owned(),
            scheme: "http".to_owned(),
            port: port.into(),
            ..Default::default()
        };
        let bmc = bmc::Bmc {
            metadata: metadata(format!("bmc-{n}"), &[("fleet", "simulated")]),
            spec: Some(spec),
            ..Default::default()
        };
        match clients
            .bmcs
            .clone()
            .create_bmc(bmc::CreateBmcRequest {
                bmc: Some(bmc),
                request_id: String::new(),
            })
            .await
        {
            // A second start finds its BMCs; the port may be another one.
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                let old = clients
                    .bmcs
                    .clone()
                    .get_bmc(bmc::GetBmcRequest { name: format!("bmc-{n}") })
                    .await?
                    .into_inner();
                let mut new = old.clone();
                if let Some(spec) = &mut new.spec {
                    spec.port = port.into();
                }
                clients
                    .bmcs
                    .clone()
                    .update_bmc(bmc::UpdateBmcRequest {
                        bmc: Some(new),
                        ..Default::default()
                    })
                    .await?;
            }
            outcome => drop(outcome?),
        }
    }
    Ok(())
}

struct Progress {
    start: Instant,
    seen: BTreeMap<String, String>,
}

impl Progress {
    fn say(&self, text: &str) {
        eprintln!("{:6.1} s  {text}", self.start.elapsed().as_secs_f64());
    }

    /// Looks at all servers until each is in this state, and tells what changes.
    async fn until(&mut self, clients: &Clients, count: usize, state: &str) -> Result<Vec<inventory::Server>, BoxError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = inventory::ListServersRequest {
                page_size: 1000,
                ..Default::default()
            };
            let servers = clients.servers.clone().list_servers(request).await?.into_inner().servers;
            let mut there = 0;
            for server in &servers {
                let json = to_json("ironyard.inventory.v1.Server", server);
                let (name, now) = (text_at(&json, "/metadata/name"), text_at(&json, "/state"));
                there += usize::from(now == state);
                if now == "Error" {
                    return Err(format!("server {name} is in Error: {}", text_at(&json, "/failure/message")).into());
                }
                let wait = text_at(&json, "/waitingBecause/message");
                let line = if wait.is_empty() { now } else { format!("{now}: {wait}") };
                if self.seen.insert(name.clone(), line.clone()).as_ref() != Some(&line) {
                    self.say(&format!("{name:<12} {line}"));
                }
            }
            if there == count && servers.len() == count {
                return Ok(servers);
            }
            if Instant::now() > deadline {
                return Err(format!("only {there} of {count} servers are {state} after {} s", PATIENCE.as_secs()).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Runs it.
pub async fn run(count: u32) -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let mut config = Config::new(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
    config.first_wipe = ironyard_types::hardware::FirstWipe::Waive;
    config.in_band = ironyard_discovery::domain::discovery_run::InBand::Off;
    config.gateway.requests_per_second = 0;
    let stack = Stack::start(config).await?;
    let fleet_config = FleetConfig {
        count,
        ..FleetConfig::default()
    };
    let fleet = Fleet::new(&fleet_config, Some(boot_agent()));
    let serving = serve(fleet.clone(), 0, false)?;
    let clients = Clients::at(&stack.address)?;
    let mut progress = Progress {
        start: Instant::now(),
        seen: BTreeMap::new(),
    };
    let count = usize::try_from(count)?;

    progress.say(&format!(
        "{count} unknown BMCs on the management network; every other machine must also be seen from inside"
    ));
    for machine in fleet.machines().into_iter().filter(|m| m.config.number % 2 == 0) {
        // The record comes first here, so that its policy is known when the machine is found.
        let server = inventory::Server {
            metadata: metadata(format!("bmc-{}-1", machine.config.number), &[("fleet", "simulated")]),
            spec: Some(inventory::ServerSpec {
                system_uuid: machine.config.uuid.clone(),
                bmc_ref: Some(common::Reference {
                    name: format!("bmc-{}", machine.config.number),
                    uid: String::new(),
                }),
                in_band: inventory::InBandPolicy::Required.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = inventory::CreateServerRequest {
            server: Some(server),
            request_id: String::new(),
        };
        clients.servers.clone().create_server(request).await?;
    }
    register(&clients, &fleet_config, serving.port).await?;
    progress.until(&clients, count, "Available").await?;

    progress.say("claiming every server, switched on");
    for n in 0..count {
        let spec = claim::ServerClaimSpec {
            power: common::PowerState::On.into(),
            ..Default::default()
        };
        let claim = claim::ServerClaim {
            metadata: metadata(format!("tenant-{n}"), &[]),
            spec: Some(spec),
            ..Default::default()
        };
        let request = claim::CreateServerClaimRequest {
            server_claim: Some(claim),
            request_id: String::new(),
        };
        clients.claims.clone().create_server_claim(request).await?;
    }
    progress.until(&clients, count, "Reserved").await?;
    wait_for_power(&clients, count).await?;
    progress.say("the tenants write their data");
    for machine in fleet.machines() {
        for drive in machine.drives() {
            machine.with_drive(&drive.serial, |d| d.write(12_345, [0x5a; 512]));
        }
    }

    progress.say("the tenants give their servers back");
    for n in 0..count {
        let request = claim::DeleteServerClaimRequest {
            name: format!("tenant-{n}"),
            etag: String::new(),
        };
        clients.claims.clone().delete_server_claim(request).await?;
    }
    progress.until(&clients, count, "Cleanup").await.ok();
    let servers = progress.until(&clients, count, "Available").await?;
    let survivors = fleet
        .machines()
        .iter()
        .flat_map(|m| m.drives())
        .filter(|d| d.read(12_345) == [0x5a; 512])
        .count();
    progress.say(&format!("done; {survivors} drives still hold what a tenant wrote"));
    report(&clients, &servers).await?;
    stack.stop().await;
    if survivors > 0 {
        return Err(format!("{survivors} drives still hold what a tenant wrote").into());
    }
    Ok(())
}

async fn wait_for_power(clients: &Clients, count: usize) -> Result<(), BoxError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = claim::ListServerClaimsRequest {
            page_size: 1000,
            ..Default::default()
        };
        let claims = clients.claims.clone().list_server_claims(request).await?.into_inner().server_claims;
        let on = claims.iter().filter(|c| c.power_state() == common::PowerState::On).count();
        if on == count {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("only {on} of {count} claimed servers are on").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Prints the path of each server, and its certificate.
async fn report(clients: &Clients, servers: &[inventory::Server]) -> Result<(), BoxError> {
    for server in servers {
        let name = ironyard_peers::name(server);
        let request = inventory::ListServerHistoryRequest { name: name.clone() };
        let entries = clients.servers.clone().list_server_history(request).await?.into_inner().entries;
        let states = entries
            .iter()
            .map(|e| to_json("ironyard.inventory.v1.ServerHistoryEntry", e))
            .map(|json| text_at(&json, "/to"));
        println!("{name}: {}", states.collect::<Vec<_>>().join(" → "));
        let request = claim::ListCertificatesRequest {
            server: name.clone(),
            ..Default::default()
        };
        let certificates = clients
            .sanitization
            .clone()
            .list_certificates(request)
            .await?
            .into_inner()
            .certificates;
        let certificate = certificates.first().ok_or_else(|| format!("server {name} has no certificate"))?;
        if !certificate.passed {
            return Err(format!("certificate {} did not pass", certificate.name).into());
        }
        println!("  certificate {} passed", certificate.name);
        for drive in &certificate.drives {
            println!(
                "    {} {} ({:.0} GB): {} by {} [{}], verified: {}",
                drive.model,
                drive.serial_number,
                drive.capacity_bytes as f64 / 1e9,
                drive.category,
                drive.method,
                drive.tool,
                drive.verification
            );
        }
    }
    Ok(())
}
