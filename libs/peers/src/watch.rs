use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ironyard_proto::{
    bmc,
    common::{ChangeType, Metadata},
    inventory,
};
use ironyard_reconcile::Queue;
use prost::Message;

use crate::{Gateway, Inventory};

/// Follows inventory's servers for ever. An event that could not be taken in is tried again: it would be lost otherwise. A change of what
/// nobody decides by (why it waits, texts, hardware) is passed over: most of them are made by those who follow.
pub async fn follow_servers<F, E>(peer: Inventory, seen: impl Fn(inventory::Server) -> F + Send + Sync)
where
    F: Future<Output = Result<(), E>> + Send,
    E: std::fmt::Display + Send,
{
    let known: Mutex<HashMap<String, (i64, u64)>> = Mutex::default();
    let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let open = |resume_token: String| {
        let mut client = peer.servers.clone();
        if resume_token.is_empty() {
            // It may have missed anything.
            known().clear();
        }
        async move {
            Ok(client
                .watch_servers(inventory::WatchServersRequest { resume_token })
                .await?
                .into_inner())
        }
    };
    let item = |event: inventory::WatchServersResponse| {
        let (seen, known) = (&seen, &known);
        async move {
            let gone = event.r#type() == ChangeType::Deleted;
            if let Some(server) = event.server {
                let (name, now) = (crate::name(&server), (version(&server), concern(&server)));
                // Of two changes that were told as one, the first may have been undone by the second.
                let same = known()
                    .get(&name)
                    .is_some_and(|(last, concern)| *concern == now.1 && now.0 <= last + 1);
                if gone || !same {
                    while let Err(error) = seen(server.clone()).await {
                        tracing::warn!(%error, "could not take in what became of a server");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                if gone {
                    known().remove(&name);
                } else {
                    known().insert(name, now);
                }
            }
            event.resume_token
        }
    };
    ironyard_resource::follow("servers", open, item).await;
}

/// The version in its etag.
pub fn version(server: &inventory::Server) -> i64 {
    let etag = server.metadata.as_ref().map(|m| m.etag.as_str()).unwrap_or_default();
    etag.split('-').next().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// What others decide by, in one number.
fn concern(server: &inventory::Server) -> u64 {
    let metadata = server.metadata.as_ref();
    let observed = server.observed.as_ref();
    let mut hash = DefaultHasher::new();
    let decided = inventory::Server {
        metadata: metadata.map(|m| Metadata {
            uid: m.uid.clone(),
            labels: m.labels.clone(),
            ..Metadata::default()
        }),
        spec: server.spec.clone(),
        observed: observed.map(|o| inventory::ServerObserved {
            power_state: o.power_state,
            system_id: o.system_id.clone(),
            ..inventory::ServerObserved::default()
        }),
        state: server.state,
        conditions: vec![],
        claim_ref: server.claim_ref.clone(),
        maintenance_ref: server.maintenance_ref.clone(),
        sanitization_debt: server.sanitization_debt.clone(),
        waiting_because: None,
        failure: None,
        discovered: server.discovered,
    };
    decided.encode_to_vec().hash(&mut hash);
    server
        .conditions
        .iter()
        .for_each(|c| (&c.r#type, c.status, &c.reason).hash(&mut hash));
    hash.finish()
}

/// How often all servers are looked through for keys that a queue should have.
const RESYNC: Duration = Duration::from_secs(600);

/// Looks through inventory's servers for ever, now and then, and gives a queue the keys that it should have and has not: whatever an event may
/// have failed to tell, what is there tells.
pub async fn resync_on_servers(peer: Inventory, queue: Queue, keys: impl Fn(&inventory::Server) -> Vec<String> + Send + Sync) {
    let name = queue.name();
    let page = |servers: Vec<inventory::Server>| {
        let keys: Vec<String> = servers.iter().flat_map(&keys).collect();
        let queue = queue.clone();
        async move { queue.enqueue_all_new(&keys).await.map_err(|error| error.to_string()) }
    };
    sweep_servers(peer, name, RESYNC, page).await;
}

/// Looks through inventory's servers for ever, once in a while, page by page.
pub async fn sweep_servers<F>(peer: Inventory, name: &str, every: Duration, page: impl Fn(Vec<inventory::Server>) -> F + Send + Sync)
where
    F: Future<Output = Result<(), String>> + Send,
{
    loop {
        // Spread, so that services do not all ask at once.
        tokio::time::sleep(every.mul_f64(0.8 + ironyard_types::random_fraction() * 0.4)).await;
        let mut page_token = String::new();
        loop {
            let request = inventory::ListServersRequest {
                page_size: 200,
                page_token: std::mem::take(&mut page_token),
                ..Default::default()
            };
            let looked = match peer.servers.clone().list_servers(request).await {
                Ok(reply) => {
                    let reply = reply.into_inner();
                    page_token = reply.next_page_token;
                    page(reply.servers).await
                }
                Err(status) => Err(status.message().to_owned()),
            };
            if let Err(why) = looked {
                tracing::warn!(sweep = name, why, "could not look through the servers");
                break;
            }
            if page_token.is_empty() {
                break;
            }
        }
    }
}

/// Follows the gateway's BMCs for ever and enqueues the keys that a change concerns.
pub async fn enqueue_on_bmcs(peer: Gateway, queue: Queue, keys: impl Fn(&bmc::Bmc) -> Vec<String> + Send + Sync) {
    let open = |resume_token| {
        let mut client = peer.bmcs.clone();
        async move { Ok(client.watch_bmcs(bmc::WatchBmcsRequest { resume_token }).await?.into_inner()) }
    };
    let item = |event: bmc::WatchBmcsResponse| {
        let keys = event.bmc.as_ref().map(&keys).unwrap_or_default();
        enqueue(queue.clone(), keys, event.resume_token)
    };
    ironyard_resource::follow("bmcs", open, item).await;
}

/// What cannot be enqueued is tried again: the event would be lost otherwise.
async fn enqueue(queue: Queue, keys: Vec<String>, token: String) -> String {
    for key in keys {
        while let Err(error) = queue.enqueue(&key).await {
            tracing::warn!(queue = queue.name(), key, %error, "could not enqueue");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    token
}
