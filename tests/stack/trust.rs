//! Passwords and certificates that change: nothing that was good is lost, and nothing that is not is taken for good.

use std::{path::Path, process::Command, time::Duration};

use ironyard::client::Clients;
use ironyard_bmc_gateway::Gateway;
use ironyard_bmc_simulator::{Action, CertificateKind, Fleet, FleetConfig, Knobs, Machine, Rule, Serving, Timing};
use ironyard_proto::{
    bmc::{self, TlsTrust},
    common::{ConditionStatus, Metadata, Operation},
};
use ironyard_testkit::{poll, skip};
use tonic::Code;

use crate::gateway::{Alone, enroll, enroll_with, finished, fleet, get_bmc, is_ready, name_of, ready, reason_of, served, set_credential};

struct One {
    alone: Alone,
    machine: std::sync::Arc<Machine>,
    config: FleetConfig,
    name: String,
    _serving: Serving,
    _fleet: Fleet,
}

/// A gateway and one generic BMC that it knows.
async fn one(first: [u8; 4], tls: bool) -> One {
    one_with(first, tls, |_| {}).await
}

/// The same, of a gateway with settings of its own.
async fn one_with(first: [u8; 4], tls: bool, change: impl FnOnce(&mut Gateway)) -> One {
    let (fleet, config) = fleet(1, first, Timing::default(), false);
    let serving = served(&fleet, tls);
    let alone = Alone::start(change).await;
    let machine = fleet.machines()[0].clone();
    let scheme = if tls { "https" } else { "http" };
    let name = enroll(&alone.clients, &machine, &config, serving.port, scheme).await;
    ready(&alone.clients, &name).await;
    One {
        alone,
        machine,
        config,
        name,
        _serving: serving,
        _fleet: fleet,
    }
}

impl One {
    fn clients(&self) -> &Clients {
        &self.alone.clients
    }

    async fn rotate(&self) -> Operation {
        let request = bmc::RotateCredentialRequest {
            bmc: self.name.clone(),
            request_id: String::new(),
        };
        self.clients()
            .credentials
            .clone()
            .rotate_credential(request)
            .await
            .unwrap()
            .into_inner()
    }

    fn password(&self) -> String {
        self.machine.password_of(&self.config.username).unwrap()
    }

    fn rule(&self, method: &str, path: &str, action: Action) {
        self.machine.add_rule(Rule {
            method: Some(method.to_owned()),
            path: format!("/redfish/v1/{path}"),
            action,
            remaining: None,
        });
    }

    async fn works(&self) -> Result<(), tonic::Status> {
        let request = bmc::GetManagerRequest {
            bmc: self.name.clone(),
            ..Default::default()
        };
        self.clients().managers.clone().get_manager(request).await.map(|_| ())
    }

    async fn set_credential(&self, password: &str, replace: bool) -> Result<(), tonic::Status> {
        let request = bmc::SetCredentialRequest {
            name: self.name.clone(),
            username: self.config.username.clone(),
            password: password.to_owned(),
            replace,
            networks: vec![],
        };
        self.clients().credentials.clone().set_credential(request).await.map(|_| ())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_refused_leaves_the_old_one() {
    let one = one([127, 99, 0, 1], false).await;
    one.rule(
        "PATCH",
        "AccountService/Accounts",
        Action::Refuse(400, "PropertyValueFormatError".into()),
    );
    let (reason, message) = finished(one.clients(), &one.rotate().await).await.unwrap_err();
    assert_eq!(reason, "BMC_INVALID_VALUE", "{message}");
    assert!(message.contains("is as it was"), "{message}");
    assert_eq!(one.password(), one.config.password);
    one.works().await.unwrap();
    // Nothing is left pending: the next one goes through.
    one.machine.clear_rules();
    finished(one.clients(), &one.rotate().await).await.unwrap();
    assert_ne!(one.password(), one.config.password);
    one.works().await.unwrap();
    assert!(!one.machine.locked_out());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_without_sessions_proves_a_password_by_what_it_shows() {
    let one = one([127, 99, 1, 1], false).await;
    one.rule("POST", "SessionService/Sessions", Action::Status(404));
    // Accepted, and not done: only a login tells.
    one.rule("PATCH", "AccountService/Accounts", Action::Empty);
    let begun = one.rotate().await;
    poll::until("the new password is refused", || async {
        let request = bmc::GetOperationRequest { name: begun.name.clone() };
        let now = one.clients().operations.clone().get_operation(request).await.ok()?.into_inner();
        now.phase.contains("does not take the new password yet").then_some(())
    })
    .await;
    assert_eq!(one.password(), one.config.password);
    // Meanwhile both passwords are kept, and nobody may overwrite them by mistake.
    let refused = one.set_credential("another", false).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason_of(&refused)),
        (Code::FailedPrecondition, "CREDENTIAL_ROTATING".into())
    );
    one.works().await.unwrap();
    one.set_credential(&one.config.password, true).await.unwrap();
    one.works().await.unwrap();
    assert!(!one.machine.locked_out());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_without_sessions_ends_well() {
    let one = one([127, 99, 2, 1], false).await;
    one.rule("POST", "SessionService/Sessions", Action::Status(404));
    finished(one.clients(), &one.rotate().await).await.unwrap();
    assert_ne!(one.password(), one.config.password);
    one.works().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_is_not_forgotten_by_mistake() {
    let one = one([127, 99, 4, 1], false).await;
    let credentials = one.clients().credentials.clone();
    finished(one.clients(), &one.rotate().await).await.unwrap();
    let rotated = one.password();
    // The file that was applied before the rotation is no news.
    one.set_credential(&one.config.password, false).await.unwrap();
    one.works().await.unwrap();
    // Another password would write over the only copy of the one that the BMC has.
    let refused = one.set_credential("another", false).await.unwrap_err();
    assert_eq!(reason_of(&refused), "CREDENTIAL_ROTATED", "{refused:?}");
    let delete = |force: bool, reason: &str| bmc::DeleteCredentialRequest {
        name: one.name.clone(),
        force,
        reason: reason.to_owned(),
    };
    let refused = credentials.clone().delete_credential(delete(false, "")).await.unwrap_err();
    assert_eq!(reason_of(&refused), "CREDENTIAL_IN_USE", "{refused:?}");
    let refused = credentials.clone().delete_credential(delete(true, " ")).await.unwrap_err();
    assert_eq!(reason_of(&refused), "INVALID_FIELD", "{refused:?}");
    one.works().await.unwrap();
    // Nor does a second rotation make what was set before it good again.
    finished(one.clients(), &one.rotate().await).await.unwrap();
    assert_ne!(one.password(), rotated);
    let refused = one.set_credential(&rotated, false).await.unwrap_err();
    assert_eq!(reason_of(&refused), "CREDENTIAL_ROTATED", "{refused:?}");
    one.works().await.unwrap();
    // Said so, it is written over; the BMC's own word decides then.
    one.set_credential(&one.password(), true).await.unwrap();
    one.set_credential(&one.password(), false).await.unwrap();
    one.works().await.unwrap();
    credentials.clone().delete_credential(delete(true, "a test ends")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_must_be_changed_is_changed_by_a_rotation() {
    let one = one([127, 99, 3, 1], false).await;
    one.machine.set_knobs(Knobs {
        password_change_required: Some(true),
        ..Knobs::default()
    });
    let why = one.works().await.unwrap_err();
    assert_eq!(reason_of(&why), "BMC_PASSWORD_CHANGE_REQUIRED", "{why:?}");
    finished(one.clients(), &one.rotate().await).await.unwrap();
    assert_ne!(one.password(), one.config.password);
    one.works().await.unwrap();
}

fn openssl(folder: &Path, args: &[&str]) -> bool {
    let output = Command::new("openssl").args(args).current_dir(folder).output();
    output.is_ok_and(|output| output.status.success())
}

/// An authority in this folder; `false` where there is no openssl.
fn authority(folder: &Path) -> bool {
    let made = openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=authority",
        ],
    );
    if !made {
        skip("replacing a certificate", "there is no openssl");
    }
    made
}

/// A certificate that the authority signed, for a key that the BMC has made.
async fn signed(one: &One, folder: &Path, names: &str) -> String {
    let request = bmc::GenerateCsrRequest {
        bmc: one.name.clone(),
        common_name: "bmc.example.net".into(),
        ..Default::default()
    };
    let begun = one.clients().managers.clone().generate_csr(request).await.unwrap().into_inner();
    let made = finished(one.clients(), &begun).await.unwrap();
    std::fs::write(folder.join("bmc.csr"), &made.metadata["csr"]).unwrap();
    std::fs::write(folder.join("names"), format!("subjectAltName={names}")).unwrap();
    let sign = [
        "x509",
        "-req",
        "-in",
        "bmc.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-days",
        "2",
        "-out",
        "bmc.pem",
    ];
    assert!(openssl(folder, &sign), "the request can be signed");
    std::fs::read_to_string(folder.join("bmc.pem")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_and_its_pin_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if !authority(folder) {
        return;
    }
    let one = one([127, 99, 4, 1], true).await;
    let before = get_bmc(one.clients(), &one.name).await.unwrap();
    let first = before.observed.unwrap().certificate_sha256;
    assert_eq!(first.len(), 64, "the first certificate is recorded");
    let pem = signed(&one, folder, "DNS:bmc.example.net").await;
    let request = |pem: String| bmc::ReplaceCertificateRequest {
        bmc: one.name.clone(),
        certificate_pem: pem,
        request_id: String::new(),
    };
    let refused = one
        .clients()
        .managers
        .clone()
        .replace_certificate(request("not a certificate".into()))
        .await
        .unwrap_err();
    assert_eq!(reason_of(&refused), "INVALID_FIELD");
    let begun = one.clients().managers.clone().replace_certificate(request(pem)).await.unwrap();
    let done = finished(one.clients(), begun.get_ref()).await.unwrap();
    let second = done.metadata["certificate_sha256"].clone();
    assert_eq!(
        one.machine.certificate_sha256(),
        Some(second.clone()),
        "it is the one that the BMC shows"
    );
    assert_ne!(second, first);
    let after = get_bmc(one.clients(), &one.name).await.unwrap();
    assert_eq!(
        after.observed.unwrap().certificate_sha256,
        second,
        "and the only one that is trusted"
    );
    one.works().await.unwrap();
    // One that nobody asked for is refused, and the BMC says why; to trust it is somebody's decision.
    one.machine.set_knobs(Knobs {
        certificate: Some(CertificateKind::Expired),
        ..Knobs::default()
    });
    assert_eq!(reason_of(&one.works().await.unwrap_err()), "BMC_TLS_REFUSED");
    let mut bmc = get_bmc(one.clients(), &one.name).await.unwrap();
    let spec = bmc.spec.as_mut().unwrap();
    spec.tls_trust = TlsTrust::Pin.into();
    spec.certificate_sha256 = one.machine.certificate_sha256().unwrap();
    bmc.metadata.as_mut().unwrap().etag.clear();
    let request = bmc::UpdateBmcRequest {
        bmc: Some(bmc),
        update_mask: None,
        request_id: String::new(),
    };
    one.clients().bmcs.clone().update_bmc(request).await.unwrap();
    one.works().await.unwrap();
    poll::until("the BMC is ready again", || async {
        get_bmc(one.clients(), &one.name).await.filter(is_ready)
    })
    .await;
}

/// Whoever points a BMC at a host of their own, and names a credential that is for others, is not shown its password.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_shown_to_the_networks_that_it_is_for() {
    let (fleet, config) = fleet(2, [127, 99, 7, 1], Timing::default(), false);
    let serving = served(&fleet, false);
    let alone = Alone::start(|_| {}).await;
    let machines = fleet.machines();
    let set = async |networks: &[&str]| {
        let request = bmc::SetCredentialRequest {
            name: "ours".into(),
            username: config.username.clone(),
            password: config.password.clone(),
            replace: false,
            networks: networks.iter().map(|n| (*n).to_owned()).collect(),
        };
        alone.clients.credentials.clone().set_credential(request).await
    };
    let refused = set(&["127.99.7.0/33"]).await.unwrap_err();
    assert_eq!(reason_of(&refused), "INVALID_FIELD");
    let first = machines[0].address();
    let only = format!("{first}/32");
    set(&[&only]).await.unwrap();
    for machine in &machines {
        enroll_with(&alone.clients, machine, "ours", serving.port, "http").await;
    }
    ready(&alone.clients, &name_of(&machines[0])).await;
    poll::until("the other says why not", || async {
        let bmc = get_bmc(&alone.clients, &name_of(&machines[1])).await?;
        let condition = bmc.conditions.into_iter().find(|c| c.r#type == "Ready")?;
        (condition.status() == ConditionStatus::False && condition.message.contains(&only)).then_some(())
    })
    .await;
    assert_eq!(
        (machines[1].requests(), machines[1].sessions()),
        (0, 0),
        "nobody was asked anything"
    );
    let listed = alone
        .clients
        .credentials
        .clone()
        .list_credentials(bmc::ListCredentialsRequest {})
        .await
        .unwrap();
    assert_eq!(listed.into_inner().credentials[0].networks, std::slice::from_ref(&only));
    // Nor is it given to another by other ways: as an account's, or by a rotation that was begun where it belongs.
    set_credential(&alone.clients, "theirs", &config).await;
    let mut moved = get_bmc(&alone.clients, &name_of(&machines[1])).await.unwrap();
    moved.spec.as_mut().unwrap().credential = "theirs".into();
    moved.metadata.as_mut().unwrap().etag.clear();
    let request = bmc::UpdateBmcRequest {
        bmc: Some(moved),
        update_mask: None,
        request_id: String::new(),
    };
    alone.clients.bmcs.clone().update_bmc(request).await.unwrap();
    ready(&alone.clients, &name_of(&machines[1])).await;
    let request = bmc::CreateAccountRequest {
        bmc: name_of(&machines[1]),
        credential: "ours".into(),
        role: "Operator".into(),
    };
    let refused = alone.clients.managers.clone().create_account(request).await.unwrap_err();
    assert!(refused.message().contains(&only), "{}", refused.message());
    // After a rotation, too, it is said which networks it is for.
    let request = bmc::RotateCredentialRequest {
        bmc: name_of(&machines[0]),
        request_id: String::new(),
    };
    let begun = alone
        .clients
        .credentials
        .clone()
        .rotate_credential(request)
        .await
        .unwrap()
        .into_inner();
    finished(&alone.clients, &begun).await.unwrap();
    let told = set(&["127.99.7.9/24"]).await.unwrap().into_inner();
    assert_eq!((told.rotated, told.networks), (true, vec!["127.99.7.0/24".to_owned()]));
    for machine in &machines {
        ready(&alone.clients, &name_of(machine)).await;
    }
}

/// Under an authority's trust too; and a certificate that would shut the gateway out is not put there.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_under_an_authority() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if !authority(folder) {
        return;
    }
    let file = folder.join("ca.pem");
    let one = one_with([127, 99, 5, 1], true, |settings| settings.authorities = vec![file]).await;
    let replace = async |pem: String| {
        let request = bmc::ReplaceCertificateRequest {
            bmc: one.name.clone(),
            certificate_pem: pem,
            request_id: String::new(),
        };
        let begun = one.clients().managers.clone().replace_certificate(request).await?;
        Ok::<_, tonic::Status>(finished(one.clients(), begun.get_ref()).await.unwrap().metadata["certificate_sha256"].clone())
    };
    // The first is put there under the pin of the old one.
    let pem = signed(&one, folder, "IP:127.99.5.1").await;
    replace(pem).await.unwrap();
    let mut bmc = get_bmc(one.clients(), &one.name).await.unwrap();
    bmc.spec.as_mut().unwrap().tls_trust = TlsTrust::Ca.into();
    bmc.metadata.as_mut().unwrap().etag.clear();
    let request = bmc::UpdateBmcRequest {
        bmc: Some(bmc),
        update_mask: None,
        request_id: String::new(),
    };
    one.clients().bmcs.clone().update_bmc(request).await.unwrap();
    one.works().await.unwrap();
    let before = one.machine.certificate_sha256();
    let elsewhere = signed(&one, folder, "IP:127.99.5.9").await;
    let refused = replace(elsewhere).await.unwrap_err();
    assert_eq!(reason_of(&refused), "INVALID_FIELD");
    assert!(refused.message().contains("would not be trusted"), "{}", refused.message());
    assert_eq!(one.machine.certificate_sha256(), before);
    let pem = signed(&one, folder, "IP:127.99.5.1").await;
    let second = replace(pem).await.unwrap();
    assert_eq!(one.machine.certificate_sha256(), Some(second.clone()));
    assert_ne!(Some(second), before);
    one.works().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_login_leaves_one_session() {
    let alone = Alone::start(|gateway| gateway.read_timeout = Duration::from_secs(4)).await;
    let (fleet, config) = fleet(1, [127, 94, 9, 1], Timing::default(), false);
    let serving = served(&fleet, false);
    let machine = fleet.machines()[0].clone();
    // Each takes most of what a read may take: the service root on the way to the login, and the login.
    for (method, path, remaining) in [("GET", "", Some(3)), ("POST", "SessionService/Sessions", None)] {
        machine.add_rule(Rule {
            method: Some(method.into()),
            path: format!("/redfish/v1/{path}"),
            action: Action::LatencyAfter(2500),
            remaining,
        });
    }
    let name = enroll(&alone.clients, &machine, &config, serving.port, "http").await;
    ready(&alone.clients, &name).await;
    assert_eq!(machine.sessions(), 1);
}

/// Without encryption a BMC is spoken to on loopback and where the site allows it; elsewhere it is not even connected to.
#[tokio::test(flavor = "multi_thread")]
async fn plain_http_needs_a_permission_and_is_told() {
    for (first, tls, status) in [
        ([127, 96, 70, 1], false, ConditionStatus::False),
        ([127, 96, 71, 1], true, ConditionStatus::True),
    ] {
        let one = one(first, tls).await;
        let bmc = get_bmc(one.clients(), &one.name).await.unwrap();
        let encrypted = bmc.conditions.iter().find(|c| c.r#type == "Encrypted").unwrap();
        assert_eq!(encrypted.status(), status, "{encrypted:?}");
    }
    let alone = Alone::start(|gateway| gateway.allowed_ranges.push("192.0.2.0/24".parse().unwrap())).await;
    let request = bmc::SetCredentialRequest {
        name: "c".into(),
        username: "u".into(),
        password: "p".into(),
        ..Default::default()
    };
    alone.clients.credentials.clone().set_credential(request).await.unwrap();
    let bmc = bmc::Bmc {
        metadata: Some(Metadata {
            name: "far".into(),
            ..Default::default()
        }),
        spec: Some(bmc::BmcSpec {
            address: "192.0.2.1".into(),
            credential: "c".into(),
            scheme: "http".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = bmc::CreateBmcRequest {
        bmc: Some(bmc),
        request_id: String::new(),
    };
    alone.clients.bmcs.clone().create_bmc(request).await.unwrap();
    poll::until("it is not asked, and says what would allow it", || async {
        let bmc = get_bmc(&alone.clients, "far").await?;
        let ready = bmc.conditions.iter().find(|c| c.r#type == "Ready")?;
        (ready.reason == "ADDRESS_REFUSED" && ready.message.contains("gateway.plaintext_ranges")).then_some(())
    })
    .await;
}
