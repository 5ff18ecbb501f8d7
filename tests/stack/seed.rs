use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
};

use ironyard::{
    client::Clients,
    simulate::boot_agent,
    stack::{Config, Stack},
};
use ironyard_bmc_simulator::{Fleet, FleetConfig, MachineConfig, serve};
use ironyard_proto::inventory::{GetServerRequest, ServerState};
use ironyard_testkit::poll;

/// The folder of the documents that this project was created from; they must apply as they are.
fn seed() -> Option<PathBuf> {
    let folder = std::env::var_os("IRONYARD_SEED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/seed")),
        PathBuf::from,
    );
    if !folder.join("server.yaml").is_file() {
        ironyard_testkit::skip(
            "the seed's documents",
            &format!("{} is not there; set IRONYARD_SEED", folder.display()),
        );
        return None;
    }
    Some(folder)
}

const REFERRED: &str = "
apiVersion: metal.ironcore.dev/v1alpha1
kind: Endpoint
metadata:
  name: my-bmc-endpoint
spec:
  macAddress: 02:00:00:00:80:00
  ip: 127.91.0.1
---
apiVersion: metal.ironcore.dev/v1alpha1
kind: BMCSecret
metadata:
  name: my-bmc-secret
data:
  username: YWRtaW4=
  password: c2ltdWxhdGVk
";

/// Runs the command line against a server; its standard output.
pub fn cli(server: &str, arguments: &[&str]) -> Result<String, (i32, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"))
        .env("IRONYARD_SERVER", server)
        .args(arguments)
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err((
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_applies_verbatim_and_is_acted_on() {
    let Some(seed) = seed() else { return };
    for (file, name, attribute, power) in [
        ("server-with-bmc-ref.yaml", "server-with-bmc-ref", "HyperThreading", "On"),
        ("server.yaml", "my-server", "Virtualization", "Off"),
    ] {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path(), ([127, 0, 0, 1], 0).into());
        config.first_wipe = ironyard_types::hardware::FirstWipe::Waive;
        config.in_band = ironyard_discovery::domain::discovery_run::InBand::Off;
        config.gateway.requests_per_second = 0;
        let stack = Stack::start(config).await.unwrap();
        let machine = MachineConfig {
            address: IpAddr::V4(Ipv4Addr::new(127, 91, 0, 1)),
            uuid: "123E4567-E89B-12D3-A456-426614174000".into(),
            ..MachineConfig::of(&FleetConfig::default(), 0)
        };
        let fleet = Fleet::of([machine], Some(boot_agent()));
        // The document says port 8000 and no scheme: HTTPS, with the BMC's own certificate.
        let serving = serve(fleet.clone(), 8000, true).unwrap();
        let machine = fleet.machines().remove(0);

        let referred = data.path().join("referred.yaml");
        std::fs::write(&referred, REFERRED).unwrap();
        cli(&stack.address, &["apply", "-f", &referred.display().to_string()]).unwrap();
        // The BMC first: the server that discovery makes of it gives way to the document.
        cli(&stack.address, &["apply", "-f", &seed.join("bmc.yaml").display().to_string()]).unwrap();
        cli(
            &stack.address,
            &["wait", "bmc", "my-bmc", "--for", "condition=Ready", "--timeout", "60s"],
        )
        .unwrap();
        cli(&stack.address, &["apply", "-f", &seed.join(file).display().to_string()]).unwrap();
        poll::until("BIOS settings, boot order and power reach the hardware", || async {
            let settings = machine.settings();
            let there = settings["bios"][attribute] == "Enabled"
                && settings["bios"]["BootMode"] == "UEFI"
                && settings["boot_order"][0] == "Boot0002"
                && settings["power"] == power;
            there.then_some(())
        })
        .await;
        let clients = Clients::at(&stack.address).unwrap();
        poll::until("the server is at rest again", || async {
            let server = clients
                .servers
                .clone()
                .get_server(GetServerRequest { name: name.into() })
                .await
                .ok()?
                .into_inner();
            (server.state() == ServerState::Available && server.waiting_because.is_none()).then_some(())
        })
        .await;
        let history = cli(&stack.address, &["history", name]).unwrap();
        assert!(
            history.contains("BeginMaintenance") && history.contains("BIOS settings"),
            "{history}"
        );
        let wide = cli(&stack.address, &["get", "bmc", "my-bmc", "-o", "json"]).unwrap();
        assert!(
            wide.contains("\"consoleProtocol\": \"SSH\"") && wide.contains("certificateSha256"),
            "{wide}"
        );
        stack.stop().await;
        drop(serving);
    }
}
