use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};

/// Spaces requests to one BMC: so many in a second on average, so many at once.
pub(crate) struct RateLimiter {
    gap: Duration,
    burst: u32,
    /// When the next request would be due if all of them came evenly.
    due: Mutex<Option<Instant>>,
}

impl RateLimiter {
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        Self {
            gap: if rate == 0 { Duration::ZERO } else { Duration::from_secs(1) / rate },
            burst: burst.max(1),
            due: Mutex::new(None),
        }
    }

    /// Waits for one's turn; turns are in the order of asking.
    pub(crate) async fn wait(&self) {
        if self.gap.is_zero() {
            return;
        }
        let mut due = self.due.lock().await;
        let now = Instant::now();
        let mine = turn_at(*due, now, self.gap, self.burst);
        if mine > now {
            tokio::time::sleep_until(mine).await;
        }
        *due = Some(mine + self.gap);
    }
}

/// When the next request may go: what was not used is saved up, for one burst at most.
fn turn_at(due: Option<Instant>, now: Instant, gap: Duration, burst: u32) -> Instant {
    let earliest = now.checked_sub(gap * (burst - 1)).unwrap_or(now);
    due.map_or(earliest, |due| due.max(earliest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let gap = Duration::from_millis(200);
        let now = Instant::now() + Duration::from_secs(3600);
        let mut due = None;
        let mut at = vec![];
        for _ in 0..12 {
            let mine = turn_at(due, now, gap, 10);
            at.push(mine.saturating_duration_since(now));
            due = Some(mine + gap);
        }
        assert!(at[..10].iter().all(Duration::is_zero), "{at:?}");
        assert_eq!(at[10..], [gap, gap * 2]);
        assert_eq!(
            turn_at(due, now + Duration::from_secs(60), gap, 10),
            now + Duration::from_secs(60) - gap * 9
        );
    }
}
