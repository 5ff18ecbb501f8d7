use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ironyard_proto::{bmc, common::NameChange, discovery, discovery::agent_run_service_client::AgentRunServiceClient};
use ironyard_reconcile::Queue;
use ironyard_rpc::Channel;

use crate::Gateway;

/// Keys that wait for something in another service to change: they are made due when it does, so nobody asks again and again.
///
/// It is memory of one process. What it misses (a process that died, a watch that began anew) is looked at after a while all the same.
#[derive(Clone, Default)]
pub struct Wakeups(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: HashMap<String, Vec<Waiter>>,
    /// Versions that were heard of lately: a change may be told before its waiter waits.
    heard: HashMap<String, i64>,
    order: VecDeque<String>,
}

#[derive(Clone)]
struct Waiter {
    queue: Queue,
    key: String,
    seen: i64,
}

/// A key whose change was not told is looked at after this.
const FALLBACK: Duration = Duration::from_secs(5);
/// And one whose change was told before it waited, after this.
const AT_ONCE: Duration = Duration::from_millis(20);
/// As many names are remembered.
const NAMES: usize = 20_000;

impl Wakeups {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a key of a queue due when something changes that was seen in this version; for how long to wait at most.
    pub fn after(&self, queue: &Queue, key: &str, name: &str, seen: i64) -> Duration {
        let mut state = self.state();
        if state.heard.get(name).is_some_and(|version| *version > seen) {
            return AT_ONCE;
        }
        if state.waiting.len() >= NAMES {
            // Nobody told of their ends; they are looked at after a while.
            state.waiting.clear();
        }
        let waiters = state.waiting.entry(name.to_owned()).or_default();
        waiters.retain(|waiter| waiter.key != key || waiter.queue.name() != queue.name());
        waiters.push(Waiter {
            queue: queue.clone(),
            key: key.to_owned(),
            seen,
        });
        FALLBACK
    }

    /// Takes in that something has this version now; the keys that are due by that.
    fn hear(&self, change: &NameChange) -> Vec<Waiter> {
        let mut state = self.state();
        let state = &mut *state;
        let heard = state.heard.entry(change.name.clone()).or_insert_with(|| {
            state.order.push_back(change.name.clone());
            change.version
        });
        // Versions grow, unless a backup was restored.
        *heard = change.version;
        if state.order.len() > NAMES
            && let Some(oldest) = state.order.pop_front()
        {
            state.heard.remove(&oldest);
        }
        let Some(waiters) = state.waiting.remove(&change.name) else {
            return vec![];
        };
        let (due, rest): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|waiter| waiter.seen < change.version);
        if !rest.is_empty() {
            state.waiting.insert(change.name.clone(), rest);
        }
        due
    }

    async fn heard(&self, changes: Vec<NameChange>, token: String) -> String {
        for waiter in changes.iter().flat_map(|change| self.hear(change)) {
            if let Err(error) = waiter.queue.enqueue(&waiter.key).await {
                tracing::warn!(queue = waiter.queue.name(), key = waiter.key, %error, "could not enqueue; it is looked at after a while");
            }
        }
        token
    }

    /// Follows the gateway's operations for ever.
    pub async fn follow_operations(&self, gateway: Gateway) {
        let open = |resume_token| {
            let mut client = gateway.operations.clone();
            async move {
                Ok(client
                    .watch_operations(bmc::WatchOperationsRequest { resume_token })
                    .await?
                    .into_inner())
            }
        };
        let item = |message: bmc::WatchOperationsResponse| self.heard(message.changes, message.resume_token);
        ironyard_resource::follow("operations", open, item).await;
    }

    /// Follows discovery's runs of the agent for ever.
    pub async fn follow_agent_runs(&self, discovery: AgentRunServiceClient<Channel>) {
        let open = |resume_token| {
            let mut client = discovery.clone();
            async move {
                let request = discovery::WatchAgentRunsRequest { resume_token };
                Ok(client.watch_agent_runs(request).await?.into_inner())
            }
        };
        let item = |message: discovery::WatchAgentRunsResponse| self.heard(message.changes, message.resume_token);
        ironyard_resource::follow("agent runs", open, item).await;
    }
}

#[cfg(test)]
mod tests {
    use ironyard_db::Db;

    use super::*;

    fn change(name: &str, version: i64) -> NameChange {
        NameChange {
            name: name.to_owned(),
            version,
        }
    }

    #[tokio::test]
    async fn a_change_is_told_whenever_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("db").display());
        let db = Db::open(&ironyard_db::Config::url(url), &ironyard_reconcile::MIGRATIONS)
            .await
            .unwrap();
        let queue = Queue::new(db, "test");
        let wakeups = Wakeups::default();
        assert_eq!(wakeups.after(&queue, "a", "op", 1), FALLBACK);
        assert_eq!(wakeups.after(&queue, "a", "op", 1), FALLBACK);
        assert!(wakeups.hear(&change("other", 9)).is_empty());
        assert!(wakeups.hear(&change("op", 1)).is_empty(), "that is what was seen");
        let due = wakeups.hear(&change("op", 2));
        assert_eq!(due.iter().map(|w| w.key.as_str()).collect::<Vec<_>>(), ["a"]);
        assert!(wakeups.hear(&change("op", 3)).is_empty(), "once");
        // It changed between the answer and the wait.
        assert_eq!(wakeups.after(&queue, "a", "op", 2), AT_ONCE);
        assert_eq!(wakeups.after(&queue, "a", "op", 3), FALLBACK);
        // Memory is bounded.
        for n in 0..NAMES * 2 {
            wakeups.hear(&change(&format!("op-{n}"), 1));
            wakeups.after(&queue, "b", &format!("other-{n}"), 1);
        }
        let state = wakeups.state();
        assert!(state.heard.len() <= NAMES && state.order.len() <= NAMES && state.waiting.len() <= NAMES);
    }
}
