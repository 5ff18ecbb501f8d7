use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use ironyard_proto::bmc::SetCredentialRequest;

use crate::crash::{Process, free_port};

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
