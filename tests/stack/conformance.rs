use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    io::Read,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use futures_util::StreamExt;
use ironyard_bmc_simulator::{Fleet, Tree, serve};
use ironyard_conformance::{self as conformance, Outcome, Report, Scope};
use ironyard_redfish::{Client, Limits, Login, Target, Trust};
use ironyard_types::{Clock, Secret, SystemClock};

pub fn mockups() -> Option<PathBuf> {
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
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What each recorded tree yields; a change of any number is a change of what is read, for better or worse.
const PINNED: &str = include_str!("conformance_totals.txt");

async fn trees() -> Option<(BTreeMap<String, IpAddr>, u16, ironyard_bmc_simulator::Serving)> {
    let folder = mockups()?;
    let mut trees = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "gz") {
            let name = path.file_name().unwrap().to_string_lossy().trim_end_matches(".json.gz").to_owned();
            trees.insert(name, load(&path));
        }
    }
    let address = |n: usize| IpAddr::V4(Ipv4Addr::new(127, 92, 0, u8::try_from(n + 1).unwrap()));
    let places = trees.keys().enumerate().map(|(n, name)| (name.clone(), address(n))).collect();
    let fleet = Fleet::of_trees(trees.into_values().enumerate().map(|(n, tree)| (address(n), Tree::new(tree))));
    let serving = serve(fleet, 0, false).unwrap();
    Some((places, serving.port, serving))
}

pub fn client(address: IpAddr, port: u16, login: Option<Login>) -> Client {
    ironyard_redfish::install_crypto();
    let target = Target {
        scheme: "http".into(),
        address,
        name: None,
        port,
    };
    let limits = Limits {
        concurrency: 4,
        backoff: Duration::from_millis(1),
        ..Limits::default()
    };
    Client::new(&target, &Trust::Any, login, limits).unwrap()
}

pub fn lines(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let (word, seen) = match &check.outcome {
            Outcome::Works(seen) => ("works", seen),
            Outcome::Missing(what) => ("missing", what),
            Outcome::Fails(why) => ("FAILS", why),
        };
        writeln!(text, "  {}: {word}: {seen}", check.name).unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_tree_yields_what_is_readable() {
    let Some((places, port, _serving)) = trees().await else { return };
    let reports = futures_util::stream::iter(places).map(|(name, address)| async move {
        let report = conformance::run(&client(address, port, None), &Scope::default(), SystemClock.now()).await;
        format!("{name}:\n{}", lines(&report))
    });
    let totals: Vec<String> = reports.buffered(2).collect().await;
    let totals = totals.concat();
    assert!(
        !totals.contains("FAILS"),
        "{}",
        totals.lines().filter(|l| l.contains("FAILS")).collect::<Vec<_>>().join("\n")
    );
    if totals != PINNED {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/stack/conformance_totals.txt");
        if std::env::var_os("IRONYARD_PIN").is_some() {
            std::fs::write(path, &totals).unwrap();
        }
        let differs: Vec<_> = totals.lines().filter(|l| !PINNED.contains(l)).collect();
        panic!("the totals differ (IRONYARD_PIN=1 writes them):\n{}", differs.join("\n"));
    }
}

/// How many texts of a document that has had its secrets taken out are hidden; and those that are not, though their names end like secrets'.
fn shown(value: &serde_json::Value, name: &str, told: &mut Vec<String>) -> usize {
    const ENDS: [&str; 17] = [
        "password",
        "passphrase",
        "secret",
        "salt",
        "community",
        "communityname",
        "communitystring",
        "ipmikey",
        "v3key",
        "privatekey",
        "encryptionkey",
        "licensekey",
        "activationkey",
        "keystring",
        "authkey",
        "authenticationkey",
        "signingkeys",
    ];
    match value {
        serde_json::Value::Object(map) => map.iter().map(|(key, value)| shown(value, key, told)).sum(),
        serde_json::Value::Array(list) => list.iter().map(|value| shown(value, name, told)).sum(),
        serde_json::Value::String(text) if text == "[secret]" => 1,
        serde_json::Value::String(text) => {
            if !text.is_empty() && ENDS.iter().any(|end| name.to_ascii_lowercase().ends_with(end)) {
                told.push(format!("{name}: {text}"));
            }
            0
        }
        _ => 0,
    }
}

#[test]
fn raw_documents_of_recorded_trees_show_no_secrets() {
    let Some(folder) = mockups() else { return };
    let (mut told, mut hidden) = (vec![], 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "gz") {
            for mut document in load(&path).into_values() {
                ironyard_redfish::ops::raw::redact(&mut document);
                hidden += shown(&document, "", &mut told);
            }
        }
    }
    assert_eq!(told, Vec::<String>::new());
    assert!(hidden > 100, "{hidden}");
}

/// A tree that nobody has seen: whatever is taken out of it or spoilt in it, the rest is read, and nothing panics.
#[tokio::test(flavor = "multi_thread")]
async fn spoilt_trees_are_read_as_far_as_they_can_be() {
    let Some(folder) = mockups() else { return };
    let mut spoilt = vec![];
    for (n, name) in ["dell-idrac9-r750", "hpe-ilo6-dl380a-gen11", "lenovo-xcc-sr670v2", "openbmc-stock"]
        .into_iter()
        .enumerate()
    {
        let path = folder.join(format!("{name}.json.gz"));
        if !path.is_file() {
            continue;
        }
        let whole = load(&path);
        for step in 0..4_usize {
            let mut keys: Vec<&String> = whole.keys().collect();
            keys.sort();
            let mut tree = HashMap::new();
            for (i, key) in keys.into_iter().enumerate() {
                let root = key.trim_end_matches('/') == "/redfish/v1";
                let mut body = whole[key].clone();
                match (i + step) % 5 {
                    0 if !root => continue,
                    1 if !root => spoil(&mut body, step),
                    _ => {}
                }
                tree.insert(key.clone(), body);
            }
            let address = IpAddr::V4(Ipv4Addr::new(127, 93, u8::try_from(n).unwrap(), u8::try_from(step + 1).unwrap()));
            spoilt.push((address, name, step, Tree::new(tree)));
        }
    }
    let fleet = Fleet::of_trees(spoilt.iter().map(|(address, _, _, tree)| (*address, tree.clone())));
    let serving = serve(fleet, 0, false).unwrap();
    for (address, name, step, _) in spoilt {
        let report = conformance::run(&client(address, serving.port, None), &Scope::default(), SystemClock.now()).await;
        let works = report.checks.iter().filter(|c| matches!(c.outcome, Outcome::Works(_))).count();
        assert!(
            works >= 2,
            "{name} spoilt {step}: the root and what it links are read:\n{}",
            lines(&report)
        );
    }
}

/// Other types, nulls, and fields that are not there.
fn spoil(body: &mut serde_json::Value, step: usize) {
    use serde_json::{Value, json};
    if let Value::Object(map) = body {
        for (n, (key, value)) in map.iter_mut().enumerate() {
            if key.starts_with("@odata") {
                continue;
            }
            match (n + step) % 6 {
                0 => *value = Value::Null,
                1 => *value = json!([value.take(), {"a": [1, null, {"b": "c"}]}]),
                2 if value.is_number() => *value = json!("1e999"),
                3 if value.is_string() => *value = json!({"@odata.id": value.take()}),
                _ => spoil(value, step),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_passes_with_writes_and_power() {
    let (fleet, config) = crate::gateway::fleet(7, [127, 97, 0, 1], ironyard_bmc_simulator::Timing::default(), true);
    let serving = crate::gateway::served(&fleet, false);
    let scope = Scope {
        writes: true,
        power: true,
        image: String::new(),
    };
    // What a family does not offer, and nothing else.
    let missing: BTreeMap<&str, &[&str]> = BTreeMap::from([("ilo", &["certificate"][..]), ("ami", &["certificate"])]);
    for machine in fleet.machines() {
        let family = machine.config.profile.name;
        let login = Login {
            username: config.username.clone(),
            password: Secret::new(config.password.clone()),
            pending: None,
        };
        let client = client(machine.address(), serving.port, Some(login));
        let report = conformance::run(&client, &scope, SystemClock.now()).await;
        assert!(report.passed(), "{family}:\n{}", lines(&report));
        let absent: Vec<&str> = report
            .checks
            .iter()
            .filter(|c| matches!(c.outcome, Outcome::Missing(_)))
            .map(|c| c.name.as_str())
            .collect();
        assert_eq!(
            absent,
            missing.get(family).copied().unwrap_or_default(),
            "{family}:\n{}",
            lines(&report)
        );
        client.logout().await;
        assert_eq!(machine.sessions(), 0, "{family}: it logs out");
        assert_eq!(machine.settings()["power"], "Off", "{family}: the power is as it was");
    }
}
