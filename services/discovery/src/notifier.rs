use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use ironyard_resource::{Context, names};
use tokio::sync::Notify;

use crate::domain::agent_run::AgentRun;

/// Tells agents on the line that their run has changed, each its own.
#[derive(Clone, Default)]
pub struct RunNotifier(Arc<Mutex<HashMap<String, Weak<Notify>>>>);

impl RunNotifier {
    /// Is notified when this run changes, as long as somebody keeps it.
    pub fn of(&self, run: &str) -> Arc<Notify> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = waiting.get(run).and_then(Weak::upgrade) {
            return there;
        }
        waiting.retain(|_, line| line.strong_count() > 0);
        let line = Arc::default();
        waiting.insert(run.to_owned(), Arc::downgrade(&line));
        line
    }

    /// Follows what is written of runs, by whichever replica, for ever.
    pub async fn follow(&self, cx: &Context) {
        let mut token = String::new();
        loop {
            let mut changes = std::pin::pin!(names::<AgentRun>(cx.clone(), token.clone()));
            while let Some(message) = changes.next().await {
                let Ok((changes, next)) = message else {
                    token.clear();
                    break;
                };
                token = next;
                let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                for line in changes.iter().filter_map(|change| waiting.get(&change.name)?.upgrade()) {
                    line.notify_waiters();
                }
            }
            // An agent asks again by itself.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
