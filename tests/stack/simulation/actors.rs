//! Actors that take turns: one runs at a time, from one gate to the next, and any of them can die at a gate.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    task::Poll,
};

use ironyard_types::{Clock, Timestamp};

/// Where an actor waits for its next turn.
#[derive(Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Ends the turn; goes on in the next one.
    pub fn pass(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let parked = self.0.clone();
        let mut arrived = false;
        Box::pin(poll_fn(move |_| {
            if std::mem::replace(&mut arrived, true) {
                return Poll::Ready(());
            }
            parked.store(true, Ordering::Relaxed);
            Poll::Pending
        }))
    }
}

/// Something that goes on in turns.
pub struct Actor {
    /// The process that it belongs to, if that can die.
    pub process: Option<usize>,
    /// What it is, for the trace of a schedule.
    pub name: String,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Actor {
    pub fn new(name: impl Into<String>, process: Option<usize>, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            process,
            name: name.into(),
            work: Box::pin(work),
        }
    }

    /// One turn; whether it has ended.
    pub async fn turn(&mut self, gate: &Gate) -> bool {
        poll_fn(|cx| match self.work.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if gate.0.swap(false, Ordering::Relaxed) => Poll::Ready(false),
            // The database works for it.
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// The true time, which passes when the scheduler says so.
#[derive(Clone)]
pub struct Time(Arc<AtomicI64>);

impl Default for Time {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(1_700_000_000_000_000)))
    }
}

impl Time {
    pub fn micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for Time {
    fn now(&self) -> Timestamp {
        Timestamp(self.micros())
    }
}

/// The clock of one machine: it is off, and it steps.
#[derive(Clone)]
pub struct Skewed {
    pub time: Time,
    pub offset: Arc<AtomicI64>,
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp(self.time.micros() + self.offset.load(Ordering::Relaxed))
    }
}

/// Chance, from a seed (SplitMix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }

    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        least + i64::try_from(self.next() % u64::try_from(most - least + 1).unwrap_or(1)).unwrap_or(0)
    }

    /// True this often in a thousand.
    pub fn permille(&mut self, n: u64) -> bool {
        self.next() % 1000 < n
    }

    /// An index, as likely as its weight.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.next() % weights.iter().sum::<u64>().max(1);
        for (i, weight) in weights.iter().enumerate() {
            if left < *weight {
                return i;
            }
            left -= weight;
        }
        0
    }
}
