//! What stands in front of a BMC: a few places for reads, and a mailbox of writes. Callers take turns at both.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot};

use crate::domain::fair_queue::FairQueue;

fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places for reads.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Free>>);

struct Free {
    places: usize,
    waiting: FairQueue<oneshot::Sender<Place>>,
}

/// A place, given back when it is dropped: to whose turn it is.
pub(super) struct Place(Places);

impl Places {
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Free {
            places,
            waiting: FairQueue::default(),
        })))
    }

    /// A place that is free now.
    pub(super) fn free(&self) -> Option<Place> {
        let mut free = locked(&self.0);
        free.places = free.places.checked_sub(1)?;
        Some(Place(self.clone()))
    }

    /// A place, in turn; none when too many wait.
    pub(super) async fn wait(&self, who: &str) -> Option<Place> {
        let turn = {
            let mut free = locked(&self.0);
            if let Some(left) = free.places.checked_sub(1) {
                free.places = left;
                return Some(Place(self.clone()));
            }
            let (give, turn) = oneshot::channel();
            if let Err(give) = free.waiting.push(who, give) {
                // Those who have hung up are still in line.
                free.waiting.retain(|other| !other.is_closed());
                free.waiting.push(who, give).ok()?;
            }
            turn
        };
        turn.await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut free = locked(&self.0.0);
            let next = free.waiting.pop();
            if next.is_none() {
                free.places += 1;
            }
            next
        };
        // One that has hung up gives it back in the same way.
        if let Some(next) = next {
            let _ = next.send(Self(self.0.clone()));
        }
    }
}

/// One write.
pub(super) type Work = BoxFuture<'static, ()>;

/// Writes that wait for their owner.
#[derive(Clone, Default)]
pub(super) struct Mailbox(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    waiting: FairQueue<Work>,
    closed: bool,
}

impl Mailbox {
    /// Puts one in; false when too many are there, or no more is taken.
    pub(super) fn put(&self, who: &str, work: Work) -> bool {
        let put = {
            let mut state = locked(&self.0.state);
            !state.closed && state.waiting.push(who, work).is_ok()
        };
        self.0.changed.notify_one();
        put
    }

    /// No more will come, and what waits is dropped.
    pub(super) fn close(&self) {
        let dropped = {
            let mut state = locked(&self.0.state);
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(dropped);
        self.0.changed.notify_one();
    }

    /// The next one, in turn; none when it is closed.
    pub(super) async fn take(&self) -> Option<Work> {
        loop {
            {
                let mut state = locked(&self.0.state);
                let next = state.waiting.pop();
                if next.is_some() || state.closed {
                    return next;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::domain::fair_queue::MOST;

    #[tokio::test]
    async fn places_go_to_whose_turn_it_is_and_are_never_lost() {
        let places = Places::new(2);
        let (a, b) = (places.free().unwrap(), places.free().unwrap());
        assert!(places.free().is_none());
        let mut greedy: Vec<_> = (0..3).map(|_| Box::pin(places.wait("greedy"))).collect();
        for waits in &mut greedy {
            assert!(waits.as_mut().now_or_never().is_none());
        }
        let mut modest = Box::pin(places.wait("modest"));
        assert!(modest.as_mut().now_or_never().is_none());
        // The first of the greedy one hangs up: its turn goes to the next caller.
        drop(greedy.remove(0));
        drop(a);
        let c = modest.await.unwrap();
        assert!(greedy[0].as_mut().now_or_never().is_none());
        drop((b, c));
        let held: Vec<_> = greedy.into_iter().map(|waits| waits.now_or_never().flatten().unwrap()).collect();
        drop(held);
        let (_a, _b) = (places.free().unwrap(), places.free().unwrap());
        assert!(places.free().is_none());
        // Too many who wait are told so; those who hung up make room.
        let mut crowd: Vec<_> = (0..MOST).map(|n| (n, format!("caller {n}"))).collect();
        let waits: Vec<_> = crowd.iter_mut().map(|(_, name)| Box::pin(places.wait(name))).collect();
        let mut waits: Vec<_> = waits.into_iter().map(|mut w| (w.as_mut().now_or_never(), w)).collect();
        assert!(waits.iter().all(|(now, _)| now.is_none()));
        assert!(places.wait("late").now_or_never().is_some_and(|place| place.is_none()));
        waits.truncate(MOST - 1);
        assert!(places.wait("late").now_or_never().is_none(), "it waits");
    }
}
