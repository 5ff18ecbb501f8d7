//! Rules that no compiler checks.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use ironyard_rpc::{Reason, access::TABLE};
use prost_reflect::DescriptorPool;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join("libs"), root().join("services")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_method_is_in_the_authorisation_table() {
    let pool = DescriptorPool::decode(ironyard_proto::DESCRIPTORS).unwrap();
    let methods: BTreeSet<String> = pool
        .services()
        .flat_map(|s| s.methods().map(|m| format!("{}/{}", s.full_name(), m.name())).collect::<Vec<_>>())
        .collect();
    let table: BTreeSet<String> = TABLE
        .iter()
        .map(|r| r.method.to_owned())
        .filter(|m| m.starts_with("ironyard."))
        .collect();
    assert_eq!(methods, table);
}

#[test]
fn every_call_to_hardware_finds_the_gateway_that_has_the_bmc() {
    let keys = ironyard_bmc_gateway::replicas::Replicas::keys();
    let routed: BTreeSet<&str> = keys.methods().map(|path| path.trim_start_matches("/ironyard.bmc.v1.")).collect();
    let hardware = |method: &&str| {
        let (service, verb) = method.split_once('/').unwrap();
        match service {
            "SystemService" | "StorageService" | "ManagerService" | "ConsoleService" => true,
            // A sweep goes over many, and divides them itself.
            "TelemetryService" => verb != "SweepPower",
            "CredentialService" => verb == "RotateCredential",
            "BmcService" | "OperationService" => false,
            other => panic!("does {other} reach hardware?"),
        }
    };
    let expected: BTreeSet<&str> = TABLE
        .iter()
        .filter_map(|row| row.method.strip_prefix("ironyard.bmc.v1."))
        .filter(hardware)
        .collect();
    assert_eq!(routed, expected);
}

#[test]
fn every_update_names_the_version_or_the_fence() {
    for (path, text) in sources() {
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            let Some(at) = line.find("update ") else { continue };
            if !line[at..].contains(" set ") || !line.contains('"') || line.contains("on conflict") {
                continue;
            }
            let statement: String = text.lines().skip(i).take(6).collect::<Vec<_>>().join(" ");
            // A queue row's lease is its fence; taking, poking and adopting make new ones. A change gets its place once.
            let guarded = [
                "version = $",
                "version = n.c1",
                "fence = $3",
                "fence = fence + 1",
                "fence = {greatest}(fence + 1",
                "position is null",
                // What is derived from a record, in the transaction that wrote the record over its version.
                "update server_label set claimable",
                // A claim is due once more: nothing that anybody decided is written over.
                "woken = woken + 1",
                // A replica's own row, which nobody else writes.
                "update replica set writing",
                // What is sealed is another text with every write: over that very one.
                "and sealed_secret = $2",
                "(sealed_key = $2 or pending_key = $2 or set_key = $2)",
            ]
            .iter()
            .any(|g| statement.contains(g));
            assert!(guarded, "{}:{}: an update that names no version: {line}", path.display(), i + 1);
        }
    }
}

/// A reconciler writes through its pass, over the version that it decided on, and in no other way.
#[test]
fn tasks_write_through_their_pass() {
    for (path, text) in sources().into_iter().filter(|(p, _)| p.display().to_string().contains("/tasks/")) {
        // What an operation saw of a system is noted on the BMC's record, whoever else writes there.
        let gateway = path.display().to_string().contains("bmc-gateway");
        for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
            let around = ["update::<", "delete::<", "change_run("].iter().any(|way| line.contains(way));
            assert!(!around || gateway, "{}: {line}", path.display());
        }
    }
}

#[test]
fn domains_name_no_outer_layer() {
    for (path, text) in sources().into_iter().filter(|(p, _)| p.display().to_string().contains("/domain/")) {
        for line in text.lines().map(str::trim_start).filter(|l| l.starts_with("use ")) {
            for outer in ["tonic", "prost", "sqlx", "reqwest", "axum", "tokio", "ironyard_redfish"] {
                assert!(!line.starts_with(&format!("use {outer}")), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn only_the_gateway_can_reach_a_bmc() {
    for service in ["inventory", "discovery", "claim", "maintenance", "metalprobe"] {
        let manifest = fs::read_to_string(root().join(format!("services/{service}/Cargo.toml"))).unwrap();
        assert!(
            !manifest.contains("ironyard-redfish") && !manifest.contains("reqwest"),
            "{service} must not speak to BMCs"
        );
    }
}

#[test]
fn the_document_of_errors_is_up_to_date() {
    let mut text = String::from(
        "# Reasons\n\nWritten by a test from `libs/rpc/src/reason.rs`; do not edit. Every error carries a `google.rpc.ErrorInfo` of domain\n`ironyard` with one of these reasons.\n\n| reason | code | meaning |\n|---|---|---|\n",
    );
    for reason in Reason::ALL {
        text.push_str(&format!(
            "| `{}` | {:?} | {} |\n",
            reason.as_str(),
            reason.kind().code(),
            reason.help()
        ));
    }
    let path = root().join("docs/errors.md");
    if fs::read_to_string(&path).unwrap_or_default() != text {
        fs::write(&path, &text).unwrap();
        panic!("docs/errors.md was out of date; it has been written again");
    }
}
