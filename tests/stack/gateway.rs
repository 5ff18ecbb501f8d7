//! The gateway alone, in this process or as one of its own, and a simulated fleet.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ironyard::client::Clients;
use ironyard_bmc_gateway::{Gateway, Service, tasks::probe::Polling, tasks::steps::Patience};
use ironyard_bmc_simulator::{Fleet, FleetConfig, Machine, PROFILES, Serving, Timing, serve};
use ironyard_proto::{
    bmc::{self, Bmc, SystemName},
    common::{ConditionStatus, Metadata, Operation},
};
use ironyard_rpc::server;
use ironyard_testkit::poll;
use ironyard_types::SystemClock;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes};

/// Quick patience, and polls so rare that a test sees only its own requests.
pub fn settings(folder: &TempDir) -> Gateway {
    Gateway {
        create_key: true,
        allowed_ranges: vec!["127.0.0.0/8".parse().unwrap()],
        requests_per_second: 0,
        read_timeout: Duration::from_millis(1500),
        write_timeout: Duration::from_millis(1500),
        retry_backoff: Duration::from_millis(10),
        spool: folder.path().join("spool"),
        polling: Polling {
            power: Duration::from_secs(3600),
            full: Duration::from_secs(3600),
            unwell: Duration::from_millis(500),
        },
        patience: Patience {
            graceful: Duration::from_secs(1),
            power: Duration::from_secs(3),
            erase: Duration::from_secs(20),
            volume: Duration::from_secs(20),
            firmware: Duration::from_secs(30),
            firmware_settles: Duration::from_secs(3),
            lost_answer: Duration::from_secs(3),
            manager: Duration::from_secs(20),
            unreachable: Duration::from_secs(2),
        },
        ..Gateway::new(folder.path().join("key"))
    }
}

/// A gateway in this process.
pub struct Alone {
    pub clients: Clients,
    /// Host and port.
    pub address: String,
    shutdown: CancellationToken,
    _folder: TempDir,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Alone {
    pub async fn start(change: impl FnOnce(&mut Gateway)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(&folder);
        change(&mut settings);
        let database = ironyard_db::Config::url(format!("sqlite://{}", folder.path().join("gateway.db").display()));
        let service = Service::open(&database, settings, Arc::new(SystemClock)).await.unwrap();
        let config = server::Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ops_listen: None,
            tls: None,
        };
        let listener = server::bind(&config).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let clients = Clients::at(&format!("http://{address}")).unwrap();
        let mut routes = Routes::builder();
        service.register(&mut routes);
        let shutdown = CancellationToken::new();
        tokio::spawn(service.run(shutdown.clone()));
        let stop = shutdown.clone();
        tokio::spawn(async move {
            let _ = server::serve(&config, listener, Service::NAMES, routes, stop).await;
        });
        Self {
            clients,
            address,
            shutdown,
            _folder: folder,
        }
    }
}

/// A gateway as a process that can be killed.
pub struct Killable {
    pub clients: Clients,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    /// Settings of its own, as they stand in its environment.
    environment: Vec<(String, String)>,
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Killable {
    pub async fn start() -> Self {
        Self::with(|port| (vec![], Clients::at(&format!("http://127.0.0.1:{port}")).unwrap())).await
    }

    /// One with settings of its own and with clients, for the port that it gets.
    pub async fn with(own: impl FnOnce(u16) -> (Vec<(String, String)>, Clients)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (environment, clients) = own(port);
        let mut gateway = Self {
            clients,
            folder,
            port,
            child: None,
            environment,
        };
        gateway.again().await;
        gateway
    }

    /// Its id among the replicas, another one with every start.
    pub fn replica(&self) -> Option<String> {
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains("\"replica.id\":"))?;
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        record
            .pointer("/fields/replica.id")
            .or_else(|| record.get("replica.id"))?
            .as_str()
            .map(str::to_owned)
    }

    /// A setting of its own from the next start on.
    pub fn set(&mut self, name: &str, value: String) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value));
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends it a signal, as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let child = self.child.as_ref().unwrap();
        assert!(
            Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Stops it as it would be stopped, and waits for its end.
    pub fn stop(&mut self) {
        self.signal("-TERM");
        self.child.take().unwrap().wait().unwrap();
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same records.
    pub async fn again(&mut self) {
        let path = self.folder.path();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{}\"\n[database]\nurl = \"sqlite://{}\"\n[gateway]\nkey_file = \"{}\"\ncreate_key = true\n\
            allowed_ranges = [\"127.0.0.0/8\"]\nrequests_per_second = 0\nretry_backoff = \"20ms\"\nspool = \"{}\"\n\
            [gateway.polling]\npower = \"1h\"\nunwell = \"200ms\"\n[gateway.patience]\nfirmware_settles = \"3s\"\n[telemetry]\nfilter = \"trace\"\n",
            self.port,
            path.join("gateway.db").display(),
            path.join("key").display(),
            path.join("spool").display(),
        );
        std::fs::write(path.join("gateway.toml"), config).unwrap();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path.join("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bmc-gateway-under-test"))
            .args(["--config".into(), path.join("gateway.toml")])
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        poll::until("the gateway answers", || async {
            let request = bmc::ListBmcsRequest::default();
            self.clients.bmcs.clone().list_bmcs(request).await.ok()
        })
        .await;
    }
}

/// A fleet of all families in turn.
pub fn fleet(count: u32, first: [u8; 4], timing: Timing, all_families: bool) -> (Fleet, FleetConfig) {
    let config = FleetConfig {
        count,
        first: Ipv4Addr::from(first),
        timing,
        profiles: if all_families { PROFILES.to_vec() } else { vec![PROFILES[0]] },
        ..FleetConfig::default()
    };
    (Fleet::new(&config, None), config)
}

pub fn served(fleet: &Fleet, tls: bool) -> Serving {
    serve(fleet.clone(), 0, tls).unwrap()
}

/// Sets a credential to the one of a fleet.
pub async fn set_credential(clients: &Clients, name: &str, config: &FleetConfig) {
    let credential = bmc::SetCredentialRequest {
        name: name.to_owned(),
        username: config.username.clone(),
        password: config.password.clone(),
        replace: false,
        networks: vec![],
    };
    clients.credentials.clone().set_credential(credential).await.unwrap();
}

/// Tells the gateway of a machine's BMC, with a credential of its own.
pub async fn enroll(clients: &Clients, machine: &Machine, config: &FleetConfig, port: u16, scheme: &str) -> String {
    let name = name_of(machine);
    set_credential(clients, &name, config).await;
    enroll_with(clients, machine, &name, port, scheme).await
}

/// Tells the gateway of a machine's BMC; its only label is its name.
pub async fn enroll_with(clients: &Clients, machine: &Machine, credential: &str, port: u16, scheme: &str) -> String {
    let name = name_of(machine);
    let bmc = Bmc {
        metadata: Some(Metadata {
            name: name.clone(),
            labels: [("name".to_owned(), name.clone())].into(),
            ..Metadata::default()
        }),
        spec: Some(bmc::BmcSpec {
            address: machine.address().to_string(),
            credential: credential.to_owned(),
            scheme: scheme.to_owned(),
            port: port.into(),
            ..bmc::BmcSpec::default()
        }),
        ..Bmc::default()
    };
    let request = bmc::CreateBmcRequest {
        bmc: Some(bmc),
        request_id: String::new(),
    };
    clients.bmcs.clone().create_bmc(request).await.unwrap();
    name
}

pub fn name_of(machine: &Machine) -> String {
    format!("{}-{}", machine.config.profile.name, machine.config.number)
}

pub async fn get_bmc(clients: &Clients, name: &str) -> Option<Bmc> {
    let request = bmc::GetBmcRequest { name: name.to_owned() };
    clients.bmcs.clone().get_bmc(request).await.ok().map(tonic::Response::into_inner)
}

pub fn is_ready(bmc: &Bmc) -> bool {
    bmc.conditions
        .iter()
        .any(|c| c.r#type == "Ready" && c.status() == ConditionStatus::True)
}

pub async fn ready(clients: &Clients, name: &str) -> Bmc {
    poll::until(&format!("BMC {name} is ready"), || async {
        get_bmc(clients, name).await.filter(is_ready)
    })
    .await
}

pub fn system(bmc: &str) -> Option<SystemName> {
    Some(SystemName {
        bmc: bmc.to_owned(),
        system_id: String::new(),
        ..Default::default()
    })
}

/// Waits for the end of an operation: its facts, or its reason and message.
pub async fn finished(clients: &Clients, operation: &Operation) -> Result<Operation, (String, String)> {
    let done = poll::until(&format!("operation {} ends", operation.name), || async {
        let request = bmc::WaitOperationRequest {
            name: operation.name.clone(),
        };
        let now = clients.operations.clone().wait_operation(request).await.ok()?.into_inner();
        now.done.then_some(now)
    })
    .await;
    match done.error.clone() {
        Some(error) => Err((error.reason, error.message)),
        None => Ok(done),
    }
}

/// The reason in an error's details.
pub fn reason_of(status: &Status) -> String {
    use tonic_types::StatusExt;
    status
        .get_details_error_info()
        .map_or_else(|| format!("{:?} without a reason", status.code()), |info| info.reason)
}
