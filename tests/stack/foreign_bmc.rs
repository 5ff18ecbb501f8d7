//! The BMC that shares nothing with our client and simulator: `tests/foreign`, in a process of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

use ironyard::client::Clients;
use ironyard_proto::{
    bmc::{self, Bmc, BmcSpec},
    common::Metadata,
};
use ironyard_testkit::poll;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A fake BMC in a process of its own, which ends with this.
pub struct Foreign {
    child: Child,
    _stdin: Option<ChildStdin>,
    pub hello: Value,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Foreign {
    /// One that is not there without Python, which is told.
    pub fn start(personality: &str, more: &[&str]) -> Option<Self> {
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

    pub fn port(&self) -> i32 {
        i32::try_from(self.hello["port"].as_i64().unwrap()).unwrap()
    }

    fn text(&self, key: &str) -> String {
        self.hello[key].as_str().unwrap().to_owned()
    }

    /// Sets a credential to its login.
    pub async fn set_credential(&self, clients: &Clients, name: &str) {
        let credential = bmc::SetCredentialRequest {
            name: name.to_owned(),
            username: self.text("username"),
            password: self.text("password"),
            replace: false,
            networks: vec![],
        };
        clients.credentials.clone().set_credential(credential).await.unwrap();
    }

    /// How it is reached, with the credential of this name.
    pub fn spec(&self, credential: &str) -> BmcSpec {
        BmcSpec {
            address: self.text("host"),
            credential: credential.to_owned(),
            scheme: self.text("url").split(':').next().unwrap().to_owned(),
            port: self.port(),
            ..Default::default()
        }
    }

    /// Makes it known, with a credential of its own.
    pub async fn register(&self, clients: &Clients, name: &str) {
        self.set_credential(clients, name).await;
        create_bmc(clients, name, self.spec(name)).await.unwrap();
    }

    /// A word with its control channel.
    pub async fn control(&self, method: &str, path: &str, body: &Value) -> Value {
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

    pub async fn behave(&self, rules: &Value) {
        self.control("POST", "/behaviour", rules).await;
    }

    pub async fn machine(&self) -> Value {
        self.control("GET", "/machine", &Value::Null).await
    }

    pub async fn log(&self) -> Vec<Value> {
        let Value::Array(records) = self.control("GET", "/log", &Value::Null).await else {
            panic!("no log")
        };
        records
    }

    /// What was asked of the machine behind it: everything that is no read, no login and no subscription.
    pub async fn writes(&self) -> Vec<String> {
        let records = self.log().await.into_iter();
        let records = records.filter(|r| r["method"] != "GET" && r["method"] != "HEAD");
        let text = |r: &Value| format!("{} {} {}", r["method"].as_str().unwrap(), r["path"].as_str().unwrap(), r["body"]);
        let writes: Vec<String> = records.map(|r| text(&r)).collect();
        let about = |w: &String| !w.contains("/SessionService/") && !w.contains("/EventService/");
        writes.into_iter().filter(about).collect()
    }

    /// How often a session was opened.
    pub async fn logins(&self) -> usize {
        let opens = |r: &Value| r["method"] == "POST" && r["path"].as_str().is_some_and(|path| path.ends_with("/Sessions"));
        self.log().await.iter().filter(|r| opens(r)).count()
    }

    pub async fn power(&self, is: &str) {
        poll::until(&format!("the machine is {is}"), || async {
            let machine = self.machine().await;
            let systems = machine["systems"].as_object()?.values();
            let all = systems.clone().all(|system| system["power"] == is);
            all.then_some(())
        })
        .await;
    }
}

/// Machines that are off, so that there is nothing to wait for.
pub const OFF: &[&str] = &[
    "--set",
    r#"{"power_seconds": 0.2, "shutdown_seconds": 0.2, "post_seconds": 0.2, "task_seconds": 1}"#,
];

pub async fn switched_off(foreign: &Foreign) {
    let machine = foreign.machine().await;
    let systems: serde_json::Map<String, Value> = machine["systems"]
        .as_object()
        .unwrap()
        .keys()
        .map(|id| (id.clone(), json!({"power": "Off"})))
        .collect();
    foreign.control("POST", "/machine", &json!({"systems": systems})).await;
}

pub async fn create_bmc(clients: &Clients, name: &str, spec: BmcSpec) -> Result<Bmc, tonic::Status> {
    let request = bmc::CreateBmcRequest {
        bmc: Some(named(name, spec)),
        request_id: String::new(),
    };
    Ok(clients.bmcs.clone().create_bmc(request).await?.into_inner())
}

/// Changes these fields of its specification.
pub async fn update_bmc(clients: &Clients, name: &str, spec: BmcSpec, fields: &[&str]) -> Result<Bmc, tonic::Status> {
    let request = bmc::UpdateBmcRequest {
        bmc: Some(named(name, spec)),
        update_mask: Some(prost_types::FieldMask {
            paths: fields.iter().map(|field| format!("spec.{field}")).collect(),
        }),
        request_id: String::new(),
    };
    Ok(clients.bmcs.clone().update_bmc(request).await?.into_inner())
}

fn named(name: &str, spec: BmcSpec) -> Bmc {
    Bmc {
        metadata: Some(Metadata {
            name: name.to_owned(),
            ..Default::default()
        }),
        spec: Some(spec),
        ..Default::default()
    }
}
