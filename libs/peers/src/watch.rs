use ironyard_proto::{bmc, inventory};
use ironyard_reconcile::Queue;

use crate::{Gateway, Inventory};

/// Follows inventory's servers for ever and pokes a queue with the keys that a change concerns.
pub async fn poke_on_servers(peer: Inventory, queue: Queue, keys: impl Fn(&inventory::Server) -> Vec<String> + Send + Sync) {
    let open = |resume_token| {
        let mut client = peer.servers.clone();
        async move {
            Ok(client
                .watch_servers(inventory::WatchServersRequest { resume_token })
                .await?
                .into_inner())
        }
    };
    let item = |event: inventory::WatchServersResponse| {
        let keys = event.server.as_ref().map(&keys).unwrap_or_default();
        poke(queue.clone(), keys, event.resume_token)
    };
    ironyard_resource::follow("servers", open, item).await;
}

/// Follows the gateway's BMCs for ever and pokes a queue with the keys that a change concerns.
pub async fn poke_on_bmcs(peer: Gateway, queue: Queue, keys: impl Fn(&bmc::Bmc) -> Vec<String> + Send + Sync) {
    let open = |resume_token| {
        let mut client = peer.bmcs.clone();
        async move { Ok(client.watch_bmcs(bmc::WatchBmcsRequest { resume_token }).await?.into_inner()) }
    };
    let item = |event: bmc::WatchBmcsResponse| {
        let keys = event.bmc.as_ref().map(&keys).unwrap_or_default();
        poke(queue.clone(), keys, event.resume_token)
    };
    ironyard_resource::follow("bmcs", open, item).await;
}

/// A poke that cannot be stored is tried again: the event would be lost otherwise.
async fn poke(queue: Queue, keys: Vec<String>, token: String) -> String {
    for key in keys {
        while let Err(error) = queue.poke(&key).await {
            tracing::warn!(queue = queue.name(), key, %error, "could not poke");
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
    token
}
