use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use ironyard::client::Clients;
use ironyard_proto::bmc::{ListCredentialsRequest, RewrapCredentialsRequest, SetCredentialRequest};

use crate::{
    crash::{Process, free_port},
    foreign_bmc::{Foreign, OFF},
    gateway::{Killable, ready, reason_of},
};

/// A word that stands nowhere else.
const PLANTED: &str = "pl4nted-p4ssword-9f31c2";

#[tokio::test(flavor = "multi_thread")]
async fn a_password_appears_nowhere() {
    let data = tempfile::tempdir().unwrap();
    let port = free_port();
    let address = format!("http://127.0.0.1:{port}");
    let mut up = Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"))
        .args([
            "up",
            "--first-wipe",
            "waive",
            "--requests-per-second",
            "0",
            "--json-logs",
            "--agent-image",
            "simulated",
            "--agent-image-listen",
            "127.0.0.1:0",
            "--port",
            &port.to_string(),
            "--data",
            &data.path().display().to_string(),
        ])
        .env("RUST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = up.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = log.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut first = String::new();
    BufReader::new(up.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("ready"), "{first}");
    let simulator = Process::simulate(1);
    let clients = ironyard::client::Clients::at(&address).unwrap();
    let request = SetCredentialRequest {
        name: "planted".into(),
        username: "admin".into(),
        password: PLANTED.into(),
        replace: false,
        networks: vec![],
    };
    clients.credentials.clone().set_credential(request).await.unwrap();
    // It is used, and refused: errors are where secrets leak.
    let bmc = format!(
        "apiVersion: v1alpha1\nkind: BMC\nmetadata:\n  name: b\nspec:\n  address: 127.80.0.1\n  bmcSecretRef:\n    name: planted\n  protocol:\n    name: Redfish\n    scheme: http\n    port: {}\n",
        simulator.port
    );
    let file = data.path().join("b.yaml");
    std::fs::write(&file, bmc).unwrap();
    crate::seed::cli(&address, &["apply", "-f", &file.display().to_string()]).unwrap();
    ironyard_testkit::poll::until("the credential is refused", || async {
        let shown = crate::seed::cli(&address, &["get", "bmc", "b", "-o", "json"]).unwrap();
        assert!(!shown.contains(PLANTED));
        shown.contains("BMC_AUTHENTICATION_FAILED").then_some(())
    })
    .await;
    for arguments in [
        ["get", "secret", "-o", "yaml"],
        ["get", "bmc", "-o", "json"],
        ["get", "operation", "-o", "json"],
    ] {
        assert!(!crate::seed::cli(&address, &arguments).unwrap().contains(PLANTED));
    }
    up.kill().unwrap();
    up.wait().unwrap();
    let log = reader.join().unwrap();
    assert!(log.len() > 1000 && !log.contains(PLANTED), "the log of a trace run is without it");
    for entry in std::fs::read_dir(data.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(
            !bytes.windows(PLANTED.len()).any(|w| w == PLANTED.as_bytes()),
            "{} holds it in clear",
            path.display()
        );
    }
}

/// A sealing key is replaced without a moment in which a BMC cannot be reached: by the steps that the documentation names.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_key_is_replaced_while_the_bmc_is_in_use() {
    let Some(foreign) = Foreign::start("standard", OFF) else { return };
    let keys = tempfile::tempdir().unwrap();
    let file = |name: &str| keys.path().join(name).display().to_string();
    for (name, digits) in [("old", "11"), ("new", "22")] {
        std::fs::write(file(name), digits.repeat(32)).unwrap();
    }
    let mut gateway = Killable::with(|port| {
        let environment = vec![("BMC_GATEWAY_GATEWAY__KEY_FILE".to_owned(), file("old"))];
        (environment, Clients::at(&format!("http://127.0.0.1:{port}")).unwrap())
    })
    .await;
    foreign.register(&gateway.clients, "one").await;
    foreign.set_credential(&gateway.clients, "another").await;
    ready(&gateway.clients, "one").await;
    let sealed_under = async |gateway: &Killable| {
        let listed = gateway
            .clients
            .credentials
            .clone()
            .list_credentials(ListCredentialsRequest {})
            .await
            .unwrap();
        let ids = listed.into_inner().credentials.into_iter().map(|c| c.sealing_key_id);
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    let rewrap = async |gateway: &Killable| {
        gateway
            .clients
            .credentials
            .clone()
            .rewrap_credentials(RewrapCredentialsRequest {})
            .await
    };
    let before = sealed_under(&gateway).await;
    let logins = foreign.logins().await;
    let lists = |names: &[&str]| format!("{:?}", names.iter().map(|name| file(name)).collect::<Vec<_>>());
    for (key, old, expected) in [("old", vec!["new"], before.clone()), ("new", vec!["old"], before.clone())] {
        gateway.kill();
        gateway.set("BMC_GATEWAY_GATEWAY__KEY_FILE", file(key));
        gateway.set("BMC_GATEWAY_GATEWAY__OLD_KEY_FILES", lists(&old));
        gateway.again().await;
        ready(&gateway.clients, "one").await;
        assert_eq!(sealed_under(&gateway).await, expected);
    }
    // What is sealed anew is the key; the BMC notices nothing.
    let done = rewrap(&gateway).await.unwrap().into_inner();
    assert!(done.rewrapped >= 2 && !before.contains(&done.sealing_key_id), "{done:?}");
    assert_eq!(sealed_under(&gateway).await, [done.sealing_key_id.clone()].into());
    let again = rewrap(&gateway).await.unwrap().into_inner();
    assert_eq!((again.rewrapped, again.already), (0, done.rewrapped + done.already));
    gateway.kill();
    gateway.set("BMC_GATEWAY_GATEWAY__OLD_KEY_FILES", "[]".to_owned());
    gateway.again().await;
    ready(&gateway.clients, "one").await;
    assert_eq!(foreign.logins().await, logins, "its session was gone on with all the time");
    // Without the key that something is sealed under, the record is named, and the key.
    gateway.kill();
    gateway.set("BMC_GATEWAY_GATEWAY__KEY_FILE", file("old"));
    gateway.again().await;
    let missing = rewrap(&gateway).await.unwrap_err();
    assert_eq!(reason_of(&missing), "SEALING_KEY_MISSING", "{missing}");
    assert!(
        missing.message().contains(&done.sealing_key_id) && missing.message().contains("old_key_files"),
        "{missing}"
    );
}
