use ironyard_peers::{adoptable, name};
use ironyard_proto::{claim, common, inventory};

use super::Failure;
use crate::client::Clients;

/// Takes over machines that run: makes a claim for each, named like its server.
pub(super) async fn run(
    clients: &Clients,
    named: &[String],
    selector: Option<common::LabelSelector>,
    dry_run: bool,
) -> Result<(), Failure> {
    let servers = if named.is_empty() {
        in_discovery(clients, selector, |server| adoptable(server).is_some()).await?
    } else {
        let mut servers = Vec::new();
        for name in named {
            let request = inventory::GetServerRequest { name: name.clone() };
            servers.push(clients.servers.clone().get_server(request).await?.into_inner());
        }
        servers
    };
    if servers.is_empty() {
        eprintln!("no server waits to be adopted");
        return Ok(());
    }
    // All or none, where one of those that are named cannot be adopted.
    if let Some(other) = servers.iter().find(|server| adoptable(server).is_none()) {
        let state = other.state().as_str_name().trim_start_matches("SERVER_STATE_").to_owned();
        let why = other
            .waiting_because
            .as_ref()
            .map_or(String::new(), |w| format!(" ({})", w.message));
        return Err(Failure::usage(format!(
            "server {} does not wait to be adopted: it is {state}{why}",
            name(other)
        )));
    }
    for server in &servers {
        let name = name(server);
        if dry_run {
            println!("server/{name} would be held by serverclaim/{name}, as it runs, and owe a wipe once that is released");
            continue;
        }
        let claim = claim::ServerClaim {
            metadata: Some(common::Metadata {
                name: name.clone(),
                ..Default::default()
            }),
            spec: Some(claim::ServerClaimSpec {
                server_ref: Some(common::Reference {
                    name: name.clone(),
                    uid: String::new(),
                }),
                adopt: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = claim::CreateServerClaimRequest {
            server_claim: Some(claim),
            request_id: String::new(),
        };
        match clients.claims.clone().create_server_claim(request).await {
            Ok(_) => {}
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                println!("serverclaim/{name} exists");
                continue;
            }
            Err(status) => return Err(status.into()),
        }
        println!("serverclaim/{name} created: it adopts server/{name}");
    }
    Ok(())
}

/// The servers in Discovery that match, and of which this holds.
pub(super) async fn in_discovery(
    clients: &Clients,
    selector: Option<common::LabelSelector>,
    wanted: impl Fn(&inventory::Server) -> bool,
) -> Result<Vec<inventory::Server>, Failure> {
    let (mut servers, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = inventory::ListServersRequest {
            page_size: 1000,
            page_token,
            selector: selector.clone(),
            state: inventory::ServerState::Discovery.into(),
            ..Default::default()
        };
        let page = clients.servers.clone().list_servers(request).await?.into_inner();
        servers.extend(page.servers.into_iter().filter(&wanted));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(servers);
        }
    }
}
