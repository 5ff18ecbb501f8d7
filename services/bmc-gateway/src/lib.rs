//! The gateway: the only owner of BMCs and their credentials, and the only component that opens a socket to one.

pub mod app;
mod config;
pub mod device;
pub mod domain;
pub mod grpc;
pub mod replicas;
pub mod store;
pub mod tasks;
pub mod vault;

use std::{path::PathBuf, sync::Arc};

pub use config::{Config, Gateway, Peer};
use device::{Consoles, Devices, Settings};
use ironyard_db::{Db, Migration};
use ironyard_peers::Inventory;
use ironyard_proto::bmc::{
    bmc_service_server::{self, BmcServiceServer},
    console_service_server::{self, ConsoleServiceServer},
    credential_service_server::{self, CredentialServiceServer},
    manager_service_server::{self, ManagerServiceServer},
    operation_service_server::{self, OperationServiceServer},
    storage_service_server::{self, StorageServiceServer},
    system_service_server::{self, SystemServiceServer},
    telemetry_service_server::{self, TelemetryServiceServer},
};
use ironyard_reconcile::{Membership, Queue, Runner};
use ironyard_resource::Context;
use ironyard_rpc::{
    Channel,
    forward::{Forward, Keys},
};
use ironyard_types::Clock;
use replicas::Replicas;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tasks::{events::Events, probe::Probe, steps::Operations};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use vault::Vault;

const MIGRATIONS: &[Migration] = &[
    ironyard_reconcile::MIGRATIONS[0],
    ironyard_reconcile::MIGRATIONS[1],
    ironyard_reconcile::MIGRATIONS[2],
    ironyard_reconcile::MIGRATIONS[3],
    ironyard_operation::MIGRATIONS[0],
    ironyard_operation::MIGRATIONS[1],
    Migration {
        version: 101,
        name: "bmc",
        sql: include_str!("../migrations/0101_bmc.sql"),
    },
    Migration {
        version: 102,
        name: "rotation",
        sql: include_str!("../migrations/0102_rotation.sql"),
    },
    Migration {
        version: 103,
        name: "rotated",
        sql: include_str!("../migrations/0103_rotated.sql"),
    },
    Migration {
        version: 104,
        name: "credential_networks",
        sql: include_str!("../migrations/0104_credential_networks.sql"),
    },
];

/// Operations that go on at once: each waits for its BMC most of the time.
const OPERATIONS: usize = 256;
const PROBES: usize = 64;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("could not open the database")]
    Database(#[from] ironyard_db::Error),
    /// The key.
    #[error("could not open the vault")]
    Vault(#[from] vault::Error),
    /// How events reach it.
    #[error("gateway.events.listen needs gateway.events.url, as in http://gateway.example.net:7702: BMCs post there")]
    Events,
    /// How the others reach it.
    #[error("gateway.replicas is wrong")]
    Replicas(#[from] ironyard_rpc::client::Error),
    /// Where inventory answers.
    #[error("gateway.inventory is wrong")]
    Inventory(#[source] ironyard_rpc::client::Error),
    /// An authority.
    #[error("could not read the certificates in {0:?}")]
    Authority(PathBuf, #[source] rustls_pki_types::pem::Error),
}

/// The service, ready to be served.
#[derive(Clone)]
pub struct Service {
    cx: Context,
    devices: Devices,
    probes: Queue,
    operations: Queue,
    consoles: Consoles,
    membership: Membership,
    replicas: Replicas,
    inventory: Option<Inventory>,
    config: Gateway,
}

impl Service {
    /// Names for health and reflection.
    pub const NAMES: &'static [&'static str] = &[
        bmc_service_server::SERVICE_NAME,
        credential_service_server::SERVICE_NAME,
        system_service_server::SERVICE_NAME,
        storage_service_server::SERVICE_NAME,
        telemetry_service_server::SERVICE_NAME,
        manager_service_server::SERVICE_NAME,
        console_service_server::SERVICE_NAME,
        operation_service_server::SERVICE_NAME,
    ];

    /// Opens the database and the vault.
    pub async fn open(database: &ironyard_db::Config, config: Gateway, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let reached = config.events.url.starts_with("http://") || config.events.url.starts_with("https://");
        if config.events.listen.is_some() && !reached {
            return Err(Error::Events);
        }
        ironyard_redfish::install_crypto();
        let cx = Context {
            db: Db::open(database, MIGRATIONS).await?,
            clock: clock.clone(),
        };
        let vault = Arc::new(Vault::open(&config.key_file, config.create_key, &config.old_key_files)?);
        let mut authorities = Vec::new();
        for file in &config.authorities {
            let wrong = |e| Error::Authority(file.clone(), e);
            for certificate in CertificateDer::pem_file_iter(file).map_err(wrong)? {
                authorities.push(certificate.map_err(wrong)?.to_vec());
            }
        }
        let membership = Membership::new(cx.db.clone(), config.replicas.advertise.clone(), config.write_timeout);
        let mut limits = config.limits();
        limits.user_agent = format!("{} ({})", limits.user_agent, membership.id());
        let settings = Settings {
            allowed: config.allowed_ranges.clone(),
            plaintext: config.plaintext_ranges.clone(),
            default_trust: config.default_trust,
            authorities,
            allow_insecure: config.allow_insecure,
            limits,
        };
        let peer = config.inventory.as_ref();
        let inventory = peer.map(|peer| Channel::new(&peer.address, peer.tls.as_ref()).map(Inventory::new));
        Ok(Self {
            devices: Devices::new(cx.clone(), vault, settings, membership.clone()),
            probes: Queue::new(cx.db.clone(), "bmc").shared(membership.clone()),
            operations: Queue::new(cx.db.clone(), "operation").shared(membership.clone()),
            consoles: Consoles::default(),
            replicas: Replicas::new(membership.clone(), &config.replicas)?,
            inventory: inventory.transpose().map_err(Error::Inventory)?,
            membership,
            cx,
            config,
        })
    }

    /// Adds its methods.
    pub fn register(&self, routes: &mut RoutesBuilder) {
        let (cx, devices) = (self.cx.clone(), self.devices.clone());
        let (probes, operations) = (self.probes.clone(), self.operations.clone());
        let shared = grpc::Shared {
            cx: cx.clone(),
            devices: devices.clone(),
            operations: operations.clone(),
        };
        // What reaches hardware is answered by the gateway that has the BMC.
        let keys = Replicas::keys();
        routes.add_service(BmcServiceServer::new(grpc::bmc::Grpc {
            cx: cx.clone(),
            devices: devices.clone(),
            probes: probes.clone(),
            inventory: self.inventory.clone(),
        }));
        routes.add_service(self.by_owner(
            &keys,
            CredentialServiceServer::new(grpc::credential::Grpc {
                cx: cx.clone(),
                devices,
                probes,
                operations: operations.clone(),
            }),
        ));
        routes.add_service(self.by_owner(
            &keys,
            SystemServiceServer::new(grpc::system::Grpc {
                shared: shared.clone(),
                registries: device::Registries::default(),
            }),
        ));
        routes.add_service(self.by_owner(&keys, StorageServiceServer::new(grpc::storage::Grpc(shared.clone()))));
        routes.add_service(self.by_owner(
            &keys,
            TelemetryServiceServer::new(grpc::telemetry::Grpc {
                shared: shared.clone(),
                bmcs: ironyard_db::Snapshot::default(),
                replicas: self.replicas.clone(),
            }),
        ));
        routes.add_service(self.by_owner(
            &keys,
            ConsoleServiceServer::new(grpc::console::Grpc {
                shared: shared.clone(),
                consoles: self.consoles.clone(),
            }),
        ));
        routes.add_service(self.by_owner(
            &keys,
            ManagerServiceServer::new(grpc::manager::Grpc {
                shared,
                spool: grpc::upload::Spool {
                    folder: self.config.spool.clone(),
                    max_bytes: self.config.max_image_bytes,
                },
            }),
        ));
        routes.add_service(OperationServiceServer::new(grpc::operation::Grpc { cx, operations }));
    }

    fn by_owner<S>(&self, keys: &Keys, service: S) -> Forward<S, Replicas> {
        Forward::new(service, self.replicas.clone(), keys.clone())
    }

    /// Makes its own BMCs due. Others are due already, unless the process that stored one died before it said so.
    async fn take_stock(&self) -> ironyard_db::Result<()> {
        let bmcs = ironyard_db::record::list::<domain::bmc::Bmc>(&self.cx.db, "", 1_000_000, &[]).await?;
        for some in bmcs.chunks(500) {
            let mut tx = self.cx.db.begin().await?;
            for bmc in some {
                let name = &bmc.value.metadata.name;
                if self.replicas.is_mine(name) {
                    self.probes.enqueue_in(&mut tx, name, name).await?;
                } else {
                    self.probes.enqueue_new_in(&mut tx, name, name).await?;
                }
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// Probes BMCs and moves operations until `shutdown`; then logs out everywhere.
    pub async fn run(self, shutdown: CancellationToken) {
        let heard = self.membership.join().await;
        // Until its BMCs are let go of, so that nobody takes them too soon.
        let beating = CancellationToken::new();
        let beats = tokio::spawn({
            let (membership, beating) = (self.membership.clone(), beating.clone());
            async move { membership.run(heard, beating).await }
        });
        if let Err(error) = self.take_stock().await {
            tracing::warn!(%error, "could not look at what an earlier process left");
        }
        let probe = Arc::new(Probe {
            cx: self.cx.clone(),
            devices: self.devices.clone(),
            polling: self.config.polling,
        });
        let operations = Arc::new(Operations {
            cx: self.cx.clone(),
            devices: self.devices.clone(),
            patience: self.config.patience,
        });
        let events = Events::new(
            self.cx.clone(),
            self.devices.clone(),
            self.probes.clone(),
            self.replicas.clone(),
            self.config.events.clone(),
        );
        let events = events.run(shutdown.clone());
        let queues = [&self.probes.clone(), &self.operations.clone()];
        let sharing = self.replicas.run(&self.devices, &self.consoles, &queues, shutdown.clone());
        let probes = Runner::new(self.probes, probe, PROBES).run(shutdown.clone());
        let operations = Runner::new(self.operations, operations, OPERATIONS).run(shutdown.clone());
        tokio::join!(
            probes,
            operations,
            events,
            sharing,
            tasks::spool::tidy(&self.cx, &self.config.spool, shutdown.clone()),
            ironyard_resource::housekeep(&self.cx, &[ironyard_operation::ENDED], shutdown)
        );
        self.devices.clear().await;
        beating.cancel();
        let _ = beats.await;
        self.membership.leave().await;
        self.cx.db.close().await;
    }
}

/// What the program does, under whichever name it was built.
pub fn main() -> std::process::ExitCode {
    ironyard_rpc::server::main(
        "bmc-gateway",
        "BMC_GATEWAY",
        |config: &Config| config.telemetry.clone(),
        |config| async move {
            let clock = Arc::new(ironyard_types::SystemClock);
            let service = Service::open(&config.database, config.gateway, clock).await?;
            let worker = service.clone();
            ironyard_rpc::server::run(
                &config.server,
                Service::NAMES,
                |routes| service.register(routes),
                |shutdown| worker.run(shutdown),
            )
            .await?;
            Ok(())
        },
    )
}
