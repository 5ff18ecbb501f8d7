//! The five services in one process, on one port.

use std::{net::SocketAddr, os::unix::fs::DirBuilderExt, path::PathBuf, sync::Arc, time::Duration};

use ironyard_bmc_gateway::Gateway;
use ironyard_discovery::Settings as DiscoverySettings;
use ironyard_rpc::server;
use ironyard_types::{
    SystemClock,
    hardware::{FirstWipe, RunningMachines},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// What `up` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder for SQLite files and the key.
    pub data: PathBuf,
    /// PostgreSQL instead of SQLite: one schema for each service.
    pub database_url: Option<String>,
    /// Address to listen on; loopback.
    pub listen: SocketAddr,
    /// Plaintext address for health checks and metrics.
    pub ops_listen: Option<SocketAddr>,
    /// The agent's image.
    pub image: Option<ironyard_discovery::ImageConfig>,
    /// How machines reach discovery from inside; empty: as everybody does.
    pub agent_url: String,
    /// Whether the agent is needed where a server does not say.
    pub in_band: ironyard_discovery::domain::discovery_run::InBand,
    /// Time for a machine to boot the agent.
    pub boot_timeout: Duration,
    /// What happens to machines that run when they are discovered.
    pub running_machines: RunningMachines,
    /// What machines owe that were never wiped here.
    pub first_wipe: FirstWipe,
    /// The gateway: how long hardware may take, how often it is asked.
    pub gateway: Gateway,
    /// Time for a discovery whose BMC does not do what it should.
    pub patience: Duration,
    /// Whether a server is offered although nobody has seen all of its storage.
    pub offer_unread_storage: bool,
    /// How often the power of a server at rest is read.
    pub poll: Duration,
    /// How often the hardware of a server that nobody uses is read again.
    pub hardware_refresh: Duration,
    /// MAC prefixes.
    pub mac_prefixes: Vec<ironyard_discovery::domain::endpoint::MacPrefix>,
    /// Claims and wipes.
    pub claim: ironyard_claim::Settings,
}

impl Config {
    /// The defaults, with records in this folder.
    pub fn new(data: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data: data.into(),
            database_url: None,
            listen,
            ops_listen: None,
            // Until there is one for real machines.
            image: Some(ironyard_discovery::ImageConfig::simulated(([127, 0, 0, 1], 0).into())),
            agent_url: String::new(),
            in_band: ironyard_discovery::domain::discovery_run::InBand::Optional,
            boot_timeout: Duration::from_secs(600),
            running_machines: RunningMachines::Wait,
            first_wipe: FirstWipe::Wait,
            gateway: Gateway {
                read_timeout: Duration::from_secs(20),
                retry_backoff: Duration::from_millis(500),
                ..Gateway::new("")
            },
            patience: Duration::from_secs(600),
            offer_unread_storage: false,
            poll: Duration::from_secs(60),
            hardware_refresh: Duration::from_secs(24 * 3600),
            mac_prefixes: vec![],
            claim: ironyard_claim::Settings::default(),
        }
    }

    fn database(&self, service: &str) -> ironyard_db::Config {
        match &self.database_url {
            Some(url) => ironyard_db::Config {
                schema: Some(service.to_owned()),
                ..ironyard_db::Config::url(url)
            },
            None => ironyard_db::Config::url(format!("sqlite://{}", self.data.join(format!("{service}.db")).display())),
        }
    }
}

/// The services, running.
pub struct Stack {
    /// Where they answer.
    pub address: String,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Stack {
    /// Opens everything and serves.
    pub async fn start(config: Config) -> Result<Self, BoxError> {
        // Records and the key that seals passwords: nobody else reads them.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data)?;
        let server = server::Config {
            listen: config.listen,
            ops_listen: config.ops_listen,
            tls: None,
        };
        let listener = server::bind(&server).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let clock = Arc::new(SystemClock);
        let peers = ironyard_peers::Config::all_at(&address);
        let gateway = Gateway {
            key_file: config.data.join("gateway.key"),
            create_key: true,
            // `up` is for laboratories: simulated BMCs live on loopback.
            allowed_ranges: vec!["0.0.0.0/0".parse()?, "::/0".parse()?],
            spool: config.data.join("firmware"),
            inventory: Some(ironyard_bmc_gateway::Peer {
                address: address.clone(),
                tls: None,
            }),
            ..config.gateway.clone()
        };
        let discovery = DiscoverySettings {
            agent_url: if config.agent_url.is_empty() {
                address.clone()
            } else {
                config.agent_url.clone()
            },
            image: config.image.clone(),
            in_band: config.in_band,
            boot_timeout: config.boot_timeout,
            running_machines: config.running_machines,
            first_wipe: config.first_wipe,
            agent_wait: Duration::from_secs(8),
            patience: config.patience,
            offer_unread_storage: config.offer_unread_storage,
            poll: config.poll,
            hardware_refresh: config.hardware_refresh,
            mac_prefixes: config.mac_prefixes.clone(),
        };
        let claim = config.claim.clone();
        let databases = ["inventory", "bmc_gateway", "discovery", "claim", "maintenance"].map(|service| config.database(service));
        let [d_inventory, d_gateway, d_discovery, d_claim, d_maintenance] = &databases;
        let (inventory, gateway, discovery, claim, maintenance) = tokio::join!(
            boxed(ironyard_inventory::Service::open(d_inventory, clock.clone())),
            boxed(ironyard_bmc_gateway::Service::open(d_gateway, gateway, clock.clone())),
            boxed(ironyard_discovery::Service::open(d_discovery, &peers, discovery, clock.clone())),
            boxed(ironyard_claim::Service::open(d_claim, &peers, claim, clock.clone())),
            boxed(ironyard_maintenance::Service::open(
                d_maintenance,
                &peers,
                ironyard_maintenance::Settings::default(),
                clock.clone()
            )),
        );
        let (inventory, gateway, discovery, claim, maintenance) = (inventory?, gateway?, discovery?, claim?, maintenance?);
        let mut routes = Routes::builder();
        inventory.register(&mut routes);
        gateway.register(&mut routes);
        discovery.register(&mut routes);
        claim.register(&mut routes);
        maintenance.register(&mut routes);
        let names: Vec<&'static str> = [
            ironyard_inventory::Service::NAMES,
            ironyard_bmc_gateway::Service::NAMES,
            ironyard_discovery::Service::NAMES,
            ironyard_claim::Service::NAMES,
            ironyard_maintenance::Service::NAMES,
        ]
        .concat();
        let (work, serving) = (CancellationToken::new(), CancellationToken::new());
        let stop = work.clone();
        let workers = vec![
            tokio::spawn(inventory.run(serving.clone())),
            tokio::spawn(gateway.run(work.clone())),
            tokio::spawn(discovery.run(work.clone())),
            tokio::spawn(claim.run(work.clone())),
            tokio::spawn(maintenance.run(work.clone())),
        ];
        let served = tokio::spawn(async move {
            if let Err(error) = server::serve(&server, listener, &names, routes, serving).await {
                tracing::error!(%error, "the server failed");
            }
        });
        let mut tasks = workers;
        tasks.push(served);
        Ok(Self {
            address,
            shutdown: stop,
            tasks,
        })
    }

    /// Lets every step finish, then stops.
    pub async fn stop(self) {
        self.shutdown.cancel();
        for task in &self.tasks[1..self.tasks.len() - 1] {
            let waited = async {
                while !task.is_finished() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(12), waited).await;
        }
        for task in self.tasks {
            task.abort();
        }
    }
}

async fn boxed<T, E: std::error::Error + Send + Sync + 'static>(open: impl Future<Output = Result<T, E>>) -> Result<T, BoxError> {
    open.await.map_err(Into::into)
}
