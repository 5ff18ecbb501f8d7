use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many requests are in flight to all BMCs together.
///
/// Most BMCs answer soon: these requests share the fast places. A request that was not answered soon moves to the slow places, and the next one
/// to that BMC begins there, so that hundreds of BMCs which hang hold no place that the others need. Only when the slow places are taken as well
/// does a slow request keep its place, and everyone waits: that bounds memory whatever the BMCs do. So does the budget of bytes: a large body is read only when its
/// share is free, and what a reader holds is counted.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    fast: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    after: Duration,
    /// KiB of each budget.
    all: u32,
    /// KiB of large bodies that are being read.
    large: Arc<Semaphore>,
    /// KiB of documents that readers hold.
    held: Arc<Semaphore>,
}

impl Default for ConcurrencyLimit {
    fn default() -> Self {
        Self::new(500, 2000, Self::SLOW, 128 << 20)
    }
}

impl ConcurrencyLimit {
    /// After this a request is a slow one.
    pub const SLOW: Duration = Duration::from_millis(100);

    /// ConcurrencyLimit with so many places; a request is slow after this time. Large bodies that are read at once, and documents that readers hold, take
    /// no more than so many bytes each.
    pub fn new(fast: usize, slow: usize, after: Duration, bytes: usize) -> Self {
        let kib = (bytes >> 10).clamp(1, u32::MAX as usize >> 1);
        Self {
            fast: Arc::new(Semaphore::new(fast.max(1))),
            slow: Arc::new(Semaphore::new(slow)),
            after,
            all: u32::try_from(kib).unwrap_or(u32::MAX),
            large: Arc::new(Semaphore::new(kib)),
            held: Arc::new(Semaphore::new(kib)),
        }
    }

    /// Waits for the right to read a large body: its whole cap at once, so that nobody waits for another's rest.
    pub(crate) async fn large(&self, cap: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(cap >> 10).unwrap_or(u32::MAX);
        // A cap beyond the whole budget would never come: it takes all there is.
        self.large.clone().acquire_many_owned(kib.clamp(1, self.all)).await.ok()
    }

    /// The right to hold a document, if there is room.
    pub(crate) fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        self.held.clone().try_acquire_many_owned(kib).ok()
    }

    /// Runs a request in a place; `None` when the limit is over. The place in the queue is the caller's turn: the semaphore is fair. `slow`
    /// remembers how this BMC did last.
    pub(crate) async fn through<T>(&self, slow: &AtomicBool, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let begins_slow = slow.load(Ordering::Relaxed).then(|| self.slow.try_acquire().ok()).flatten();
        // Never closed; without a place the request would only be uncounted.
        let place = match &begins_slow {
            Some(_) => None,
            None => self.fast.acquire().await.ok(),
        };
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(self.after.min(limit), &mut work).await {
            slow.store(false, Ordering::Relaxed);
            return Some(done);
        }
        slow.store(true, Ordering::Relaxed);
        let rest = tokio::time::timeout(limit.saturating_sub(self.after), work);
        let moved = begins_slow.or_else(|| self.slow.try_acquire().ok());
        // Where there is none among the slow ones, the fast one is kept.
        let _place = place.filter(|_| moved.is_none());
        rest.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_hangs_leaves_the_fast_places() {
        let concurrency = ConcurrencyLimit::new(1, 1, Duration::from_millis(1), 1 << 20);
        let hang = || {
            let concurrency = concurrency.clone();
            tokio::spawn(async move {
                concurrency
                    .through(&AtomicBool::new(false), LONG, std::future::pending::<()>())
                    .await
            })
        };
        let first = hang();
        while concurrency.slow.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let slow = AtomicBool::new(false);
        assert_eq!(
            concurrency.through(&slow, LONG, async { 7 }).await,
            Some(7),
            "the fast place is free again"
        );
        // The slow place is taken: a second one that hangs keeps its fast one.
        let second = hang();
        while concurrency.fast.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!((concurrency.fast.available_permits(), concurrency.slow.available_permits()), (0, 0));
        first.abort();
        second.abort();
    }

    #[tokio::test]
    async fn what_was_slow_begins_in_the_slow_places_until_it_is_not() {
        let concurrency = ConcurrencyLimit::new(1, 1, Duration::from_millis(1), 1 << 20);
        let slow = AtomicBool::new(false);
        concurrency
            .through(&slow, LONG, tokio::time::sleep(Duration::from_millis(20)))
            .await;
        assert!(slow.load(Ordering::Relaxed));
        let over = concurrency.through(&slow, Duration::from_millis(5), std::future::pending::<()>());
        assert_eq!(over.await, None);
        let places = || (concurrency.fast.available_permits(), concurrency.slow.available_permits());
        assert_eq!(concurrency.through(&slow, LONG, async { places() }).await, Some((1, 0)));
        assert_eq!(concurrency.through(&slow, LONG, async { places() }).await, Some((0, 1)));
    }
}
