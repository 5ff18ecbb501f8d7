//! A stack and a simulated fleet in this process.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use ironyard::{
    client::Clients,
    demo::register,
    simulate::boot_agent,
    stack::{Config, Stack},
};
use ironyard_bmc_gateway::tasks::steps::Patience;
use ironyard_bmc_simulator::{Fleet, FleetConfig, Machine, Serving, serve};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    claim::{self, ServerClaim, ServerClaimSpec},
    common::{LabelSelector, Metadata, PowerState},
    inventory::{self, Server, ServerState},
};
use ironyard_testkit::{Postgres, poll};
use tempfile::TempDir;

pub struct World {
    pub stack: Stack,
    pub clients: Clients,
    pub fleet: Fleet,
    pub fleet_config: FleetConfig,
    pub port: u16,
    pub data: TempDir,
    _serving: Serving,
    postgres: Option<Postgres>,
}

/// Which database a world stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum On {
    Sqlite,
    Postgres,
}

impl World {
    /// A stack and a fleet that do not know each other yet; `None` where there is no PostgreSQL.
    pub async fn apart(on: On, count: u32, in_band: InBand) -> Option<Self> {
        Self::tuned(on, count, in_band, |_| {}).await
    }

    /// The same, with settings of its own.
    pub async fn tuned(on: On, count: u32, in_band: InBand, change: impl FnOnce(&mut Config)) -> Option<Self> {
        let postgres = match on {
            On::Sqlite => None,
            On::Postgres => Some(Postgres::start().await?),
        };
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path(), ([127, 0, 0, 1], 0).into());
        config.first_wipe = ironyard_types::hardware::FirstWipe::Waive;
        config.in_band = in_band;
        config.database_url = postgres.as_ref().map(Postgres::url);
        config.boot_timeout = Duration::from_secs(30);
        config.gateway.requests_per_second = 0;
        config.gateway.polling.power = Duration::from_secs(2);
        config.gateway.patience = Patience {
            graceful: Duration::from_secs(3),
            unreachable: Duration::from_secs(30),
            lost_answer: Duration::from_secs(5),
            ..Patience::default()
        };
        change(&mut config);
        let stack = Stack::start(config).await.unwrap();
        let fleet_config = FleetConfig {
            count,
            first: Ipv4Addr::new(127, 90, 0, 1),
            ..FleetConfig::default()
        };
        let fleet = Fleet::new(&fleet_config, Some(boot_agent()));
        let serving = serve(fleet.clone(), 0, false).unwrap();
        let clients = Clients::at(&stack.address).unwrap();
        Some(Self {
            stack,
            clients,
            fleet,
            fleet_config,
            port: serving.port,
            data,
            _serving: serving,
            postgres,
        })
    }

    /// A fleet that has been discovered.
    pub async fn with(on: On, count: u32, in_band: InBand) -> Option<Self> {
        let world = Self::apart(on, count, in_band).await?;
        world.discovered().await;
        Some(world)
    }

    /// Makes the fleet known and waits until it is discovered.
    pub async fn discovered(&self) {
        self.register().await;
        for n in 0..self.fleet_config.count {
            self.reaches(&format!("bmc-{n}-1"), ServerState::Available).await;
        }
    }

    /// Makes the fleet known.
    pub async fn register(&self) {
        register(&self.clients, &self.fleet_config, self.port).await.unwrap();
    }

    /// URL of a service's database, and what stands before the names of its tables.
    pub fn database(&self, service: &str) -> (String, String) {
        match &self.postgres {
            Some(postgres) => (postgres.url(), format!("{service}.")),
            None => (
                format!("sqlite://{}", self.data.path().join(format!("{service}.db")).display()),
                String::new(),
            ),
        }
    }

    pub fn machine(&self, n: usize) -> Arc<Machine> {
        self.fleet.machines()[n].clone()
    }

    pub async fn server(&self, name: &str) -> Option<Server> {
        let request = inventory::GetServerRequest { name: name.to_owned() };
        self.clients
            .servers
            .clone()
            .get_server(request)
            .await
            .ok()
            .map(tonic::Response::into_inner)
    }

    /// Waits until a server is in a state. Any other Error on the way is a failure that shows its cause.
    pub async fn reaches(&self, name: &str, state: ServerState) -> Server {
        poll::until(&format!("{name} is {}", state.as_str_name()), || async {
            let server = self.server(name).await?;
            if server.state() == ServerState::Error && state != ServerState::Error {
                panic!("{name} is in Error: {:?}", server.failure);
            }
            (server.state() == state).then_some(server)
        })
        .await
    }

    pub async fn try_claim(&self, name: &str, spec: ServerClaimSpec) -> Result<ServerClaim, tonic::Status> {
        let claim = ServerClaim {
            metadata: Some(Metadata {
                name: name.to_owned(),
                ..Default::default()
            }),
            spec: Some(spec),
            ..Default::default()
        };
        let request = claim::CreateServerClaimRequest {
            server_claim: Some(claim),
            request_id: String::new(),
        };
        Ok(self.clients.claims.clone().create_server_claim(request).await?.into_inner())
    }

    /// Claims any server, switched on.
    pub async fn claim(&self, name: &str) {
        let spec = ServerClaimSpec {
            power: PowerState::On.into(),
            server_selector: Some(LabelSelector::default()),
            ..Default::default()
        };
        self.try_claim(name, spec).await.unwrap();
    }

    pub async fn get_claim(&self, name: &str) -> Option<ServerClaim> {
        let request = claim::GetServerClaimRequest { name: name.to_owned() };
        self.clients
            .claims
            .clone()
            .get_server_claim(request)
            .await
            .ok()
            .map(tonic::Response::into_inner)
    }

    /// Waits until a claim has a server that runs; its name.
    pub async fn runs(&self, name: &str) -> String {
        poll::until(&format!("claim {name} has a server that runs"), || async {
            let claim = self.get_claim(name).await?;
            (claim.power_state() == PowerState::On).then(|| claim.bound_server.map(|s| s.name))?
        })
        .await
    }

    pub async fn release(&self, name: &str) {
        let request = claim::DeleteServerClaimRequest {
            name: name.to_owned(),
            etag: String::new(),
        };
        self.clients.claims.clone().delete_server_claim(request).await.unwrap();
    }

    pub async fn certificates(&self, server: &str) -> Vec<claim::SanitizationCertificate> {
        let request = claim::ListCertificatesRequest {
            server: server.to_owned(),
            ..Default::default()
        };
        self.clients
            .sanitization
            .clone()
            .list_certificates(request)
            .await
            .unwrap()
            .into_inner()
            .certificates
    }

    pub async fn history(&self, server: &str) -> Vec<inventory::ServerHistoryEntry> {
        let request = inventory::ListServerHistoryRequest { name: server.to_owned() };
        self.clients
            .servers
            .clone()
            .list_server_history(request)
            .await
            .unwrap()
            .into_inner()
            .entries
    }
}
