//! What users do in a schedule, and how rough it is.

use std::{collections::VecDeque, sync::atomic::Ordering};

use ironyard_proto::{
    claim::{
        self, ServerClaim, ServerClaimSpec, sanitization_service_client::SanitizationServiceClient,
        server_claim_service_client::ServerClaimServiceClient,
    },
    common::{LabelSelector, Metadata, PowerState, Reference},
    discovery::agent_service_client::AgentServiceClient,
    inventory::{self, ReclaimPolicy, Server, ServerSpec, server_service_client::ServerServiceClient},
    maintenance::{self, server_maintenance_service_client::ServerMaintenanceServiceClient},
};

use super::{
    actors::Chance,
    schedule::SECOND,
    world::{Service, World},
};

/// What a user does, and when.
#[derive(Debug, Clone)]
pub enum Act {
    Create {
        claim: usize,
        power: bool,
        image: bool,
        server: Option<usize>,
    },
    Power {
        claim: usize,
        on: bool,
    },
    Delete {
        claim: usize,
    },
    Policy {
        server: usize,
        retain: bool,
    },
    Cancel {
        server: usize,
    },
    Retry {
        server: usize,
    },
    Waive {
        server: usize,
    },
    Maintain {
        server: usize,
        power: Option<bool>,
    },
    Done {
        server: usize,
    },
    /// What power the server should have while it is free.
    Want {
        server: usize,
        on: bool,
    },
    Reach {
        server: usize,
        reachable: bool,
    },
}

/// How rough a schedule is.
pub struct Plan {
    pub servers: usize,
    pub acts: VecDeque<(i64, Act)>,
    /// Faults stop after this.
    pub until: i64,
    pub kills: bool,
    pub steps: bool,
    pub pauses: bool,
    /// Operations fail on hardware, in a thousand.
    pub bad: u64,
    /// Nothing but machinery may go wrong: every wipe must pass.
    pub sound: bool,
}

pub fn plan(world: &World, chance: &mut Chance) -> Plan {
    let servers = 1 + chance.below(2);
    let claims = 1 + chance.below(3);
    let mut acts = Vec::new();
    let until = chance.between(20, 200) * SECOND;
    let mut sound = true;
    let mut last = (0, None);
    for claim in 0..claims {
        let mut at = chance.between(1, until / SECOND) * SECOND;
        let mut server = chance.permille(300).then(|| chance.below(servers));
        // Some ask at once, and for the same.
        if claim > 0 && chance.permille(200) {
            (at, server) = last;
        }
        last = (at, server);
        let (power, image) = (chance.permille(700), chance.permille(600));
        acts.push((
            at,
            Act::Create {
                claim,
                power,
                image,
                server,
            },
        ));
        for _ in 0..chance.below(3) {
            acts.push((
                at + chance.between(0, 40) * SECOND,
                Act::Power {
                    claim,
                    on: chance.permille(500),
                },
            ));
        }
        if chance.permille(850) {
            acts.push((at + chance.between(0, 120) * SECOND, Act::Delete { claim }));
        }
    }
    for server in 0..servers {
        let at = |chance: &mut Chance| chance.between(1, until / SECOND) * SECOND;
        if chance.permille(150) {
            acts.push((
                at(chance),
                Act::Policy {
                    server,
                    retain: chance.permille(500),
                },
            ));
        }
        if chance.permille(100) {
            sound = false;
            acts.push((at(chance), Act::Cancel { server }));
        }
        if chance.permille(150) {
            acts.push((at(chance), Act::Retry { server }));
        }
        if chance.permille(60) {
            acts.push((at(chance), Act::Waive { server }));
        }
        if chance.permille(200) {
            let begin = at(chance);
            let power = chance.permille(500).then(|| chance.permille(500));
            acts.push((begin, Act::Maintain { server, power }));
            acts.push((begin + chance.between(1, 60) * SECOND, Act::Done { server }));
        }
        if chance.permille(300) {
            let on = chance.permille(500);
            acts.push((at(chance), Act::Want { server, on }));
        }
        if chance.permille(150) {
            let begin = at(chance);
            acts.push((begin, Act::Reach { server, reachable: false }));
            acts.push((begin + chance.between(1, 100) * SECOND, Act::Reach { server, reachable: true }));
        }
    }
    acts.sort_by_key(|(at, _)| *at);
    let stormy = chance.permille(600);
    let rate = |chance: &mut Chance, most: i64| {
        if stormy {
            u64::try_from(chance.between(0, most)).unwrap_or(0)
        } else {
            0
        }
    };
    world.net.faults.lost.store(rate(chance, 60), Ordering::Relaxed);
    world.net.faults.unanswered.store(rate(chance, 60), Ordering::Relaxed);
    world.net.faults.delayed.store(rate(chance, 60), Ordering::Relaxed);
    let bad = if chance.permille(200) { 50 } else { 0 };
    Plan {
        servers,
        acts: acts.into(),
        until,
        kills: chance.permille(500),
        steps: chance.permille(500),
        pauses: chance.permille(500),
        bad,
        sound: sound && bad == 0,
    }
}

pub fn server(n: usize) -> String {
    format!("server-{n}")
}

/// A change of one field of a server's spec.
fn of_server(n: usize, spec: ServerSpec, path: &str) -> inventory::UpdateServerRequest {
    inventory::UpdateServerRequest {
        server: Some(Server {
            metadata: metadata(server(n)),
            spec: Some(spec),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![path.to_owned()],
        }),
        request_id: String::new(),
    }
}

pub fn metadata(name: String) -> Option<Metadata> {
    Some(Metadata {
        name,
        ..Default::default()
    })
}

pub async fn act(act: Act, world: Clients) {
    let mut world = world;
    let by_name = |name: String| Reference { name, uid: String::new() };
    match act {
        Act::Create {
            claim,
            power,
            image,
            server: wanted,
        } => {
            let spec = ServerClaimSpec {
                power: if power { PowerState::On } else { PowerState::Off }.into(),
                image: if image { "http://images/os.iso".to_owned() } else { String::new() },
                server_selector: wanted.is_none().then(LabelSelector::default),
                server_ref: wanted.map(|n| by_name(server(n))),
                ..Default::default()
            };
            let claim = ServerClaim {
                metadata: metadata(format!("claim-{claim}")),
                spec: Some(spec),
                ..Default::default()
            };
            let request = claim::CreateServerClaimRequest {
                server_claim: Some(claim),
                request_id: String::new(),
            };
            drop(world.claims.create_server_claim(request).await);
        }
        Act::Power { claim, on } => {
            let claim = ServerClaim {
                metadata: metadata(format!("claim-{claim}")),
                spec: Some(ServerClaimSpec {
                    power: if on { PowerState::On } else { PowerState::Off }.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let request = claim::UpdateServerClaimRequest {
                server_claim: Some(claim),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["spec.power".to_owned()],
                }),
                request_id: String::new(),
            };
            drop(world.claims.update_server_claim(request).await);
        }
        Act::Delete { claim } => {
            let request = claim::DeleteServerClaimRequest {
                name: format!("claim-{claim}"),
                etag: String::new(),
            };
            drop(world.claims.delete_server_claim(request).await);
        }
        Act::Policy { server: n, retain } => {
            let policy = if retain { ReclaimPolicy::Retain } else { ReclaimPolicy::Recycle };
            let spec = ServerSpec {
                reclaim_policy: policy.into(),
                ..Default::default()
            };
            drop(world.servers.update_server(of_server(n, spec, "spec.reclaim_policy")).await);
        }
        Act::Want { server: n, on } => {
            let spec = ServerSpec {
                power: if on { PowerState::On } else { PowerState::Off }.into(),
                ..Default::default()
            };
            drop(world.servers.update_server(of_server(n, spec, "spec.power")).await);
        }
        Act::Cancel { server: n } => {
            let request = claim::CancelCleanupRequest {
                server: server(n),
                reason: "takes too long".to_owned(),
                actor: "operator".to_owned(),
            };
            drop(world.sanitization.cancel_cleanup(request).await);
        }
        Act::Retry { server: n } => {
            let request = inventory::RetryServerRequest {
                name: server(n),
                actor: "operator".to_owned(),
                ..Default::default()
            };
            drop(world.servers.retry_server(request).await);
        }
        Act::Waive { server: n } => {
            let request = inventory::WaiveSanitizationRequest {
                name: server(n),
                actor: "administrator".to_owned(),
                reason: "its drives were shredded".to_owned(),
                ..Default::default()
            };
            drop(world.servers.waive_sanitization(request).await);
        }
        Act::Maintain { server: n, power } => {
            let power = power.map(|on| if on { PowerState::On } else { PowerState::Off });
            let maintenance = maintenance::ServerMaintenance {
                metadata: metadata(format!("maintenance-{n}")),
                spec: Some(maintenance::ServerMaintenanceSpec {
                    server_ref: Some(by_name(server(n))),
                    reason: "a fan".to_owned(),
                    power: power.unwrap_or_default().into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let request = maintenance::CreateServerMaintenanceRequest {
                server_maintenance: Some(maintenance),
                request_id: String::new(),
            };
            drop(world.maintenances.create_server_maintenance(request).await);
        }
        Act::Done { server: n } => {
            let request = maintenance::DeleteServerMaintenanceRequest {
                name: format!("maintenance-{n}"),
                ..Default::default()
            };
            drop(world.maintenances.delete_server_maintenance(request).await);
        }
        Act::Reach { .. } => {}
    }
}

/// A user's clients.
#[derive(Clone)]
pub struct Clients {
    pub servers: ServerServiceClient<ironyard_rpc::Channel>,
    pub claims: ServerClaimServiceClient<ironyard_rpc::Channel>,
    pub sanitization: SanitizationServiceClient<ironyard_rpc::Channel>,
    pub maintenances: ServerMaintenanceServiceClient<ironyard_rpc::Channel>,
    pub agents: AgentServiceClient<ironyard_rpc::Channel>,
}

impl Clients {
    pub fn of(world: &World) -> Self {
        Self {
            servers: ServerServiceClient::new(world.channel(Service::Inventory)),
            claims: ServerClaimServiceClient::new(world.channel(Service::Claim)),
            sanitization: SanitizationServiceClient::new(world.channel(Service::Claim)),
            maintenances: ServerMaintenanceServiceClient::new(world.channel(Service::Maintenance)),
            agents: AgentServiceClient::new(world.channel(Service::Discovery)),
        }
    }
}
