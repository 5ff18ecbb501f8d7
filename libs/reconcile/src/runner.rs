use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use ironyard_rpc::fence::Hold;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, warn};

use crate::{Lease, Pass, Queue, SaveError};

/// When to look at a key again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// When something enqueues it.
    Done,
    /// After this long, or when something enqueues it.
    After(Duration),
}

/// What looks at one key.
pub trait Reconcile: Send + Sync + 'static {
    /// What may go wrong; logged here, once, and backed off.
    type Error: std::error::Error + Send + Sync + 'static;
    /// One pass: read the record and the world, decide, do one thing.
    fn reconcile(&self, pass: &Pass) -> impl Future<Output = Result<Next, Self::Error>> + Send;
    /// Shows on the resource that waits why the pass failed, how often in a row, and when it is tried again.
    fn failed(&self, pass: &Pass, error: &Self::Error, attempts: u32, again: Duration) -> impl Future<Output = ()> + Send {
        let _ = (pass, error, attempts, again);
        async {}
    }
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
    concurrency: usize,
}

impl<R: Reconcile> Runner<R> {
    /// A loop that looks at up to `concurrency` keys at once.
    pub fn new(queue: Queue, reconciler: Arc<R>, concurrency: usize) -> Self {
        Self {
            queue,
            reconciler,
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
        let ended = Arc::new(Ended::default());
        // Whether a key is due, as far as is known, and when the next one is; nothing: that is to be asked.
        let (mut due, mut next) = (true, None);
        while !shutdown.is_cancelled() {
            while passes.try_join_next().is_some() {}
            if due {
                let free = permits.available_permits();
                let taken = if free == 0 {
                    Ok(vec![])
                } else {
                    self.queue.take(i64::try_from(free).unwrap_or(1)).await
                };
                let leases = match taken {
                    Ok(leases) => leases,
                    Err(error) => {
                        warn!(queue = self.queue.name(), error = chain(&error), "could not read the queue");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                };
                let full = leases.len() >= free;
                for lease in leases {
                    let Ok(permit) = permits.clone().acquire_owned().await else {
                        return;
                    };
                    let (queue, reconciler, ended) = (self.queue.clone(), self.reconciler.clone(), ended.clone());
                    passes.spawn(async move {
                        let again = pass(&queue, &*reconciler, lease).await;
                        drop(permit);
                        ended.tell(again);
                    });
                }
                if full {
                    // More may be due than could be taken.
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = ended.told.notified() => {}
                    }
                    // It was told when its key is due again: that is asked with all the rest.
                    next = None;
                    continue;
                }
                due = false;
            }
            let (at, sure) = match next {
                Some(known) => known,
                None => *next.insert(self.idle().await),
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.queue.wake.notified() => due = true,
                () = ended.told.notified() => {
                    if let Some(again) = ended.next().filter(|again| *again < at) {
                        next = Some((again, true));
                    }
                }
                () = tokio::time::sleep_until(at) => (due, next) = (sure, None),
            }
        }
        // A pass is one step; ten seconds are enough for the longest that is not stuck.
        let _ = tokio::time::timeout(Duration::from_secs(10), async { while passes.join_next().await.is_some() {} }).await;
    }

    /// When the next key is due, and whether one is then. Another process may have made one due: at once where it hands over keys that are
    /// this one's, else the one that did looks itself, and this one only where that died; so it is asked again after a while.
    async fn idle(&self) -> (Instant, bool) {
        let most = Duration::from_secs(if self.queue.alone() { 10 } else { 1 });
        let now = Instant::now();
        match self.queue.next_due().await {
            Ok(Some(due)) if due <= most => (now + due.max(Duration::from_millis(2)), true),
            Ok(_) | Err(_) => (now + most, false),
        }
    }
}

/// What passes that ended say of when their keys are due again.
#[derive(Default)]
struct Ended {
    told: Notify,
    soonest: Mutex<Option<Instant>>,
}

impl Ended {
    fn tell(&self, again: Duration) {
        let mut soonest = self.soonest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = Instant::now().checked_add(again) {
            *soonest = Some(soonest.map_or(at, |other| other.min(at)));
        }
        drop(soonest);
        self.told.notify_one();
    }

    fn next(&self) -> Option<Instant> {
        self.soonest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One of a service's loops, whatever it reconciles.
pub trait Controller: Send + Sync {
    /// Its queue.
    fn queue(&self) -> &Queue;
    /// Runs until `shutdown`.
    fn run(self: Box<Self>, shutdown: CancellationToken) -> BoxFuture<'static, ()>;
    /// Takes one key that is due, and looks at it; false when none is. For those who decide themselves who goes on.
    fn step(&self) -> BoxFuture<'_, ironyard_db::Result<bool>>;
}

impl<R: Reconcile> Controller for Runner<R> {
    fn queue(&self) -> &Queue {
        &self.queue
    }

    fn run(self: Box<Self>, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(Runner::run(*self, shutdown))
    }

    fn step(&self) -> BoxFuture<'_, ironyard_db::Result<bool>> {
        Box::pin(async {
            let Some(lease) = self.queue.take(1).await?.pop() else {
                return Ok(false);
            };
            pass(&self.queue, &*self.reconciler, lease).await;
            Ok(true)
        })
    }
}

/// Runs all loops of a service until `shutdown`.
pub async fn run_all(controllers: Vec<Box<dyn Controller>>, shutdown: &CancellationToken) {
    let running = controllers.into_iter().map(|controller| controller.run(shutdown.clone()));
    futures_util::future::join_all(running).await;
}

struct Ends(Hold);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Looks at a key that was taken; after how long it is due again.
async fn pass<R: Reconcile>(queue: &Queue, reconciler: &R, lease: Lease) -> Duration {
    let span = tracing::debug_span!("reconcile", queue = queue.name(), key = %lease.key, attempt = lease.attempts);
    let pass = Pass::new(queue.clone(), lease);
    let lease = &pass.lease;
    let (scope, number) = pass.fence();
    let hold = Hold::until(lease.until);
    // However the pass ends, what it has begun elsewhere changes nothing after it.
    let _ends = Ends(hold.clone());
    let work = ironyard_rpc::fence::within(scope, number, hold.clone(), reconciler.reconcile(&pass));
    let work = std::panic::AssertUnwindSafe(work).catch_unwind().instrument(span);
    let renewals = async {
        loop {
            tokio::time::sleep(queue.lease() / 3).await;
            let until = Instant::now() + queue.lease();
            match queue.renew(lease).await {
                Ok(true) => hold.extend(until),
                // It has run out meanwhile.
                Err(_) if hold.is_over() => return,
                Ok(false) => return,
                Err(error) => warn!(queue = queue.name(), key = %lease.key, error = chain(&error), "could not renew a lease"),
            }
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        // Somebody else has the key now: whatever this pass would still do is theirs to do.
        () = renewals => return Duration::MAX,
    };
    let attempts = lease.attempts.saturating_add(1);
    let ended = match outcome {
        Ok(Ok(Next::Done)) => queue.done(lease).await,
        Ok(Ok(Next::After(wait))) => queue.again(lease, wait, 0).await,
        // Somebody else wrote meanwhile: that is no failure, the next pass decides on what is there now.
        Ok(Err(error)) if is_lost(&error) => queue.again(lease, Duration::from_millis(10), lease.attempts).await,
        Ok(Err(error)) => {
            let wait = backoff(&lease.key, attempts);
            debug!(queue = queue.name(), key = %lease.key, attempts, error = chain(&error), "pass failed");
            if attempts.is_power_of_two() && attempts > 4 {
                warn!(queue = queue.name(), key = %lease.key, attempts, error = chain(&error), "pass keeps failing");
            }
            reconciler.failed(&pass, &error, attempts, wait).await;
            queue.again(lease, wait, attempts).await
        }
        Err(_panic) => {
            warn!(queue = queue.name(), key = %lease.key, attempts, "pass panicked");
            queue.again(lease, backoff(&lease.key, attempts), attempts).await
        }
    };
    match ended {
        Ok(again) => again.unwrap_or(Duration::MAX),
        Err(error) => {
            warn!(queue = queue.name(), key = %lease.key, error = chain(&error), "could not end a pass");
            // The lease runs out by itself, and the key is due again then.
            queue.lease()
        }
    }
}

fn is_lost(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref::<SaveError>(), Some(SaveError::Lost)) {
            return true;
        }
        next = error.source();
    }
    false
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
