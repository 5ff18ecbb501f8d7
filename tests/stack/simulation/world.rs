//! The services of a schedule, and the network between them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use ironyard_db::{Db, Migration, Moment};
use ironyard_peers::Peers;
use ironyard_proto::inventory::Server;
use ironyard_reconcile::Controller;
use ironyard_rpc::{Channel, Fault, Reason, client::Local, server::local};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};
use tonic::{body::Body, service::Routes};

use super::{
    actors::{Actor, Chance, Gate, Skewed, Time},
    hardware::Hardware,
};

/// Services, as the network knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Inventory,
    Gateway,
    Discovery,
    Claim,
    Maintenance,
}

pub const INVENTORY: usize = 0;
pub const DISCOVERY: usize = 1;
pub const CLAIM: usize = 2;
pub const MAINTENANCE: usize = 3;

/// How often in a thousand calls something happens to one.
#[derive(Default)]
pub struct NetworkFaults {
    /// The call never arrives.
    pub lost: AtomicU64,
    /// It arrives, its answer does not.
    pub unanswered: AtomicU64,
    /// It arrives long after its caller gave up.
    pub delayed: AtomicU64,
}

/// What the network needs to know.
pub struct Net {
    gate: Gate,
    pub faults: NetworkFaults,
    pub chance: Mutex<Chance>,
    /// Who answers for a service: its replicas.
    answering: Mutex<[Vec<Local>; 5]>,
    /// Calls whose callers gave up, on their way.
    pub stray: Mutex<VecDeque<Actor>>,
}

impl Net {
    async fn carry(self: Arc<Self>, to: Service, request: Request<Body>) -> Response<Body> {
        let (target, fate) = {
            let mut chance = self.chance.lock().unwrap();
            let answering = self.answering.lock().unwrap();
            let replicas = &answering[to as usize];
            let target = replicas[chance.below(replicas.len())].clone();
            let mut fate = 0;
            for (n, rate) in [(1, &self.faults.lost), (2, &self.faults.unanswered), (3, &self.faults.delayed)] {
                if chance.permille(rate.load(Ordering::Relaxed)) {
                    fate = n;
                    break;
                }
            }
            (target, fate)
        };
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let reads = method.starts_with("Get") || method.starts_with("List") || method == "NextCommand";
        let away = || tonic::Status::from(Fault::new(Reason::PeerUnavailable, "the network")).into_http();
        if !reads {
            self.gate.pass().await;
        }
        match fate {
            1 => return away(),
            2 => drop(target(request).await),
            3 if !reads => {
                let work = target(request);
                let stray = Actor::new(format!("late {method}"), None, async move { drop(work.await) });
                self.stray.lock().unwrap().push_back(stray);
                return away();
            }
            _ => {
                let response = target(request).await;
                if !reads {
                    self.gate.pass().await;
                }
                return response;
            }
        }
        away()
    }

    fn channel(self: &Arc<Self>, to: Service) -> Channel {
        let net = self.clone();
        Channel::local(Arc::new(move |request| Box::pin(net.clone().carry(to, request))))
    }
}

/// What a replica runs.
pub enum Kind {
    Discovery(ironyard_discovery::Service),
    Claim(ironyard_claim::Service),
    Maintenance(ironyard_maintenance::Service),
}

/// A process: a replica of a service. Its memory dies with it.
pub struct Replica {
    pub kind: Kind,
    pub controllers: Arc<Vec<Box<dyn Controller>>>,
    pub clock: Skewed,
}

impl Kind {
    pub async fn saw(&self, server: &Server) {
        let outcome = match self {
            Self::Discovery(service) => service.saw(server).await,
            Self::Claim(service) => service.saw(server).await,
            Self::Maintenance(service) => service.saw(server).await,
        };
        outcome.unwrap();
    }
}

impl Kind {
    /// Looks for what is lost, as is done now and then.
    pub async fn sweep(&self, server: &Server) {
        if let Self::Claim(service) = self {
            service.sweep(server).await.unwrap();
        }
    }
}

pub struct World {
    pub time: Time,
    pub gate: Gate,
    pub hardware: Hardware,
    pub net: Arc<Net>,
    /// By service.
    pub dbs: [Db; 4],
    /// How many transactions were committed, by database.
    pub moves: [Arc<AtomicU64>; 4],
    /// How long a claim waits for a peer before it is an error.
    pub patience: Duration,
    /// Whether machines are wiped before they are offered for the first time.
    first_wipe: AtomicBool,
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (time, gate) = (Time::default(), Gate::default());
        let moves: [Arc<AtomicU64>; 4] = Default::default();
        let schemas: [(&str, &[Migration]); 4] = [
            ("inventory", ironyard_inventory::MIGRATIONS),
            ("discovery", ironyard_discovery::MIGRATIONS),
            ("claim", ironyard_claim::MIGRATIONS),
            ("maintenance", ironyard_maintenance::MIGRATIONS),
        ];
        let mut dbs = Vec::new();
        for ((name, migrations), moves) in schemas.into_iter().zip(&moves) {
            let config = ironyard_db::Config::url(format!("sqlite://{}", folder.path().join(name).display()));
            let db = Db::open_with(&config, migrations, Arc::new(time.clone())).await.unwrap();
            let (gate, moves) = (gate.clone(), moves.clone());
            dbs.push(db.interleaved(Arc::new(move |moment| {
                if moment == Moment::After {
                    moves.fetch_add(1, Ordering::Relaxed);
                }
                gate.pass()
            })));
        }
        let net = Arc::new(Net {
            gate: gate.clone(),
            faults: NetworkFaults::default(),
            chance: Mutex::new(Chance::new(0)),
            answering: Mutex::default(),
            stray: Mutex::default(),
        });
        Self {
            time,
            gate,
            hardware: Hardware::default(),
            net,
            dbs: dbs.try_into().unwrap_or_else(|_| unreachable!()),
            moves,
            patience: Duration::from_secs(900),
            first_wipe: AtomicBool::default(),
            _folder: folder,
        }
    }

    /// Empties everything, and lets chance begin anew.
    pub async fn reset(&self, seed: u64) {
        for db in &self.dbs {
            let sql = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' and name not like '_sqlx_%'";
            let tables: Vec<String> = sqlx::query(sql)
                .fetch_all(db.pool())
                .await
                .unwrap()
                .iter()
                .map(|row| row.get(0))
                .collect();
            for table in tables.iter().filter(|table| !table.starts_with("feed")) {
                sqlx::query(AssertSqlSafe(format!("delete from {table}")))
                    .execute(db.pool())
                    .await
                    .unwrap();
            }
        }
        ironyard_types::seed_ids(seed);
        self.hardware.reset();
        self.first_wipe.store(seed % 2 == 1, Ordering::Relaxed);
        *self.net.chance.lock().unwrap() = Chance::new(seed ^ 0x5EED);
        *self.net.answering.lock().unwrap() = Default::default();
        self.net.stray.lock().unwrap().clear();
    }

    pub fn skewed(&self, offset: i64) -> Skewed {
        Skewed {
            time: self.time.clone(),
            offset: Arc::new(AtomicI64::new(offset)),
        }
    }

    pub fn channel(&self, to: Service) -> Channel {
        self.net.channel(to)
    }

    fn peers(&self) -> Peers {
        Peers {
            inventory: self.channel(Service::Inventory),
            bmc_gateway: self.channel(Service::Gateway),
            discovery: Some(self.channel(Service::Discovery)),
        }
    }

    /// Puts a replica of a service in place of the one that has this place, or beside them.
    fn answer(&self, service: Service, place: usize, routes: tonic::service::RoutesBuilder) {
        let mut answering = self.net.answering.lock().unwrap();
        let replicas = &mut answering[service as usize];
        let replica = local(routes);
        match replicas.get_mut(place) {
            Some(there) => *there = replica,
            None => replicas.push(replica),
        }
    }

    /// Starts the gateway; what it remembered is gone.
    pub fn start_gateway(&self) {
        let mut routes = Routes::builder();
        self.hardware.register(&mut routes);
        self.answer(Service::Gateway, 0, routes);
    }

    /// Starts a replica of inventory.
    pub fn start_inventory(&self, place: usize, clock: &Skewed) {
        let mut routes = Routes::builder();
        ironyard_inventory::Service::over(self.dbs[INVENTORY].clone(), Arc::new(clock.clone())).register(&mut routes);
        self.answer(Service::Inventory, place, routes);
    }

    /// Starts a replica of another service; `place` among its like.
    pub fn start(&self, service: Service, place: usize, clock: &Skewed) -> Replica {
        let mut routes = Routes::builder();
        let time = Arc::new(clock.clone());
        let (kind, controllers) = match service {
            Service::Claim => {
                let settings = ironyard_claim::Settings {
                    graceful_seconds: 5,
                    patience: self.patience,
                    ..ironyard_claim::Settings::default()
                };
                let service = ironyard_claim::Service::over(self.dbs[CLAIM].clone(), self.peers(), settings, time).unwrap();
                service.register(&mut routes);
                let controllers = service.controllers();
                (Kind::Claim(service), controllers)
            }
            Service::Discovery => {
                let settings = serde_json::from_value(serde_json::json!({
                    "agent_url": "http://ironyard",
                    "agent_wait": "0s",
                    "first_wipe": if self.first_wipe.load(Ordering::Relaxed) { "wipe" } else { "waive" },
                    "image": {"simulated": true, "listen": "127.0.0.1:0", "url": "http://ironyard"},
                }))
                .unwrap();
                let service = ironyard_discovery::Service::over(self.dbs[DISCOVERY].clone(), self.peers(), settings, time);
                service.register(&mut routes);
                let controllers = service.controllers();
                (Kind::Discovery(service), controllers)
            }
            Service::Maintenance | Service::Inventory | Service::Gateway => {
                let settings = ironyard_maintenance::Settings::default();
                let service = ironyard_maintenance::Service::over(self.dbs[MAINTENANCE].clone(), self.peers(), settings, time);
                service.register(&mut routes);
                let controllers = service.controllers();
                (Kind::Maintenance(service), controllers)
            }
        };
        self.answer(service, place, routes);
        Replica {
            kind,
            controllers: Arc::new(controllers),
            clock: clock.clone(),
        }
    }

    /// Bodies of all rows of a table.
    pub async fn bodies(&self, db: usize, table: &str) -> Vec<Value> {
        let sql = AssertSqlSafe(format!("select body from {table} order by created_at, {table}_id"));
        let rows = sqlx::query(sql).fetch_all(self.dbs[db].pool()).await.unwrap();
        rows.iter()
            .map(|row| serde_json::from_str(&row.get::<String, _>(0)).unwrap())
            .collect()
    }

    /// When the next key of each queue is due.
    pub async fn due(&self, db: usize) -> Vec<(String, i64)> {
        let sql = "select queue, min(due_at) from work_item group by queue order by queue";
        let rows = sqlx::query(sql).fetch_all(self.dbs[db].pool()).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}
