use clap::ValueEnum;
use ironyard_peers::name;
use ironyard_proto::{common, inventory};
use ironyard_types::hardware;

use super::{Failure, adopt::in_discovery};
use crate::client::Clients;

/// What a machine owes that was never wiped here.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum FirstWipe {
    /// It is not offered before somebody says one of the other two.
    Wait,
    /// It is wiped before it is offered; all that is on its drives is lost.
    Wipe,
    /// It is offered as it is.
    Waive,
}

impl From<FirstWipe> for hardware::FirstWipe {
    fn from(policy: FirstWipe) -> Self {
        match policy {
            FirstWipe::Wait => Self::Wait,
            FirstWipe::Wipe => Self::Wipe,
            FirstWipe::Waive => Self::Waive,
        }
    }
}

/// Says it of servers; of all that wait for it, where none is named.
pub(super) async fn run(
    clients: &Clients,
    policy: FirstWipe,
    named: &[String],
    selector: Option<common::LabelSelector>,
    dry_run: bool,
) -> Result<(), Failure> {
    let names: Vec<String> = if named.is_empty() {
        let waits = |server: &inventory::Server| server.waiting_because.as_ref().is_some_and(|w| w.reason == "NEVER_WIPED");
        in_discovery(clients, selector, waits).await?.iter().map(name).collect()
    } else {
        named.to_vec()
    };
    if names.is_empty() {
        eprintln!("no server waits for a word on its first wipe");
    }
    let what = match policy {
        FirstWipe::Wait => "waits for a word on its first wipe",
        FirstWipe::Wipe => "is wiped before it is offered for the first time",
        FirstWipe::Waive => "is offered as it is, unwiped",
    };
    for name in names {
        let server = clients
            .servers
            .clone()
            .get_server(inventory::GetServerRequest { name: name.clone() })
            .await?
            .into_inner();
        if server.discovered {
            return Err(Failure::usage(format!(
                "server {name} has been discovered: what it owes since is paid by its cleanups"
            )));
        }
        if dry_run {
            println!("server/{name} would be as one that {what}");
            continue;
        }
        let spec = inventory::ServerSpec {
            first_wipe: ironyard_rpc::convert::first_wipe_to(Some(policy.into())).into(),
            ..Default::default()
        };
        let request = inventory::UpdateServerRequest {
            server: Some(inventory::Server {
                metadata: server.metadata,
                spec: Some(spec),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["spec.first_wipe".to_owned()],
            }),
            ..Default::default()
        };
        clients.servers.clone().update_server(request).await?;
        println!("server/{name} {what}");
    }
    Ok(())
}
