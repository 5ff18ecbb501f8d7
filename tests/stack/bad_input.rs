use ironyard_bmc_simulator::{Action, Rule};
use ironyard_discovery::domain::discovery_run::InBand;
use ironyard_proto::{
    bmc::{Bmc, BmcSpec, CreateBmcRequest, GetBmcRequest},
    common::{ConditionStatus, LabelRequirement, LabelSelector, Metadata},
    discovery::{CreateEndpointRequest, Endpoint, EndpointSpec},
    inventory::{CreateServerRequest, Server, ServerSpec, UpdateServerRequest},
};
use ironyard_testkit::poll;
use tonic::Code;

use crate::{
    seed::cli,
    world::{On, World},
};

fn server(name: &str, uuid: &str) -> Server {
    Server {
        metadata: Some(Metadata {
            name: name.into(),
            ..Default::default()
        }),
        spec: Some(ServerSpec {
            system_uuid: uuid.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named_and_nothing_is_lost() {
    let world = World::apart(On::Sqlite, 1, InBand::Off).await.unwrap();
    let mut servers = world.clients.servers.clone();
    let create = |server| CreateServerRequest {
        server: Some(server),
        request_id: String::new(),
    };
    let uuid = "123e4567-e89b-12d3-a456-426614174000";

    let malformed = servers.create_server(create(server("a", "not-a-uuid"))).await.unwrap_err();
    assert!(
        malformed.code() == Code::InvalidArgument && malformed.message().contains("system_uuid"),
        "{malformed}"
    );
    let placeholder = servers
        .create_server(create(server("a", "00000000-0000-0000-0000-000000000000")))
        .await
        .unwrap_err();
    assert!(placeholder.message().contains("placeholder"));
    assert_eq!(
        servers.create_server(create(server("A B", uuid))).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let request = CreateServerRequest {
        server: Some(server("a", uuid)),
        request_id: "id-1".into(),
    };
    let first = servers.create_server(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        servers.create_server(request).await.unwrap().into_inner(),
        first,
        "a replay has the first answer"
    );
    let other = CreateServerRequest {
        server: Some(server("b", "")),
        request_id: "id-1".into(),
    };
    let reused = servers.create_server(other).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&reused).unwrap(), "REQUEST_ID_REUSED");
    let duplicate = servers.create_server(create(server("b", &uuid.to_uppercase()))).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&duplicate).unwrap(), "DUPLICATE_SYSTEM_UUID");

    // The same machine with the other byte order of its first groups, and a second name for one BMC.
    let swapped = servers
        .create_server(create(server("b", "67453e12-9be8-d312-a456-426614174000")))
        .await
        .unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&swapped).unwrap(), "DUPLICATE_SYSTEM_UUID");
    let at = |name: &str| CreateBmcRequest {
        bmc: Some(Bmc {
            metadata: Some(Metadata {
                name: name.into(),
                ..Default::default()
            }),
            spec: Some(BmcSpec {
                address: "127.90.7.7".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        request_id: String::new(),
    };
    world.clients.bmcs.clone().create_bmc(at("one")).await.unwrap();
    let second = world.clients.bmcs.clone().create_bmc(at("two")).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&second).unwrap(), "BMC_EXISTS");

    let mut stale = first.clone();
    stale.metadata.as_mut().unwrap().etag = "0-old".into();
    let request = UpdateServerRequest {
        server: Some(stale),
        ..Default::default()
    };
    let refused = servers.update_server(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), ironyard_rpc::reason_of(&refused).unwrap().as_str()),
        (Code::Aborted, "SERVER_CHANGED")
    );

    let endpoint = Endpoint {
        metadata: Some(Metadata {
            name: "e".into(),
            ..Default::default()
        }),
        spec: Some(EndpointSpec {
            mac_address: "00:11".into(),
            ip: "127.0.0.1".into(),
        }),
        ..Default::default()
    };
    let request = CreateEndpointRequest {
        endpoint: Some(endpoint),
        request_id: String::new(),
    };
    assert!(
        world
            .clients
            .endpoints
            .clone()
            .create_endpoint(request)
            .await
            .unwrap_err()
            .message()
            .contains("MAC address")
    );
    let bmc = |address: &str| CreateBmcRequest {
        bmc: Some(Bmc {
            metadata: Some(Metadata {
                name: "x".into(),
                ..Default::default()
            }),
            spec: Some(BmcSpec {
                address: address.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        request_id: String::new(),
    };
    let metadata_service = world.clients.bmcs.clone().create_bmc(bmc("169.254.169.254")).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&metadata_service).unwrap(), "ADDRESS_REFUSED");
    assert_eq!(
        world.clients.bmcs.clone().create_bmc(bmc("a b")).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let requirement = LabelRequirement {
        key: "a".into(),
        operator: "Near".into(),
        values: vec![],
    };
    let selector = LabelSelector {
        match_expressions: vec![requirement],
        ..Default::default()
    };
    let spec = ironyard_proto::claim::ServerClaimSpec {
        server_selector: Some(selector),
        ..Default::default()
    };
    let refused = world.try_claim("c", spec).await.unwrap_err();
    assert!(refused.message().contains("match_expressions[0]"), "{refused}");
    let nothing = ironyard_proto::common::Reference {
        name: "nothing".into(),
        uid: String::new(),
    };
    let spec = ironyard_proto::claim::ServerClaimSpec {
        server_ref: Some(nothing),
        ..Default::default()
    };
    world.try_claim("c", spec).await.unwrap();
    poll::until("a reference to nothing is a reason to wait", || async {
        world
            .get_claim("c")
            .await?
            .waiting_because
            .filter(|w| w.message.contains("does not exist"))
    })
    .await;

    let file = world.data.path().join("bad.yaml");
    std::fs::write(
        &file,
        "apiVersion: v1alpha1\nkind: Server\nmetadata:\n  name: z\nspec:\n  colour: red\n",
    )
    .unwrap();
    let (code, message) = cli(&world.stack.address, &["apply", "-f", &file.display().to_string()]).unwrap_err();
    assert!(
        code == 2 && message.contains("colour") && message.contains("document 1"),
        "{message}"
    );
    let (code, _) = cli(&world.stack.address, &["get", "server", "z"]).unwrap_err();
    assert_eq!(code, 64 + 5, "not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_answers_nonsense_is_a_condition() {
    for (action, reasons) in [
        (Action::Truncate, &["BMC_PROTOCOL"][..]),
        (Action::Status(500), &["BMC_PROTOCOL"]),
        (Action::Drop, &["BMC_UNREACHABLE"]),
        (Action::Oversize(20 << 20), &["BMC_PROTOCOL"]),
        (Action::Status(401), &["BMC_AUTHENTICATION_FAILED"]),
    ] {
        let world = World::apart(On::Sqlite, 1, InBand::Off).await.unwrap();
        world.machine(0).add_rule(Rule {
            method: None,
            path: "/redfish/v1".into(),
            action: action.clone(),
            remaining: None,
        });
        ironyard::demo::register(&world.clients, &world.fleet_config, world.port)
            .await
            .unwrap();
        let ready = poll::until(&format!("{action:?} is told"), || async {
            let bmc = world
                .clients
                .bmcs
                .clone()
                .get_bmc(GetBmcRequest { name: "bmc-0".into() })
                .await
                .ok()?
                .into_inner();
            bmc.conditions
                .into_iter()
                .find(|c| c.r#type == "Ready" && c.status() == ConditionStatus::False)
        })
        .await;
        assert!(reasons.contains(&ready.reason.as_str()), "{action:?}: {ready:?}");
        if action == Action::Status(401) {
            continue;
        }
        world.machine(0).clear_rules();
        world.reaches("bmc-0-1", ironyard_proto::inventory::ServerState::Available).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_record_of_a_machine_says_what_it_is() {
    let world = World::with(On::Sqlite, 1, InBand::Off).await.unwrap();
    // No UUID of its own, the same BMC: only discovery can tell that it is the same machine.
    let mut second = server("second", "");
    second.spec.as_mut().unwrap().bmc_ref = Some(ironyard_proto::common::Reference {
        name: "bmc-0".into(),
        uid: String::new(),
    });
    let request = CreateServerRequest {
        server: Some(second),
        request_id: String::new(),
    };
    world.clients.servers.clone().create_server(request).await.unwrap();
    poll::until("it says why it goes nowhere", || async {
        world
            .server("second")
            .await?
            .waiting_because
            .filter(|w| w.reason == "DUPLICATE_IDENTITY" && w.message.contains("server bmc-0-1 is this system of this BMC"))
    })
    .await;
    assert_eq!(
        world.server("second").await.unwrap().state(),
        ironyard_proto::inventory::ServerState::Initial
    );
}

fn program(arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"));
    command.args(arguments);
    command
}

/// A reader who has seen enough is no reason to panic.
#[test]
fn a_closed_pipe_ends_a_verb() {
    let mut child = program(&["completion", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{said}");
    assert_eq!(output.status.code(), Some(141));
}

/// Nobody waits ten minutes for a state that does not exist; who waits in vain is told what was seen.
#[test]
fn a_wait_says_why() {
    let output = program(&["wait", "server", "x", "--for", "state=Availble"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no state \"Availble\"; use Initial, "), "{said}");
    assert_eq!(output.status.code(), Some(2));
    let nobody = [
        "--server",
        "http://127.0.0.1:1",
        "wait",
        "server",
        "x",
        "--for",
        "state=Available",
        "--timeout",
        "5s",
    ];
    let output = program(&nobody).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("x did not reach state=Available in 5s: no service answers"), "{said}");
    assert_eq!(output.status.code(), Some(68));
}

/// For programs: what an error is about, and which field of a request is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_they_are_about() {
    use ironyard_proto::{bmc, inventory};
    use tonic_types::StatusExt;
    let Some(world) = World::with(On::Sqlite, 1, InBand::Off).await else {
        return;
    };
    let clients = &world.clients;
    let told = |status: &tonic::Status| status.get_details_error_info().unwrap().metadata;
    let violations = |status: &tonic::Status| -> Vec<String> {
        let violations = status.get_details_bad_request().map(|r| r.field_violations);
        violations.into_iter().flatten().map(|v| v.field).collect()
    };

    let request = inventory::GetServerRequest { name: "nobody".into() };
    let missing = clients.servers.clone().get_server(request).await.unwrap_err();
    assert_eq!(
        (told(&missing)["resourceType"].as_str(), told(&missing)["resourceName"].as_str()),
        ("server", "nobody")
    );

    let request = inventory::ListServersRequest {
        page_size: -1,
        ..Default::default()
    };
    let wrong = clients.servers.clone().list_servers(request).await.unwrap_err();
    assert_eq!(
        (told(&wrong)["field"].as_str(), violations(&wrong)),
        ("page_size", vec!["page_size".to_owned()])
    );

    let request = bmc::ListBmcsRequest::default();
    let bmcs = clients.bmcs.clone().list_bmcs(request).await.unwrap().into_inner().bmcs;
    let request = bmc::SetBiosRequest {
        system: Some(bmc::SystemName {
            bmc: bmcs[0].metadata.clone().unwrap().name,
            system_id: String::new(),
            ..Default::default()
        }),
        attributes: [("BootTimeout".to_owned(), "soon".to_owned())].into(),
    };
    let refused = clients.systems.clone().set_bios(request).await.unwrap_err();
    assert_eq!(ironyard_rpc::reason_of(&refused).unwrap(), "BMC_INVALID_VALUE", "{refused}");
    assert_eq!(violations(&refused), ["BootTimeout"]);

    let (code, message) = cli(&world.stack.address, &["get", "operation", "-l", "a=b"]).unwrap_err();
    assert!(code == 2 && message.contains("no labels"), "{code} {message}");
}
