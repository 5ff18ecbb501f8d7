//! Claims: the only owner of claims, cleanup runs and sanitization certificates. It draws Available → Reserved → Cleanup → Available.

mod app;
mod config;
pub mod domain;
pub mod grpc;
pub mod store;
pub mod tasks;

use std::sync::Arc;

use app::{App, BIND};
pub use config::{Config, Settings};
use ironyard_db::{Db, Migration};
use ironyard_peers::{Gateway, Inventory, Peers, Wakeups, follow_servers, name, resync_on_servers};
use ironyard_proto::{
    claim::{
        sanitization_service_server::{self, SanitizationServiceServer},
        server_claim_service_server::{self, ServerClaimServiceServer},
    },
    discovery::agent_run_service_client::AgentRunServiceClient,
    inventory::{Server, ServerState},
};
use ironyard_reconcile::{Controller, Queue, Runner, run_all};
use ironyard_resource::Context;
use ironyard_types::Clock;
use tasks::{adoption::Adoption, binder::Binder, claims::Claims, cleanup::Cleanup};
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
        name: "claim",
        sql: include_str!("../migrations/0101_claim.sql"),
    },
    Migration {
        version: 102,
        name: "pending",
        sql: include_str!("../migrations/0102_pending.sql"),
    },
    Migration {
        version: 103,
        name: "evidence",
        sql: include_str!("../migrations/0103_evidence.sql"),
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
    /// Discovery is needed to boot the agent.
    #[error("peers.discovery is missing: without the agent no wipe can be verified")]
    NoDiscovery,
}

/// The service, ready to be served.
#[derive(Clone)]
pub struct Service {
    app: App,
}

impl Service {
    /// Names for health and reflection.
    pub const NAMES: &'static [&'static str] = &[server_claim_service_server::SERVICE_NAME, sanitization_service_server::SERVICE_NAME];

    /// Opens the database.
    pub async fn open(
        database: &ironyard_db::Config,
        peers: &ironyard_peers::Config,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let db = Db::open(database, MIGRATIONS).await?;
        Self::over(db, peers.connect()?, settings, clock)
    }

    /// Over a database that is open, and peers that are known.
    pub fn over(db: Db, peers: Peers, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let queue = |name| Queue::new(db.clone(), name);
        let discovery = peers.discovery.ok_or(Error::NoDiscovery)?;
        let app = App {
            inventory: Inventory::new(peers.inventory),
            gateway: Gateway::new(peers.bmc_gateway),
            agent: AgentRunServiceClient::new(discovery).max_decoding_message_size(64 << 20),
            wakeups: Wakeups::default(),
            settings,
            // It changes its own records and asks inventory to reserve, both under its fence.
            binder: queue("binder").with_asynchronous_leases(),
            pending: Arc::default(),
            waking: Arc::default(),
            reserved: Arc::default(),
            claims: queue("claim"),
            adoptions: queue("adoption"),
            cleanups: queue("cleanup"),
            cx: Context { db, clock },
        };
        Ok(Self { app })
    }

    /// Adds its methods.
    pub fn register(&self, routes: &mut RoutesBuilder) {
        routes.add_service(ServerClaimServiceServer::new(grpc::server_claim::Grpc(self.app.clone())));
        routes.add_service(SanitizationServiceServer::new(grpc::sanitization::Grpc(self.app.clone())));
    }

    /// Its loops.
    pub fn controllers(&self) -> Vec<Box<dyn Controller>> {
        let app = &self.app;
        vec![
            Box::new(Runner::new(app.binder.clone(), Arc::new(Binder::new(app.clone())), 1)),
            Box::new(Runner::new(app.claims.clone(), Arc::new(Claims(app.clone())), 64)),
            Box::new(Runner::new(app.cleanups.clone(), Arc::new(Cleanup(app.clone())), 64)),
            Box::new(Runner::new(app.adoptions.clone(), Arc::new(Adoption(app.clone())), 8)),
        ]
    }

    /// A server became what it is: looks at what that concerns.
    pub async fn saw(&self, server: &Server) -> ironyard_db::Result<()> {
        let app = &self.app;
        tasks::binder::wake(app, server).await?;
        if let Some(claim) = &server.claim_ref
            && app.reserved.is_news(server)
        {
            app.claims.enqueue(&claim.name).await?;
        }
        if server.state() == ServerState::Cleanup {
            app.cleanups.enqueue(&name(server)).await?;
        }
        if tasks::adoption::is_wanted(server) {
            app.adoptions.enqueue(&name(server)).await?;
        }
        Ok(())
    }

    /// Says of a server that a claim holds whether that claim is known.
    pub async fn sweep(&self, server: &Server) -> Result<(), ironyard_peers::TaskError> {
        tasks::orphans::look(&self.app, server).await
    }

    /// Reconciles until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let App {
            cx,
            inventory,
            gateway,
            agent,
            wakeups,
            binder,
            cleanups,
            ..
        } = self.app.clone();
        if let Err(error) = binder.enqueue(BIND).await {
            tracing::warn!(%error, "could not begin to bind");
        }
        let to_clean = |s: &Server| -> Vec<String> { (s.state() == ServerState::Cleanup).then(|| name(s)).into_iter().collect() };
        let watches = async {
            tokio::join!(
                follow_servers(inventory.clone(), async |server| self.saw(&server).await),
                resync_on_servers(inventory, cleanups, to_clean),
                tasks::orphans::sweep(self.app.clone()),
                wakeups.follow_operations(gateway),
                wakeups.follow_agent_runs(agent),
            )
        };
        let watches = async {
            tokio::select! {
                _ = watches => {}
                () = shutdown.cancelled() => {}
            }
        };
        tokio::join!(
            run_all(self.controllers(), &shutdown),
            self.app.keep_waking(&shutdown),
            ironyard_resource::housekeep(&cx, &[], shutdown.clone()),
            watches,
        );
        cx.db.close().await;
    }
}
