//! Against a Redfish service that we did not write.

use std::{path::PathBuf, process::Command};

use ironyard::{
    client::Clients,
    stack::{Config, Stack},
};
use ironyard_conformance::{self as conformance, Outcome, Scope};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    common::PowerState,
    inventory::{ListServersRequest, Server, ServerState},
};
use ironyard_testkit::poll;
use ironyard_types::{Clock, SystemClock};

use crate::{
    conformance::{client, lines},
    crash::free_port,
    seed::cli,
};

pub fn emulator() -> Option<PathBuf> {
    let venv = std::env::var_os("IRONYARD_VENV").map(PathBuf::from);
    let program = venv.map(|v| v.join("bin/sushy-emulator")).filter(|p| p.is_file());
    if program.is_none() {
        ironyard_testkit::skip("sushy-emulator", "set IRONYARD_VENV to a virtualenv with sushy-tools");
    }
    program
}

pub struct Killed(pub std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an emulator with this configuration, in this folder, and waits until it answers.
pub async fn started(command: &mut Command, folder: &std::path::Path, config: &str, port: u16) -> Killed {
    let file = folder.join("sushy.conf");
    std::fs::write(&file, config).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let command = command.arg("--config").arg(&file).stdout(log.try_clone().unwrap()).stderr(log);
    let emulator = Killed(command.spawn().unwrap());
    poll::until("the emulator answers", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    emulator
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
    let _emulator = started(Command::new(program).arg("--fake"), folder.path(), &config, port).await;

    let mut config = Config::new(folder.path().join("data"), ([127, 0, 0, 1], 0).into());
    config.first_wipe = ironyard_types::hardware::FirstWipe::Waive;
    config.in_band = InBand::Off;
    config.gateway.requests_per_second = 0;
    // It fails at listing drives, and no machine boots the agent, which could see them.
    config.boot_timeout = std::time::Duration::from_secs(5);
    (config.patience, config.offer_unread_storage) = (std::time::Duration::from_secs(20), true);
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

/// A file server that has one image.
async fn image_server() -> (u16, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = "x".repeat(2048);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, serving)
}

/// Everything on the emulator, with the fake driver and with libvirt's test driver (which has a BIOS, and forgets power and boot at once).
#[tokio::test(flavor = "multi_thread")]
async fn the_foreign_emulator_conforms_as_far_as_it_goes() {
    let Some(program) = emulator() else { return };
    let (files, _serving) = image_server().await;
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node.xml");
    std::fs::write(&node, NODE).unwrap();
    let libvirt = program.with_file_name("python");
    let has_libvirt = Command::new(libvirt)
        .args(["-c", "import libvirt"])
        .status()
        .is_ok_and(|s| s.success());
    if !has_libvirt {
        ironyard_testkit::skip("sushy-emulator on libvirt's test driver", "the virtualenv has no libvirt-python");
    }
    let fake = "SUSHY_EMULATOR_FAKE_SYSTEMS = [{'uuid': '0f000000-0000-4000-8000-0000000000aa', 'name': 'machine', 'power_state': 'Off', 'nics': [{'mac': '02:00:00:00:00:aa', 'ip': '192.0.2.11'}]}]\n";
    let uri = format!("test://{}", node.display());
    // What the emulator itself does not do.
    type Run<'a> = (&'a str, Vec<&'a str>, &'a str, bool, &'a [&'a str]);
    let runs: [Run<'_>; 2] = [
        ("fake", vec!["--fake"], fake, true, &["volumes"]),
        (
            "libvirt",
            vec!["--libvirt-uri", &uri],
            "",
            false,
            &["volumes", "boot override", "virtual media, inserted"],
        ),
    ];
    for (driver, args, more, power, fails) in runs {
        if driver == "libvirt" && !has_libvirt {
            continue;
        }
        let port = free_port();
        let state = folder.path().join(driver);
        std::fs::create_dir_all(&state).unwrap();
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\nSUSHY_EMULATOR_STATE_DIR = '{}'\n{more}",
            state.display()
        );
        let _emulator = started(Command::new(&program).args(&args), &state, &config, port).await;
        let scope = Scope {
            writes: true,
            power,
            image: format!("http://127.0.0.1:{files}/image.iso"),
        };
        let client = client(std::net::IpAddr::from([127, 0, 0, 1]), port, None);
        let report = conformance::run(&client, &scope, SystemClock.now()).await;
        let failed: Vec<&str> = report
            .checks
            .iter()
            .filter(|c| matches!(c.outcome, Outcome::Fails(_)))
            .filter_map(|c| c.name.split(": ").nth(1))
            .collect();
        assert_eq!(failed, fails, "{driver}:\n{}", lines(&report));
        let bios = report.checks.iter().find(|c| c.name.ends_with(": BIOS")).unwrap();
        assert_eq!(matches!(bios.outcome, Outcome::Works(_)), driver == "libvirt", "{driver}: {bios:?}");
    }
}

const NODE: &str = r#"<node>
  <domain type="test">
    <name>machine</name>
    <uuid>0f000000-0000-4000-8000-0000000000aa</uuid>
    <memory>1048576</memory>
    <vcpu>2</vcpu>
    <os><type arch="x86_64">hvm</type><boot dev="hd"/></os>
    <devices><interface type="network"><mac address="02:00:00:00:00:aa"/><source network="default"/></interface></devices>
  </domain>
  <network><name>default</name><bridge name="virbr0"/><forward mode="nat"/><ip address="192.168.122.1" netmask="255.255.255.0"/></network>
</node>
"#;
