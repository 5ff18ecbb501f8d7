//! The inventory service: the only owner of servers and of the rules of their life. It calls nobody.

pub mod app;
mod config;
pub mod domain;
pub mod grpc;
pub mod store;

use std::sync::Arc;

pub use config::Config;
use ironyard_db::{Db, Migration};
use ironyard_proto::inventory::server_service_server::{SERVICE_NAME, ServerServiceServer};
use ironyard_resource::Context;
use ironyard_types::Clock;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

/// Schema of its database.
pub const MIGRATIONS: &[Migration] = &[
    ironyard_operation::MIGRATIONS[0],
    ironyard_operation::MIGRATIONS[1],
    Migration {
        version: 101,
        name: "server",
        sql: include_str!("../migrations/0101_server.sql"),
    },
    Migration {
        version: 102,
        name: "fence",
        sql: include_str!("../migrations/0102_fence.sql"),
    },
];

/// The service, ready to be served.
#[derive(Clone)]
pub struct Service {
    cx: Context,
}

impl Service {
    /// Names for health and reflection.
    pub const NAMES: &'static [&'static str] = &[SERVICE_NAME];

    /// Opens the database.
    pub async fn open(database: &ironyard_db::Config, clock: Arc<dyn Clock>) -> ironyard_db::Result<Self> {
        Ok(Self::over(Db::open(database, MIGRATIONS).await?, clock))
    }

    /// Over a database that is open.
    pub fn over(db: Db, clock: Arc<dyn Clock>) -> Self {
        Self { cx: Context { db, clock } }
    }

    /// Adds its methods.
    pub fn register(&self, routes: &mut RoutesBuilder) {
        routes.add_service(ServerServiceServer::new(grpc::server::Grpc(self.cx.clone())));
    }

    /// Its database, for tests.
    pub fn db(&self) -> &Db {
        &self.cx.db
    }

    /// Housekeeping until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        ironyard_resource::housekeep(&self.cx, &[], shutdown).await;
        self.cx.db.close().await;
    }
}
