//! Discovery: the only owner of endpoints and of the agent's runs. It draws Initial → Discovery → Available.

mod app;
mod config;
pub mod domain;
pub mod grpc;
pub mod store;
pub mod tasks;

use std::sync::Arc;

use app::App;
pub use config::{Config, Settings};
use domain::{agent_run::AgentRun, endpoint::Endpoint};
use ironyard_db::{Db, Migration, record};
use ironyard_peers::{Gateway, Inventory, name, poke_on_bmcs, poke_on_servers, resync_on_servers};
use ironyard_proto::discovery::{
    agent_run_service_server::{self, AgentRunServiceServer},
    agent_service_server::{self, AgentServiceServer},
    endpoint_service_server::{self, EndpointServiceServer},
};
use ironyard_reconcile::{Queue, Runner};
use ironyard_resource::Context;
use ironyard_types::Clock;
use tasks::{agent_runs::AgentRuns, bmcs::Bmcs, endpoints::Endpoints, servers::Servers};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

const MIGRATIONS: &[Migration] = &[
    ironyard_reconcile::MIGRATIONS[0],
    ironyard_reconcile::MIGRATIONS[1],
    ironyard_reconcile::MIGRATIONS[2],
    ironyard_operation::MIGRATIONS[0],
    ironyard_operation::MIGRATIONS[1],
    Migration {
        version: 101,
        name: "discovery",
        sql: include_str!("../migrations/0101_discovery.sql"),
    },
];

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("could not open the database")]
    Database(#[from] ironyard_db::Error),
    /// A peer's address.
    #[error("could not set up a peer")]
    Peer(#[from] ironyard_rpc::client::Error),
}

/// A process that died between storing a record and making it due left it to us.
async fn poke_all(app: &App) -> ironyard_db::Result<()> {
    for run in record::list_oldest::<AgentRun>(&app.cx.db, 100_000, &[("ended", "false")]).await? {
        app.runs.poke(&run.value.metadata.name).await?;
    }
    for endpoint in record::list::<Endpoint>(&app.cx.db, "", 1_000_000, &[]).await? {
        app.endpoints.poke(&endpoint.value.metadata.name).await?;
    }
    Ok(())
}

/// The service, ready to be served.
#[derive(Clone)]
pub struct Service {
    app: App,
}

impl Service {
    /// Names for health and reflection.
    pub const NAMES: &'static [&'static str] = &[
        endpoint_service_server::SERVICE_NAME,
        agent_run_service_server::SERVICE_NAME,
        agent_service_server::SERVICE_NAME,
    ];

    /// Opens the database.
    pub async fn open(
        database: &ironyard_db::Config,
        peers: &ironyard_peers::Config,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let db = Db::open(database, MIGRATIONS).await?;
        let queue = |name| Queue::new(db.clone(), name);
        let app = App {
            inventory: Inventory::new(peers.channel(&peers.inventory)?),
            gateway: Gateway::new(peers.channel(&peers.bmc_gateway)?),
            settings,
            endpoints: queue("endpoint"),
            bmcs: queue("bmc"),
            servers: queue("server"),
            runs: queue("agent_run"),
            cx: Context { db, clock },
        };
        Ok(Self { app })
    }

    /// Adds its methods.
    pub fn register(&self, routes: &mut RoutesBuilder) {
        let agent = grpc::agent::Grpc(self.app.clone());
        routes.add_service(EndpointServiceServer::new(grpc::endpoint::Grpc(self.app.clone())));
        routes.add_service(AgentRunServiceServer::new(agent.clone()));
        routes.add_service(AgentServiceServer::new(agent));
    }

    /// Reconciles until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let App {
            cx,
            inventory,
            gateway,
            endpoints,
            bmcs,
            servers,
            runs,
            ..
        } = self.app.clone();
        let app = self.app;
        if let Err(error) = poke_all(&app).await {
            tracing::warn!(%error, "could not look at what an earlier process left");
        }
        let metadata_name = |bmc: &ironyard_proto::bmc::Bmc| bmc.metadata.as_ref().map(|m| m.name.clone()).into_iter().collect::<Vec<_>>();
        let watches = async {
            tokio::join!(
                poke_on_servers(inventory.clone(), servers.clone(), |server| vec![name(server)]),
                resync_on_servers(inventory, servers.clone(), |server| vec![name(server)]),
                poke_on_bmcs(gateway, bmcs.clone(), metadata_name),
            )
        };
        let watches = async {
            tokio::select! {
                _ = watches => {}
                () = shutdown.cancelled() => {}
            }
        };
        tokio::join!(
            Runner::new(endpoints, Arc::new(Endpoints(app.clone())), 8).run(shutdown.clone()),
            Runner::new(
                bmcs.clone(),
                Arc::new(Bmcs {
                    app: app.clone(),
                    endpoints: ironyard_db::Snapshot::default(),
                }),
                32
            )
            .run(shutdown.clone()),
            Runner::new(servers.clone(), Arc::new(Servers(app.clone())), 64).run(shutdown.clone()),
            Runner::new(runs, Arc::new(AgentRuns(app)), 64).run(shutdown.clone()),
            ironyard_resource::housekeep(&cx, shutdown.clone()),
            watches,
        );
        cx.db.close().await;
    }
}
