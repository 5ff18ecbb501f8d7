//! Events as hints: what somebody else does to a machine is seen long before the next poll.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ironyard_bmc_gateway::tasks::events::Config;
use ironyard_bmc_simulator::{FleetConfig, Machine, Timing};
use ironyard_proto::common::PowerState;
use ironyard_redfish::{Client, Limits, Login, Target, Trust, ops::systems};
use ironyard_testkit::poll;
use ironyard_types::Secret;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::gateway::{Alone, enroll, fleet, get_bmc, ready, served};

/// Somebody with a login of their own switches the machine on, or off.
pub async fn somebody_switches(machine: &Machine, config: &FleetConfig, port: u16, reset: &str) {
    let target = Target {
        scheme: "http".into(),
        address: machine.address(),
        name: None,
        port,
    };
    let login = Login {
        username: config.username.clone(),
        password: Secret::new(config.password.clone()),
        pending: None,
    };
    let client = Client::new(&target, &Trust::Any, Some(login), Limits::default()).unwrap();
    let system = systems::list(&client).await.unwrap().remove(0);
    let action = system.part("Actions").part("#ComputerSystem.Reset").text("target").unwrap();
    client.post(&action, &json!({"ResetType": reset})).await.unwrap();
    client.logout().await;
}

async fn power_is(alone: &Alone, name: &str, power: PowerState) {
    poll::until(&format!("{name} is seen {power:?}"), || async {
        let bmc = get_bmc(&alone.clients, name).await?;
        let seen = bmc.observed?.system_status.first()?.power_state();
        (seen == power).then_some(())
    })
    .await;
}

async fn events_are_hints(config_of: impl FnOnce(SocketAddr) -> Config, first: [u8; 4], streams: bool) -> Vec<Arc<Machine>> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (fleet, config) = fleet(7, first, Timing::default(), true);
    let serving = served(&fleet, false);
    // The next poll is an hour away.
    let alone = Alone::start(|settings| settings.events = config_of(port)).await;
    let machines: Vec<_> = fleet.machines().to_vec();
    let able = |m: &&Arc<Machine>| !streams || m.config.profile.sse;
    for machine in machines.iter().filter(able) {
        let name = enroll(&alone.clients, machine, &config, serving.port, "http").await;
        ready(&alone.clients, &name).await;
    }
    for machine in machines.iter().filter(able) {
        let name = crate::gateway::name_of(machine);
        poll::until(&format!("{name} is listened to"), || async {
            (machine.listeners() > 0).then_some(())
        })
        .await;
        let (first, second) = match machine.power() {
            ironyard_types::hardware::PowerState::On => (("ForceOff", PowerState::Off), ("On", PowerState::On)),
            _ => (("On", PowerState::On), ("ForceOff", PowerState::Off)),
        };
        for (reset, power) in [first, second] {
            somebody_switches(machine, &config, serving.port, reset).await;
            power_is(&alone, &name, power).await;
        }
    }
    machines.into_iter().filter(|m| able(&m)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_events_are_hints() {
    let stream = |_| Config {
        stream: true,
        ..Config::default()
    };
    let machines = events_are_hints(stream, [127, 99, 10, 1], true).await;
    assert!(machines.len() >= 3, "{} families stream", machines.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn posted_events_are_hints() {
    let post = |at: SocketAddr| Config {
        listen: Some(at),
        url: format!("http://{at}"),
        renew: Duration::from_secs(1),
        ..Config::default()
    };
    let machines = events_are_hints(post, [127, 99, 11, 1], false).await;
    for machine in machines {
        assert_eq!(machine.listeners(), 1, "one subscription, however often it was looked after");
    }
}

/// What the receiver says to some bytes, until it closes the connection.
async fn says(at: SocketAddr, bytes: &[u8]) -> String {
    let mut connection = poll::until("the receiver listens", || async { TcpStream::connect(at).await.ok() }).await;
    // It may close before it has read all.
    let _ = connection.write_all(bytes).await;
    let mut said = Vec::new();
    let _ = connection.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_post_are_sent_away() {
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = Config {
        listen: Some(at),
        url: format!("http://{at}"),
        ..Config::default()
    };
    let _alone = Alone::start(|gateway| gateway.events = config).await;
    let post = |path: &str, length: usize, body: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    for path in ["/events/none", "/events/", "/", "/events/../events/none"] {
        let said = says(at, post(path, 2, "{}").as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 404"), "{path}: {said}");
    }
    // One that says too much, one that says nothing, and one that never comes to an end.
    let much = post("/events/none", 1 << 30, &"x".repeat(4 << 20));
    assert!(!says(at, much.as_bytes()).await.contains(" 200 "));
    assert!(says(at, b"hello?\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert_eq!(says(at, b"POST /events/none HTTP/1.1\r\n").await, "", "it is left after a while");
}
