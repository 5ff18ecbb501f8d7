//! Maintenance: the only owner of maintenances. It draws Available ↔ Maintenance and Error → Maintenance, and makes servers at rest
//! what their owners want.

mod app;
mod config;
pub mod domain;
pub mod grpc;
pub mod tasks;

use std::sync::Arc;

use app::App;
pub use config::{Config, Settings};
use ironyard_db::{Db, Migration};
use ironyard_peers::{Gateway, Inventory, Peers, Wakeups, follow_servers, name, resync_on_servers};
use ironyard_proto::{
    inventory::{Server, ServerState},
    maintenance::server_maintenance_service_server::{SERVICE_NAME, ServerMaintenanceServiceServer},
};
use ironyard_reconcile::{Controller, Queue, Runner, run_all};
use ironyard_resource::Context;
use ironyard_types::Clock;
use tasks::{maintenances::Maintenances, servers::Servers};
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
        name: "maintenance",
        sql: include_str!("../migrations/0101_maintenance.sql"),
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

/// The service, ready to be served.
#[derive(Clone)]
pub struct Service {
    app: App,
}

impl Service {
    /// Names for health and reflection.
    pub const NAMES: &'static [&'static str] = &[SERVICE_NAME];

    /// Opens the database.
    pub async fn open(
        database: &ironyard_db::Config,
        peers: &ironyard_peers::Config,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let db = Db::open(database, MIGRATIONS).await?;
        Ok(Self::over(db, peers.connect()?, settings, clock))
    }

    /// Over a database that is open, and peers that are known.
    pub fn over(db: Db, peers: Peers, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let queue = |name| Queue::new(db.clone(), name);
        let app = App {
            inventory: Inventory::new(peers.inventory),
            gateway: Gateway::new(peers.bmc_gateway),
            wakeups: Wakeups::default(),
            settings,
            maintenances: queue("maintenance"),
            servers: queue("wanted"),
            cx: Context { db, clock },
        };
        Self { app }
    }

    /// Adds its methods.
    pub fn register(&self, routes: &mut RoutesBuilder) {
        routes.add_service(ServerMaintenanceServiceServer::new(grpc::Grpc(self.app.clone())));
    }

    /// Its loops.
    pub fn controllers(&self) -> Vec<Box<dyn Controller>> {
        let app = &self.app;
        vec![
            Box::new(Runner::new(app.maintenances.clone(), Arc::new(Maintenances(app.clone())), 32)),
            Box::new(Runner::new(app.servers.clone(), Arc::new(Servers(app.clone())), 32)),
        ]
    }

    /// A server became what it is: looks at what that concerns.
    pub async fn saw(&self, server: &Server) -> ironyard_db::Result<()> {
        match server.state() {
            ServerState::Available | ServerState::Maintenance | ServerState::Error | ServerState::Unspecified => {
                self.app.servers.enqueue(&name(server)).await
            }
            // Whatever waits for it, waits for another state.
            ServerState::Initial | ServerState::Discovery | ServerState::Reserved | ServerState::Cleanup => Ok(()),
        }
    }

    /// Reconciles until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let App {
            cx,
            inventory,
            gateway,
            wakeups,
            servers,
            ..
        } = self.app.clone();
        let watches = async {
            tokio::select! {
                () = follow_servers(inventory.clone(), async |server| self.saw(&server).await) => {}
                () = resync_on_servers(inventory, servers, |server| vec![name(server)]) => {}
                () = wakeups.follow_operations(gateway) => {}
                () = shutdown.cancelled() => {}
            }
        };
        tokio::join!(
            run_all(self.controllers(), &shutdown),
            ironyard_resource::housekeep(&cx, &[], shutdown.clone()),
            watches,
        );
        cx.db.close().await;
    }
}
