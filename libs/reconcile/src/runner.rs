use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use ironyard_types::Clock;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, warn};

use crate::{Lease, Queue};

/// When to look at a key again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// When something pokes it.
    Done,
    /// After this long, or when something pokes it.
    After(Duration),
}

/// What looks at one key.
pub trait Reconcile: Send + Sync + 'static {
    /// What may go wrong; logged here, once, and backed off.
    type Error: std::error::Error + Send + Sync + 'static;
    /// One pass: read the record and the world, decide, do one thing.
    fn reconcile(&self, key: &str) -> impl Future<Output = Result<Next, Self::Error>> + Send;
}

/// Time to wait after the `attempts`th failure in a row: 0.2 s doubling to 30 s, spread by the key so that keys that failed together
/// do not return together.
pub fn backoff(key: &str, attempts: u32) -> Duration {
    let base = 200_u64.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(30_000);
    let hash = key
        .bytes()
        .fold(u64::from(attempts), |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    Duration::from_millis(base * 3 / 4 + hash % (base / 2))
}

/// The loop over one queue.
pub struct Runner<R> {
    queue: Queue,
    reconciler: Arc<R>,
    clock: Arc<dyn Clock>,
    concurrency: usize,
}

impl<R: Reconcile> Runner<R> {
    /// A loop that looks at up to `concurrency` keys at once.
    pub fn new(queue: Queue, reconciler: Arc<R>, clock: Arc<dyn Clock>, concurrency: usize) -> Self {
        Self {
            queue,
            reconciler,
            clock,
            concurrency,
        }
    }

    /// Runs until `shutdown`; then waits for the passes that run, and releases what they held.
    pub async fn run(self, shutdown: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.concurrency));
        let mut passes = JoinSet::new();
        if let Err(error) = self.queue.adopt().await {
            warn!(
                queue = self.queue.name(),
                error = chain(&error),
                "could not release the leases of an earlier process"
            );
        }
        while !shutdown.is_cancelled() {
            while passes.try_join_next().is_some() {}
            let free = permits.available_permits();
            let taken = if free == 0 {
                Ok(vec![])
            } else {
                self.queue.take(i64::try_from(free).unwrap_or(1)).await
            };
            match taken {
                Ok(leases) if !leases.is_empty() => {
                    for lease in leases {
                        let Ok(permit) = permits.clone().acquire_owned().await else {
                            return;
                        };
                        let (queue, reconciler, clock) = (self.queue.clone(), self.reconciler.clone(), self.clock.clone());
                        passes.spawn(async move {
                            pass(&queue, &*reconciler, &*clock, lease).await;
                            drop(permit);
                            queue.wake();
                        });
                    }
                }
                Ok(_) => {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = self.queue.wake.notified() => {}
                        () = tokio::time::sleep(self.idle().await) => {}
                    }
                }
                Err(error) => {
                    warn!(queue = self.queue.name(), error = chain(&error), "could not read the queue");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        // A pass is one step; ten seconds are enough for the longest that is not stuck.
        let _ = tokio::time::timeout(Duration::from_secs(10), async { while passes.join_next().await.is_some() {} }).await;
    }

    /// Until the next key is due, but never longer than a second: another process may have poked.
    async fn idle(&self) -> Duration {
        let most = Duration::from_secs(1);
        match self.queue.next_due().await {
            Ok(Some(due)) => due.since(self.clock.now()).clamp(Duration::from_millis(2), most),
            Ok(None) | Err(_) => most,
        }
    }
}

async fn pass<R: Reconcile>(queue: &Queue, reconciler: &R, clock: &dyn Clock, lease: Lease) {
    let span = tracing::debug_span!("reconcile", queue = queue.name(), key = %lease.key, attempt = lease.attempts);
    let work = std::panic::AssertUnwindSafe(reconciler.reconcile(&lease.key))
        .catch_unwind()
        .instrument(span);
    let renewals = async {
        let mut held = Instant::now();
        loop {
            tokio::time::sleep(queue.lease() / 3).await;
            match queue.renew(&lease).await {
                Ok(true) => held = Instant::now(),
                // It has run out meanwhile.
                Err(_) if held.elapsed() > queue.lease() => return,
                Ok(false) => return,
                Err(error) => warn!(queue = queue.name(), key = %lease.key, error = chain(&error), "could not renew a lease"),
            }
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        // Somebody else has the key now: whatever this pass would still do is theirs to do.
        () = renewals => return,
    };
    let ended = match outcome {
        Ok(Ok(Next::Done)) => queue.done(&lease).await,
        Ok(Ok(Next::After(wait))) => queue.again(&lease, clock.now().plus(wait), 0).await,
        Ok(Err(error)) => {
            let attempts = lease.attempts.saturating_add(1);
            debug!(queue = queue.name(), key = %lease.key, attempts, error = chain(&error), "pass failed");
            if attempts.is_power_of_two() && attempts > 4 {
                warn!(queue = queue.name(), key = %lease.key, attempts, error = chain(&error), "pass keeps failing");
            }
            queue.again(&lease, clock.now().plus(backoff(&lease.key, attempts)), attempts).await
        }
        Err(_panic) => {
            let attempts = lease.attempts.saturating_add(1);
            warn!(queue = queue.name(), key = %lease.key, attempts, "pass panicked");
            queue.again(&lease, clock.now().plus(backoff(&lease.key, attempts)), attempts).await
        }
    };
    if let Err(error) = ended {
        // The lease runs out by itself, and the key is due again then.
        warn!(queue = queue.name(), key = %lease.key, error = chain(&error), "could not end a pass");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
