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
use ironyard_peers::{Gateway, Inventory, name, poke_on_servers, resync_on_servers};
use ironyard_proto::maintenance::server_maintenance_service_server::{SERVICE_NAME, ServerMaintenanceServiceServer};
use ironyard_reconcile::{Queue, Runner};
use ironyard_resource::Context;
use ironyard_types::Clock;
use tasks::{maintenances::Maintenances, servers::Servers};
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
        let queue = |name| Queue::new(db.clone(), name);
        let app = App {
            inventory: Inventory::new(peers.channel(&peers.inventory)?),
            gateway: Gateway::new(peers.channel(&peers.bmc_gateway)?),
            settings,
            maintenances: queue("maintenance"),
            servers: queue("wanted"),
            cx: Context { db, clock },
        };
        Ok(Self { app })
    }

    /// Adds its methods.
    pub fn register(&self, routes: &mut RoutesBuilder) {
        routes.add_service(ServerMaintenanceServiceServer::new(grpc::Grpc(self.app.clone())));
    }

    /// Reconciles until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let App {
            cx,
            inventory,
            maintenances,
            servers,
            ..
        } = self.app.clone();
        let app = self.app;
        let watches = async {
            tokio::select! {
                () = poke_on_servers(inventory.clone(), servers.clone(), |server| vec![name(server)]) => {}
                () = resync_on_servers(inventory, servers.clone(), |server| vec![name(server)]) => {}
                () = shutdown.cancelled() => {}
            }
        };
        tokio::join!(
            Runner::new(maintenances, Arc::new(Maintenances(app.clone())), 32).run(shutdown.clone()),
            Runner::new(servers.clone(), Arc::new(Servers(app)), 32).run(shutdown.clone()),
            ironyard_resource::housekeep(&cx, shutdown.clone()),
            watches,
        );
        cx.db.close().await;
    }
}
