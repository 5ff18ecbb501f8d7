use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    io::Read,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use ironyard_bmc_simulator::{Fleet, Tree, serve};
use ironyard_redfish::{
    Client, Limits, Target, Trust,
    ops::{hardware, systems},
};
use ironyard_types::{Clock, SystemClock};

fn mockups() -> Option<PathBuf> {
    let folder = std::env::var_os("IRONYARD_MOCKUPS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/mockups")),
        PathBuf::from,
    );
    if !folder.join("SOURCES.tsv").is_file() {
        ironyard_testkit::skip(
            "the recorded trees",
            &format!("{} is not there; set IRONYARD_MOCKUPS", folder.display()),
        );
        return None;
    }
    Some(folder)
}

fn load(path: &PathBuf) -> HashMap<String, serde_json::Value> {
    let mut child = Command::new("gzip")
        .arg("-dc")
        .arg(path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    serde_json::from_str(&text).unwrap()
}

/// What each recorded tree yields; a change of any number is a change of what is read, for better or worse.
const PINNED: &str = include_str!("conformance_totals.txt");

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_tree_yields_its_inventory() {
    let Some(folder) = mockups() else { return };
    ironyard_redfish::install_crypto();
    let mut trees = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "gz") {
            let name = path.file_name().unwrap().to_string_lossy().trim_end_matches(".json.gz").to_owned();
            trees.insert(name, load(&path));
        }
    }
    let address = |n: usize| IpAddr::V4(Ipv4Addr::new(127, 92, 0, u8::try_from(n + 1).unwrap()));
    let fleet = Fleet::of_trees(trees.values().enumerate().map(|(n, tree)| (address(n), Tree::new(tree.clone()))));
    let serving = serve(fleet, 0, false).unwrap();
    let mut totals = String::new();
    for (n, name) in trees.keys().enumerate() {
        let target = Target {
            scheme: "http".into(),
            address: address(n),
            port: serving.port,
        };
        let limits = Limits {
            concurrency: 4,
            backoff: Duration::from_millis(1),
            ..Limits::default()
        };
        let client = Client::new(&target, &Trust::FirstUse, None, limits).unwrap();
        let found = systems::list(&client).await.unwrap();
        writeln!(totals, "{name}: {} systems", found.len()).unwrap();
        for system in found {
            let seen = hardware::read(&client, &system, SystemClock.now()).await.unwrap();
            writeln!(
                totals,
                "  {}: uuid {} serial {} cpus {} dimms {} MiB {} drives {} with serial {} nics {} pci {} unreadable {}",
                system.id(),
                if seen.system_uuid.is_empty() { "no" } else { "yes" },
                if seen.serial_number.is_empty() { "no" } else { "yes" },
                seen.processors.len(),
                seen.memory_modules.len(),
                seen.memory_mib,
                seen.drives.len(),
                seen.drives.iter().filter(|d| !d.serial_number.is_empty()).count(),
                seen.network_interfaces.len(),
                seen.pci_devices.len(),
                seen.unreadable.len(),
            )
            .unwrap();
        }
    }
    if totals != PINNED {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/stack/conformance_totals.txt");
        if std::env::var_os("IRONYARD_PIN").is_some() {
            std::fs::write(path, &totals).unwrap();
        }
        panic!("the totals differ (IRONYARD_PIN=1 writes them):\n{totals}");
    }
}
