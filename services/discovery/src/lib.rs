//! Discovery: the only owner of endpoints and of the agent's runs. It draws Initial → Discovery → Available.

mod app;
mod config;
pub mod domain;
pub mod grpc;
mod image;
mod image_file;
mod notifier;
pub mod store;
pub mod tasks;

use std::sync::Arc;

use app::App;
pub use config::{Config, Settings};
use domain::{agent_run::AgentRun, endpoint::Endpoint};
pub use image::Config as ImageConfig;
use image::ImageServer;
use ironyard_db::{Db, Migration, record};
use ironyard_peers::{Gateway, Inventory, Peers, Wakeups, enqueue_on_bmcs, follow_servers, name, resync_on_servers};
use ironyard_proto::{
    discovery::{
        agent_run_service_server::{self, AgentRunServiceServer},
        agent_service_server::{self, AgentServiceServer},
        endpoint_service_server::{self, EndpointServiceServer},
    },
    inventory::{Server, ServerState},
};
use ironyard_reconcile::{Controller, Queue, Runner, run_all};
use ironyard_resource::Context;
use ironyard_types::Clock;
use notifier::RunNotifier;
use tasks::{agent_runs::AgentRuns, bmcs::Bmcs, endpoints::Endpoints, servers::Servers};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

/// Schema of its database.
pub const MIGRATIONS: &[Migration] = &[
    ironyard_reconcile::MIGRATIONS[0],
    ironyard_reconcile::MIGRATIONS[1],
    ironyard_reconcile::MIGRATIONS[2],
    ironyard_reconcile::MIGRATIONS[3],
    ironyard_operation::MIGRATIONS[0],
    ironyard_operation::MIGRATIONS[1],
    Migration {
        version: 101,
        name: "discovery",
        sql: include_str!("../migrations/0101_discovery.sql"),
    },
    Migration {
        version: 102,
        name: "image",
        sql: include_str!("../migrations/0102_image.sql"),
    },
];

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("could not open the database")]
    Database(#[from] ironyard_db::Error),
    /// The agent's image.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A peer's address.
    #[error("could not set up a peer")]
    Peer(#[from] ironyard_rpc::client::Error),
}

/// A process that died between storing a record and making it due left it to us.
async fn enqueue_all(app: &App) -> ironyard_db::Result<()> {
    for run in record::list_oldest::<AgentRun>(&app.cx.db, 100_000, &[("ended", "false")]).await? {
        app.runs.enqueue(&run.value.metadata.name).await?;
    }
    for endpoint in record::list::<Endpoint>(&app.cx.db, "", 1_000_000, &[]).await? {
        app.endpoints.enqueue(&endpoint.value.metadata.name).await?;
    }
    Ok(())
}

/// The service, ready to be served.
#[derive(Clone)]
pub struct Service {
    app: App,
    images: Option<Arc<ImageServer>>,
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
        let image = settings.image.clone();
        let mut service = Self::over(db, peers.connect()?, settings, clock);
        if let Some(image) = image {
            let (server, url) = ImageServer::open(&image, &service.app.settings.agent_url).await?;
            service.images = Some(Arc::new(server));
            service.app.image_url = url;
        }
        Ok(service)
    }

    /// Over a database that is open, and peers that are known.
    pub fn over(db: Db, peers: Peers, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let queue = |name| Queue::new(db.clone(), name);
        let app = App {
            inventory: Inventory::new(peers.inventory),
            gateway: Gateway::new(peers.bmc_gateway),
            image_url: settings.image.as_ref().map(|i| i.url.clone()).unwrap_or_default(),
            settings,
            endpoints: queue("endpoint"),
            bmcs: queue("bmc"),
            servers: queue("server"),
            runs: queue("agent_run"),
            notifier: RunNotifier::default(),
            wakeups: Wakeups::default(),
            cx: Context { db, clock },
        };
        Self { app, images: None }
    }

    /// Adds its methods.
    pub fn register(&self, routes: &mut RoutesBuilder) {
        let agent = grpc::agent::Grpc(self.app.clone());
        routes.add_service(EndpointServiceServer::new(grpc::endpoint::Grpc(self.app.clone())));
        routes.add_service(AgentRunServiceServer::new(agent.clone()));
        routes.add_service(AgentServiceServer::new(agent));
    }

    /// Its loops.
    pub fn controllers(&self) -> Vec<Box<dyn Controller>> {
        let app = &self.app;
        let bmcs = Bmcs {
            app: app.clone(),
            endpoints: ironyard_db::Snapshot::default(),
        };
        vec![
            Box::new(Runner::new(app.endpoints.clone(), Arc::new(Endpoints(app.clone())), 8)),
            Box::new(Runner::new(app.bmcs.clone(), Arc::new(bmcs), 32)),
            Box::new(Runner::new(app.servers.clone(), Arc::new(Servers(app.clone())), 64)),
            Box::new(Runner::new(app.runs.clone(), Arc::new(AgentRuns(app.clone())), 64)),
        ]
    }

    /// A server became what it is: looks at what that concerns.
    pub async fn saw(&self, server: &Server) -> ironyard_db::Result<()> {
        match server.state() {
            ServerState::Initial | ServerState::Discovery | ServerState::Unspecified => self.app.servers.enqueue(&name(server)).await,
            // After a waiver its drives are read before anybody can claim it.
            ServerState::Available
                if server
                    .observed
                    .as_ref()
                    .and_then(|o| o.hardware.as_ref())
                    .is_some_and(|h| h.drives.is_empty()) =>
            {
                self.app.servers.enqueue(&name(server)).await
            }
            // It is looked at now and then; nothing hastens that.
            ServerState::Available | ServerState::Reserved | ServerState::Cleanup | ServerState::Maintenance | ServerState::Error => Ok(()),
        }
    }

    /// Reconciles until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let App {
            cx,
            inventory,
            gateway,
            bmcs,
            servers,
            ..
        } = self.app.clone();
        if let Err(error) = enqueue_all(&self.app).await {
            tracing::warn!(%error, "could not look at what an earlier process left");
        }
        let metadata_name = |bmc: &ironyard_proto::bmc::Bmc| bmc.metadata.as_ref().map(|m| m.name.clone()).into_iter().collect::<Vec<_>>();
        let watches = async {
            tokio::join!(
                follow_servers(inventory.clone(), async |server| self.saw(&server).await),
                resync_on_servers(inventory, servers, |server| vec![name(server)]),
                enqueue_on_bmcs(gateway.clone(), bmcs, metadata_name),
                self.app.wakeups.follow_operations(gateway),
                self.app.notifier.follow(&cx),
            )
        };
        let watches = async {
            tokio::select! {
                _ = watches => {}
                () = shutdown.cancelled() => {}
            }
        };
        let images = async {
            if let Some(images) = &self.images {
                images.clone().run(self.app.clone(), shutdown.clone()).await;
            }
        };
        tokio::join!(
            images,
            run_all(self.controllers(), &shutdown),
            ironyard_resource::housekeep(&cx, &[store::ENDED], shutdown.clone()),
            watches,
        );
        cx.db.close().await;
    }
}
