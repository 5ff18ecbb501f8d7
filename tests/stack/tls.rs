//! Certificates and TLS as old BMCs have them: each works, or is refused with the exact reason and the setting that would allow it. The BMC is
//! the one of `tests/foreign`, its certificates are made by OpenSSL.

use std::{net::IpAddr, time::Duration};

use ironyard_proto::{
    bmc::{BmcSpec, TlsTrust, TlsWeakness},
    common::ConditionStatus,
};
use ironyard_redfish::{Client, Limits, Target, Trust, Weaknesses};
use ironyard_testkit::poll;
use serde_json::{Value, json};

use crate::{
    foreign_bmc::{Foreign, create_bmc, update_bmc},
    gateway::{Alone, get_bmc, is_ready},
};

const HTTPS: &[&str] = &["--scheme", "https", "--tls", r#"{"key": "ec256"}"#];

/// What is asked of one kind of certificate.
struct Cell {
    tls: Value,
    /// Whether it works where the first one is pinned.
    first_use: Result<(), &'static [&'static str]>,
    /// The same, where its weakness is put up with by a pin.
    allowed: Result<(), &'static [&'static str]>,
}

/// What may stand in the way: an end that names the setting.
const RSA_1024: &[&str] = &["an RSA key of 1024 bits", "rsa1024", "trust: pin", "sha256: "];
const X509_V1: &[&str] = &["X.509 v1", "x509v1", "trust: pin", "sha256: "];
const BOTH: &[&str] = &["X.509 v1", "an RSA key of 1024 bits", "rsa1024, x509v1"];
const OLD_VERSION: &[&str] = &["TLS 1.1 or older", "TLS 1.2", "docs/bmcs.md#old-bmcs"];
const NO_SUITE: &[&str] = &["no cipher suite", "ECDHE", "docs/bmcs.md#old-bmcs"];

fn matrix() -> Vec<Cell> {
    let cell = |tls, first_use, allowed| Cell { tls, first_use, allowed };
    let fine = |tls| cell(tls, Ok(()), Ok(()));
    let mut cells = vec![];
    for key in ["rsa2048", "rsa4096", "ec256", "ec384"] {
        for version in ["1.2", "1.3", "1.0-1.2"] {
            cells.push(fine(json!({"key": key, "version": version})));
        }
    }
    cells.extend([
        fine(json!({"key": "ed25519"})),
        fine(json!({"expired": true})),
        fine(json!({"not_yet_valid": true})),
        fine(json!({"signature": "sha1"})),
        fine(json!({"names": ["somebody.example.net"]})),
        fine(json!({"names": []})),
        cell(json!({"key": "rsa1024", "version": "1.2"}), Err(RSA_1024), Ok(())),
        cell(
            json!({"key": "rsa1024", "signature": "sha1", "expired": true}),
            Err(RSA_1024),
            Ok(()),
        ),
        // TLS 1.3 signs with RSA-PSS, which nobody checks for keys so short.
        cell(
            json!({"key": "rsa1024", "version": "1.3"}),
            Err(RSA_1024),
            Err(&["not TLS 1.2 where its key"]),
        ),
        cell(json!({"x509": 1, "version": "1.2"}), Err(X509_V1), Ok(())),
        cell(json!({"x509": 1, "version": "1.3"}), Err(X509_V1), Ok(())),
        cell(json!({"x509": 1, "key": "ec256"}), Err(X509_V1), Ok(())),
        cell(json!({"x509": 1, "key": "rsa1024", "version": "1.2"}), Err(BOTH), Ok(())),
        cell(json!({"version": "1.1"}), Err(OLD_VERSION), Err(OLD_VERSION)),
        cell(json!({"version": "1.0"}), Err(OLD_VERSION), Err(OLD_VERSION)),
        cell(json!({"ciphers": "AES128-GCM-SHA256:AES128-SHA"}), Err(NO_SUITE), Err(NO_SUITE)),
        cell(
            json!({"ciphers": "ECDHE-RSA-AES128-SHA256:ECDHE-RSA-AES256-SHA"}),
            Err(NO_SUITE),
            Err(NO_SUITE),
        ),
        cell(
            json!({"key": "ec256", "ciphers": "ECDHE-ECDSA-AES128-SHA"}),
            Err(NO_SUITE),
            Err(NO_SUITE),
        ),
    ]);
    cells
}

async fn asked(foreign: &Foreign, trust: &Trust) -> Result<(), String> {
    let address: IpAddr = foreign.hello["host"].as_str().unwrap().parse().unwrap();
    let target = Target {
        scheme: "https".to_owned(),
        address,
        name: None,
        port: u16::try_from(foreign.port()).unwrap(),
    };
    let limits = Limits {
        connect: Duration::from_secs(5),
        ..Limits::default()
    };
    ironyard_redfish::install_crypto();
    let client = Client::new(&target, trust, None, limits).unwrap();
    client.root().await.map(drop).map_err(|error| error.to_string())
}

/// The fingerprint of the certificate that the BMC shows now.
async fn fingerprint(foreign: &Foreign) -> String {
    let machine = foreign.machine().await;
    machine["certificate"]["fingerprint"]
        .as_str()
        .unwrap()
        .replace(':', "")
        .to_ascii_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_certificate_works_or_says_what_would_allow_it() {
    let Some(foreign) = Foreign::start("standard", HTTPS) else { return };
    let mut wrong = vec![];
    let judge = |what: String, outcome: Result<(), String>, expected: &Result<(), &[&str]>| {
        let fine = match (&outcome, expected) {
            (Ok(()), Ok(())) => true,
            (Err(why), Err(words)) => words.iter().all(|word| why.contains(word)),
            (Ok(()), Err(_)) | (Err(_), Ok(())) => false,
        };
        (!fine).then(|| format!("{what}: {outcome:?}, not {expected:?}"))
    };
    for Cell { tls, first_use, allowed } in matrix() {
        foreign.control("POST", "/tls", &tls).await;
        let sha256 = fingerprint(&foreign).await;
        wrong.extend(judge(format!("{tls}, first use"), asked(&foreign, &Trust::Any).await, &first_use));
        let pin = |weak| Trust::Pin(vec![sha256.clone()], weak);
        let pinned = asked(&foreign, &pin(Weaknesses::default())).await;
        wrong.extend(judge(format!("{tls}, pin"), pinned, &first_use));
        let words = first_use.err().unwrap_or_default().concat();
        let leave = Weaknesses {
            rsa_1024: words.contains("rsa1024"),
            x509_v1: words.contains("x509v1"),
        };
        wrong.extend(judge(
            format!("{tls}, pin with leave"),
            asked(&foreign, &pin(leave)).await,
            &allowed,
        ));
        // What is put up with is put up with of that one only.
        let other = Trust::Pin(vec!["00".repeat(32)], leave);
        let told = asked(&foreign, &other).await;
        let handshake = allowed.is_err();
        if told
            .as_ref()
            .err()
            .is_none_or(|why| !handshake && !why.contains("is not the pinned"))
        {
            wrong.push(format!("{tls}, another pin: {told:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// As an operator meets it: refused with the reason on the BMC, allowed by what it says, and by nothing less.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_certificate_is_allowed_by_name_and_with_its_pin() {
    let Some(foreign) = Foreign::start("standard", HTTPS) else { return };
    foreign.control("POST", "/tls", &json!({"key": "rsa1024", "x509": 1})).await;
    let sha256 = fingerprint(&foreign).await;
    let alone = Alone::start(|_| {}).await;
    let clients = &alone.clients;
    foreign.set_credential(clients, "old").await;
    let spec = |trust: TlsTrust, sha256: &str, weak: &[TlsWeakness]| BmcSpec {
        tls_trust: trust.into(),
        certificate_sha256: sha256.to_owned(),
        tls_weaknesses: weak.iter().map(|weakness| (*weakness).into()).collect(),
        ..foreign.spec("old")
    };
    let both = [TlsWeakness::Rsa1024, TlsWeakness::X509V1];
    let refused = create_bmc(clients, "old", spec(TlsTrust::FirstUse, "", &both)).await.unwrap_err();
    assert!(refused.message().contains("only together with TLS_TRUST_PIN"), "{refused}");
    create_bmc(clients, "old", spec(TlsTrust::FirstUse, "", &[])).await.unwrap();
    poll::until("the BMC says why, and what would allow it", || async {
        let bmc = get_bmc(clients, "old").await?;
        let told = bmc.conditions.iter().find(|c| c.r#type == "Reachable")?;
        let says = BOTH.iter().all(|word| told.message.contains(word)) && told.message.contains(&sha256);
        (told.status() == ConditionStatus::False && says).then_some(())
    })
    .await;
    let fields = ["tls_trust", "certificate_sha256", "tls_weaknesses"];
    update_bmc(clients, "old", spec(TlsTrust::Pin, &sha256, &both), &fields)
        .await
        .unwrap();
    poll::until("it is ready", || async { get_bmc(clients, "old").await.filter(is_ready) }).await;
}
