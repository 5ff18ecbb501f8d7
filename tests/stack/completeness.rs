//! What the gateway tells of a BMC, held against what an independent walker finds in the same recorded tree. Every difference is 0 or stands in
//! `completeness.txt`, with the class of its cause; `tests/foreign/README.md` says why those that are left are left.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ironyard_proto::bmc::{self, Bmc, BmcSpec};
use ironyard_proto::common::Metadata;
use serde_json::Value;

use crate::{
    conformance::mockups,
    gateway::{Alone, ready},
};

const PINNED: &str = include_str!("completeness.txt");

/// A recorded tree as a BMC, in a process of its own which ends with this.
struct Recorded(Child, Value);

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(name: &str) -> String {
    format!("{}/foreign/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn recorded(tree: &Path) -> Recorded {
    let mut command = Command::new("python3");
    command.arg(script("recorded.py")).arg(tree);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let hello = serde_json::from_str(&line).unwrap();
    Recorded(child, hello)
}

/// Runs a program to its end, and returns what it printed.
async fn printed(program: &Path, arguments: &[String]) -> Vec<u8> {
    let mut command = tokio::process::Command::new(program);
    let output = command.arg("-B").args(arguments).output().await.unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The differences of one tree, by class, side and cause: how many, and the first of them.
async fn differences(python: &Path, name: &str, tree: &Path) -> Vec<String> {
    let alone = Alone::start(|settings| {
        settings.read_timeout = Duration::from_secs(30);
    })
    .await;
    let served = recorded(tree);
    let credential = bmc::SetCredentialRequest {
        name: "any".into(),
        username: "any".into(),
        password: "any".into(),
        replace: false,
        networks: vec![],
    };
    alone.clients.credentials.clone().set_credential(credential).await.unwrap();
    let bmc = Bmc {
        metadata: Some(Metadata {
            name: name.to_owned(),
            ..Default::default()
        }),
        spec: Some(BmcSpec {
            address: served.1["host"].as_str().unwrap().to_owned(),
            port: i32::try_from(served.1["port"].as_i64().unwrap()).unwrap(),
            scheme: "http".into(),
            credential: "any".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = bmc::CreateBmcRequest {
        bmc: Some(bmc),
        request_id: String::new(),
    };
    alone.clients.bmcs.clone().create_bmc(request).await.unwrap();
    ready(&alone.clients, name).await;
    let told = printed(python, &[script("ask.py"), alone.address.clone(), name.to_owned()]).await;
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("told.json");
    std::fs::write(&dump, told).unwrap();
    let arguments = [script("completeness.py"), tree.display().to_string(), dump.display().to_string()];
    let found = String::from_utf8(printed(python, &arguments).await).unwrap();
    let mut classes: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for line in found.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [class, server, side, what, _, why] = cells[..] else {
            panic!("{line}")
        };
        let what = format!("{what} of {server}");
        classes.entry(format!("{class}: {side}: {why}")).or_insert((0, what)).0 += 1;
    }
    let told = classes.into_iter().map(|(class, (n, first))| format!("  {n} × {class}: {first}"));
    std::iter::once(format!("{name}:")).chain(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_to_an_independent_walk_is_listed() {
    let Some(folder) = mockups() else { return };
    let python = std::env::var_os("IRONYARD_VENV").map(|venv| PathBuf::from(venv).join("bin/python"));
    let Some(python) = python.filter(|p| p.is_file()) else {
        ironyard_testkit::skip(
            "the independent walk",
            "set IRONYARD_VENV to a virtualenv with tests/requirements.txt",
        );
        return;
    };
    let mut trees: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    trees.retain(|path| path.extension().is_some_and(|e| e == "gz"));
    trees.sort();
    let mut found = Vec::new();
    for tree in &trees {
        let name = tree.file_name().unwrap().to_string_lossy().trim_end_matches(".json.gz").to_owned();
        found.extend(differences(&python, &name, tree).await);
    }
    let found = found.join("\n") + "\n";
    if found != PINNED {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/stack/completeness.txt");
        if std::env::var_os("IRONYARD_PIN").is_some() {
            std::fs::write(path, &found).unwrap();
        }
        let fresh: Vec<_> = found.lines().filter(|line| !PINNED.lines().any(|known| known == *line)).collect();
        panic!("the differences are others (IRONYARD_PIN=1 writes them):\n{}", fresh.join("\n"));
    }
}
