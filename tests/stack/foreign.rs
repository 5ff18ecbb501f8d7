//! Against a BMC that shares nothing with our client and simulator: `tests/foreign`, written from the standard and from dumps of real ones.
//! What it logged is the evidence.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use ironyard::{
    client::Clients,
    stack::{Config, Stack},
};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    bmc::{self, Bmc, BmcSpec, PowerAction},
    common::{ConditionStatus, Metadata},
    inventory::{ListServersRequest, Server, ServerState},
};
use ironyard_testkit::poll;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    gateway::{finished, get_bmc, is_ready, ready, reason_of, system},
    seed::cli,
};

/// A fake BMC in a process of its own, which ends with this.
struct Foreign {
    child: Child,
    _stdin: Option<ChildStdin>,
    hello: Value,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Foreign {
    /// One that is not there without Python, which is told.
    fn start(personality: &str, more: &[&str]) -> Option<Self> {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/bmc.py");
        let mut command = Command::new("python3");
        command.args([program, "--personality", personality]).args(more);
        let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            ironyard_testkit::skip("the foreign BMC", "python3 is not here");
            return None;
        };
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let hello: Value = serde_json::from_str(&line).unwrap();
        assert!(hello["error"].is_null(), "{hello}");
        Some(Self {
            _stdin: child.stdin.take(),
            child,
            hello,
        })
    }

    fn port(&self) -> i32 {
        i32::try_from(self.hello["port"].as_i64().unwrap()).unwrap()
    }

    /// A word with its control channel.
    async fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let at = self.hello["control"].as_str().unwrap().trim_start_matches("http://");
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    async fn behave(&self, rules: &Value) {
        self.control("POST", "/behaviour", rules).await;
    }

    async fn machine(&self) -> Value {
        self.control("GET", "/machine", &Value::Null).await
    }

    async fn log(&self) -> Vec<Value> {
        let Value::Array(records) = self.control("GET", "/log", &Value::Null).await else {
            panic!("no log")
        };
        records
    }

    /// What was asked of the machine behind it: everything that is no read, no login and no subscription.
    async fn writes(&self) -> Vec<String> {
        let records = self.log().await.into_iter();
        let records = records.filter(|r| r["method"] != "GET" && r["method"] != "HEAD");
        let text = |r: &Value| format!("{} {} {}", r["method"].as_str().unwrap(), r["path"].as_str().unwrap(), r["body"]);
        let writes: Vec<String> = records.map(|r| text(&r)).collect();
        let about = |w: &String| !w.contains("/SessionService/") && !w.contains("/EventService/");
        writes.into_iter().filter(about).collect()
    }

    async fn power(&self, is: &str) {
        poll::until(&format!("the machine is {is}"), || async {
            let machine = self.machine().await;
            let systems = machine["systems"].as_object()?.values();
            let all = systems.clone().all(|system| system["power"] == is);
            all.then_some(())
        })
        .await;
    }
}

struct Site {
    stack: Stack,
    clients: Clients,
    _data: TempDir,
}

impl Site {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path(), ([127, 0, 0, 1], 0).into());
        config.in_band = InBand::Off;
        config.gateway.requests_per_second = 0;
        config.gateway.polling.power = Duration::from_secs(2);
        config.gateway.patience.graceful = Duration::from_secs(3);
        let stack = Stack::start(config).await.unwrap();
        let clients = Clients::at(&stack.address).unwrap();
        Self {
            stack,
            clients,
            _data: data,
        }
    }

    /// Makes a BMC known.
    async fn register(&self, name: &str, foreign: &Foreign) {
        let text = |key: &str| foreign.hello[key].as_str().unwrap().to_owned();
        let credential = bmc::SetCredentialRequest {
            name: name.to_owned(),
            username: text("username"),
            password: text("password"),
            replace: false,
        };
        self.clients.credentials.clone().set_credential(credential).await.unwrap();
        let bmc = Bmc {
            metadata: Some(Metadata {
                name: name.to_owned(),
                ..Default::default()
            }),
            spec: Some(BmcSpec {
                address: text("host"),
                credential: name.to_owned(),
                scheme: text("url").split(':').next().unwrap().to_owned(),
                port: foreign.port(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = bmc::CreateBmcRequest {
            bmc: Some(bmc),
            request_id: String::new(),
        };
        self.clients.bmcs.clone().create_bmc(request).await.unwrap();
    }

    async fn servers(&self) -> Vec<Server> {
        let request = ListServersRequest {
            page_size: 100,
            ..Default::default()
        };
        self.clients
            .servers
            .clone()
            .list_servers(request)
            .await
            .unwrap()
            .into_inner()
            .servers
    }

    /// The only server, once it is Available.
    async fn discovered(&self) -> String {
        poll::until("a server is Available", || async {
            let servers = self.servers().await;
            let [server] = servers.as_slice() else { return None };
            assert_ne!(server.state(), ServerState::Error, "{:?}", server.failure);
            (server.state() == ServerState::Available).then(|| server.metadata.clone().unwrap().name)
        })
        .await
    }
}

/// Machines that are off, so that there is nothing to wait for.
const OFF: &[&str] = &[
    "--set",
    r#"{"power_seconds": 0.2, "shutdown_seconds": 0.2, "post_seconds": 0.2, "task_seconds": 1}"#,
];

async fn switched_off(foreign: &Foreign) {
    let machine = foreign.machine().await;
    let systems: serde_json::Map<String, Value> = machine["systems"]
        .as_object()
        .unwrap()
        .keys()
        .map(|id| (id.clone(), json!({"power": "Off"})))
        .collect();
    foreign.control("POST", "/machine", &json!({"systems": systems})).await;
}

/// A refusal because the machine is busy is asked again; it never counts as accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_change_that_is_refused_for_now_is_asked_again() {
    let Some(foreign) = Foreign::start("dell", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("dell", &foreign).await;
    site.discovered().await;
    let refuses = json!([{
        "match": {"method": "POST", "path": "ComputerSystem.Reset", "times": 2},
        "do": {"status": 409, "error": {"message_id": "Base.1.12.ResourceInUse", "message": "The machine is busy."}},
    }]);
    foreign.behave(&refuses).await;
    let request = bmc::SetPowerRequest {
        system: system("dell"),
        action: PowerAction::On.into(),
        ..Default::default()
    };
    let operation = site.clients.systems.clone().set_power(request).await.unwrap().into_inner();
    finished(&site.clients, &operation).await.unwrap();
    foreign.power("On").await;
    assert_eq!(foreign.writes().await.len(), 3, "{:#?}", foreign.writes().await);
}

/// What another machine shows in the place of a server is not switched, wiped or changed by that server's name.
#[tokio::test(flavor = "multi_thread")]
async fn another_machine_is_not_touched_by_the_name_of_the_first() {
    let Some(foreign) = Foreign::start("standard", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("rack", &foreign).await;
    let name = site.discovered().await;
    let machine = foreign.machine().await;
    let id = machine["systems"].as_object().unwrap().keys().next().unwrap().clone();
    // Somebody puts another machine there, which runs.
    let other = json!({"power": "On", "identity": {"uuid": "99999999-1111-4222-8333-444444444444", "serial": "OTHER-1"}});
    foreign.control("POST", "/machine", &json!({"systems": {id: other}})).await;
    foreign.power("On").await;
    let before = foreign.writes().await;
    for arguments in [["power", &name, "off"], ["power", &name, "force-off"]] {
        let (code, why) = cli(&site.stack.address, &[&arguments[..], &["--yes"]].concat()).unwrap_err();
        assert!(why.contains("another machine than the one that is meant"), "{code}: {why}");
    }
    foreign.power("On").await;
    assert_eq!(foreign.writes().await, before);
}

/// A certificate that was pinned stays pinned wherever the BMC moves to: whoever stands there is shown no password.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_survives_a_move() {
    let tls = ["--scheme", "https", "--tls", r#"{"key": "ec256"}"#];
    let more = [OFF, &tls].concat();
    let (Some(first), Some(second)) = (Foreign::start("standard", &more), Foreign::start("standard", &more)) else {
        return;
    };
    let site = Site::new().await;
    site.register("rack", &first).await;
    let bmc = ready(&site.clients, "rack").await;
    let pinned = bmc.observed.clone().unwrap().certificate_sha256;
    assert_eq!(pinned.len(), 64);
    let mut spec = bmc.spec.clone().unwrap();
    spec.port = second.port();
    let request = bmc::UpdateBmcRequest {
        bmc: Some(Bmc {
            metadata: Some(Metadata {
                name: "rack".to_owned(),
                ..Default::default()
            }),
            spec: Some(spec),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["spec.port".to_owned()],
        }),
        request_id: String::new(),
    };
    site.clients.bmcs.clone().update_bmc(request).await.unwrap();
    poll::until("the certificate is refused", || async {
        let bmc = get_bmc(&site.clients, "rack").await?;
        let told = bmc.conditions.iter().find(|c| c.r#type == "Reachable")?;
        (told.status() == ConditionStatus::False && told.reason == "CertificateRefused").then_some(())
    })
    .await;
    assert_eq!(second.log().await, Vec::<Value>::new(), "nothing was asked of it");
    assert_eq!(
        get_bmc(&site.clients, "rack").await.unwrap().observed.unwrap().certificate_sha256,
        pinned
    );
}

/// A resource that is closed to the account is that resource's matter: the BMC stays usable, and no session is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_refused_closes_nothing_else() {
    let Some(foreign) = Foreign::start("standard", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("rack", &foreign).await;
    site.discovered().await;
    foreign
        .behave(&json!({"rules": [], "settings": {"unauthorized_paths": ["/Bios"]}}))
        .await;
    for _ in 0..6 {
        let request = bmc::GetBiosRequest { system: system("rack") };
        let refused = site.clients.systems.clone().get_bios(request).await.unwrap_err();
        assert_eq!(reason_of(&refused), "BMC_FORBIDDEN", "{refused}");
        let request = bmc::GetSystemRequest { system: system("rack") };
        site.clients.systems.clone().get_system(request).await.unwrap();
    }
    assert!(get_bmc(&site.clients, "rack").await.is_some_and(|bmc| is_ready(&bmc)));
    let sessions = foreign.machine().await["sessions"].as_object().unwrap().len();
    assert!(sessions <= 1, "{sessions} sessions");
}

/// An image whose answer is lost is not sent a second time: the task that the BMC began is found, though it does not say what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn firmware_is_not_sent_again_when_its_answer_is_lost() {
    let Some(foreign) = Foreign::start("dell", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("dell", &foreign).await;
    ready(&site.clients, "dell").await;
    foreign
        .behave(&json!([{"match": {"method": "POST", "path": "SimpleUpdate", "times": 1}, "do": {"lose_answer": true}}]))
        .await;
    let request = bmc::UpdateFirmwareRequest {
        bmc: "dell".to_owned(),
        image_uri: "http://127.0.0.1:9/image.bin".to_owned(),
        ..Default::default()
    };
    let operation = site.clients.managers.clone().update_firmware(request).await.unwrap().into_inner();
    poll::until("the task was found", || async {
        let request = bmc::GetOperationRequest {
            name: operation.name.clone(),
        };
        let now = site.clients.operations.clone().get_operation(request).await.ok()?.into_inner();
        (now.done || now.phase.contains("Found") || now.phase.contains("at work") || now.phase.contains("Verifying")).then_some(())
    })
    .await;
    let sent = foreign.writes().await.into_iter().filter(|w| w.contains("SimpleUpdate")).count();
    assert_eq!(sent, 1);
}

/// Nobody's power goes off under firmware that is being written, by neither of the names of the system.
#[tokio::test(flavor = "multi_thread")]
async fn power_waits_for_firmware_by_either_name() {
    let Some(foreign) = Foreign::start("dell", OFF) else { return };
    switched_off(&foreign).await;
    let site = Site::new().await;
    site.register("dell", &foreign).await;
    ready(&site.clients, "dell").await;
    let list = bmc::ListSystemsRequest { bmc: "dell".to_owned() };
    let systems = site.clients.systems.clone().list_systems(list).await.unwrap().into_inner().systems;
    let id = systems[0].system_id.clone();
    foreign.behave(&json!({"rules": [], "settings": {"task_seconds": 4}})).await;
    let request = bmc::UpdateFirmwareRequest {
        bmc: "dell".to_owned(),
        image_uri: "http://127.0.0.1:9/image.bin".to_owned(),
        ..Default::default()
    };
    let firmware = site.clients.managers.clone().update_firmware(request).await.unwrap().into_inner();
    let get = async |name: &str| {
        let request = bmc::GetOperationRequest { name: name.to_owned() };
        site.clients.operations.clone().get_operation(request).await.unwrap().into_inner()
    };
    poll::until("the BMC is at work", || async {
        get(&firmware.name).await.phase.contains("at work").then_some(())
    })
    .await;
    for system_id in [id.clone(), String::new()] {
        let request = bmc::SetPowerRequest {
            system: Some(bmc::SystemName {
                bmc: "dell".to_owned(),
                system_id,
                ..Default::default()
            }),
            action: bmc::PowerAction::On.into(),
            ..Default::default()
        };
        let power = site.clients.systems.clone().set_power(request).await.unwrap().into_inner();
        poll::until("the power waits, and says for what", || async {
            let now = get(&power.name).await;
            assert!(!now.done || get(&firmware.name).await.progress_percent == 100, "{now:?}");
            (now.done || now.phase.contains("UpdateFirmware")).then_some(())
        })
        .await;
    }
    let resets = async || {
        foreign
            .writes()
            .await
            .into_iter()
            .filter(|w| w.contains("ComputerSystem.Reset"))
            .count()
    };
    assert_eq!(resets().await, 0, "nothing was switched while the firmware was written");
    poll::until("the machine is switched on once the task is over", || async {
        (resets().await == 1).then_some(())
    })
    .await;
    foreign.power("On").await;
}
