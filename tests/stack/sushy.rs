//! Against a Redfish service that we did not write.

use std::{path::PathBuf, process::Command};

use ironyard::{
    client::Clients,
    stack::{Config, Stack},
};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    common::PowerState,
    inventory::{ListServersRequest, Server, ServerState},
};
use ironyard_testkit::poll;

use crate::{crash::free_port, seed::cli};

fn emulator() -> Option<PathBuf> {
    let venv = std::env::var_os("IRONYARD_VENV").map(PathBuf::from);
    let program = venv.map(|v| v.join("bin/sushy-emulator")).filter(|p| p.is_file());
    if program.is_none() {
        ironyard_testkit::skip("sushy-emulator", "set IRONYARD_VENV to a virtualenv with sushy-tools");
    }
    program
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_emulator_lives_its_life_and_fails_closed() {
    let Some(program) = emulator() else { return };
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let systems: Vec<String> = (0..3)
        .map(|n| format!("{{'uuid': '0f000000-0000-4000-8000-00000000000{n}', 'name': 'node-{n}', 'power_state': 'Off', 'nics': [{{'mac': '02:00:00:00:00:0{n}', 'ip': '192.0.2.1{n}'}}]}}"))
        .collect();
    let config = format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\nSUSHY_EMULATOR_STATE_DIR = '{}'\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{}]\n",
        folder.path().display(),
        systems.join(", ")
    );
    let file = folder.path().join("sushy.conf");
    std::fs::write(&file, config).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let child = Command::new(program)
        .args(["--fake", "--config"])
        .arg(&file)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let _emulator = Killed(child);
    poll::until("the emulator answers", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;

    let mut config = Config::new(folder.path().join("data"), ([127, 0, 0, 1], 0).into());
    config.in_band = InBand::Off;
    let stack = Stack::start(config).await.unwrap();
    let bmc = format!(
        "apiVersion: v1alpha1\nkind: BMC\nmetadata:\n  name: sushy\nspec:\n  address: 127.0.0.1\n  protocol:\n    name: Redfish\n    scheme: http\n    port: {port}\n"
    );
    let file = folder.path().join("bmc.yaml");
    std::fs::write(&file, bmc).unwrap();
    cli(&stack.address, &["apply", "-f", &file.display().to_string()]).unwrap();
    let clients = Clients::at(&stack.address).unwrap();
    let list = async || -> Vec<Server> {
        let request = ListServersRequest {
            page_size: 10,
            ..Default::default()
        };
        clients
            .servers
            .clone()
            .list_servers(request)
            .await
            .map(|r| r.into_inner().servers)
            .unwrap_or_default()
    };
    poll::until("three servers are Available", || async {
        let servers = list().await;
        (servers.len() == 3 && servers.iter().all(|s| s.state() == ServerState::Available)).then_some(())
    })
    .await;
    cli(&stack.address, &["claim", "mine", "--on"]).unwrap();
    cli(&stack.address, &["wait", "claim", "mine", "--for", "power=On", "--timeout", "120s"]).unwrap();
    let reserved = list().await.into_iter().find(|s| s.state() == ServerState::Reserved).unwrap();
    let name = reserved.metadata.unwrap().name;
    assert_eq!(cli(&stack.address, &["power", &name]).unwrap().trim(), "On");
    cli(&stack.address, &["release", "mine"]).unwrap();
    let failed = poll::until("the cleanup fails closed", || async {
        list().await.into_iter().find(|s| s.state() == ServerState::Error)
    })
    .await;
    assert_eq!(failed.failure.clone().unwrap().reason, "DRIVES_UNREADABLE", "{:?}", failed.failure);
    assert!(failed.observed.unwrap().power_state() == PowerState::Off && failed.sanitization_debt.is_some());
    let (code, message) = cli(&stack.address, &["resolve", &name, "--reason", "fine", "--as", "Grace Hopper"]).unwrap_err();
    assert!(code == 64 + 9 && message.contains("owes a wipe"), "{message}");
    cli(
        &stack.address,
        &["waive-sanitization", &name, "--reason", "lab machine", "--as", "Grace Hopper"],
    )
    .unwrap();
    cli(
        &stack.address,
        &["resolve", &name, "--reason", "lab machine", "--as", "Grace Hopper"],
    )
    .unwrap();
    cli(
        &stack.address,
        &["wait", "server", &name, "--for", "state=Available", "--timeout", "60s"],
    )
    .unwrap();
    let history = cli(&stack.address, &["history", &name]).unwrap();
    assert!(history.contains("Waive") && history.contains("Grace Hopper"), "{history}");
    stack.stop().await;
}
