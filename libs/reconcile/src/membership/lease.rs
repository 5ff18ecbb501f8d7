//! When a replica may write for its keys.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{HEARTBEAT, HOLD, SILENCE};

/// When a member may write for its keys, by its own monotonic clock.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    /// Not before: until then others may not have noticed that it is here.
    pub(super) from: Instant,
    /// Not after: from then on others may have taken its keys.
    pub(super) until: Instant,
    /// What the others were writing was read then.
    pub(super) read: Instant,
    /// Slots that others were writing for, and until when they may be at it if nothing is heard of them any more.
    pub(super) others: HashMap<usize, Instant>,
}

/// Whether this replica may write for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Now.
    Now,
    /// From then on, if nothing changes.
    From(Instant),
    /// Not: it is another's, or may have become another's.
    No,
}

impl Lease {
    /// That of one who has not joined.
    pub(super) fn none(now: Instant) -> Self {
        Self {
            from: now,
            until: now,
            read: now,
            others: HashMap::new(),
        }
    }

    /// What it is after a heartbeat that began and ended then, in the company of others or alone.
    pub(super) fn renewed(&self, began: Instant, ended: Instant, alone: bool, others: HashMap<usize, Instant>) -> Self {
        let from = match (self.is_over(ended), alone) {
            // Who did not see this one's earlier heartbeat begins later, and sees it then.
            (false, true) => self.from.min(ended),
            (false, false) => self.from,
            // Another may have begun at the same moment, and neither have seen the other.
            (true, _) => ended + SILENCE,
        };
        Self {
            from,
            until: began + HOLD,
            read: began,
            others,
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    pub(super) fn writing(&self, slot: usize, now: Instant) -> Writing {
        let other = self.others.get(&slot).filter(|until| now < **until);
        match self.joined(now) {
            Writing::Now if other.is_some() => Writing::From(now + HEARTBEAT),
            writing => writing,
        }
    }

    /// The same for a key that nobody else writes for.
    pub(super) fn joined(&self, now: Instant) -> Writing {
        // Who did not know of this one may have begun a write until then, and has told so.
        let all_read = self.from - (SILENCE - HOLD);
        if self.is_over(now) {
            Writing::No
        } else if now < self.from {
            Writing::From(self.from)
        } else if self.read < all_read {
            Writing::From(now + HEARTBEAT)
        } else {
            Writing::Now
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_member_holds_its_keys_only_while_nobody_can_take_them() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let new = Lease::none(start);
        let renewed = |lease: &Lease, began, ended, alone| lease.renewed(at(began), at(ended), alone, HashMap::new());
        let writing = |lease: &Lease, millis| lease.writing(0, at(millis));
        assert_eq!(writing(&new, 0), Writing::No, "it has not joined");
        // Alone, once an earlier heartbeat was there to be seen; in company, once the others have noticed or lost their own keys.
        let first = renewed(&new, 0, 100, true);
        assert_eq!(writing(&first, 100), Writing::From(at(10_100)));
        assert_eq!(writing(&renewed(&first, 101, 200, true), 200), Writing::Now);
        let joined = renewed(&new, 0, 100, false);
        assert_eq!(writing(&joined, 200), Writing::From(at(10_100)));
        let mut held = joined;
        for n in 1..=6 {
            held = renewed(&held, n * 2000, n * 2000 + 10, false);
        }
        assert_eq!(writing(&held, 12_100), Writing::Now);
        // Not heard of, it has stopped before the others take over, who count from a later moment.
        assert_eq!(writing(&held, 19_999), Writing::Now);
        assert_eq!(writing(&held, 20_000), Writing::No);
        // A heartbeat that got through too late begins anew.
        let late = renewed(&held, 19_000, 20_500, false);
        assert_eq!(writing(&late, 20_600), Writing::From(at(30_500)));
        let slow = renewed(&held, 19_000, 19_900, false);
        assert_eq!(writing(&slow, 20_600), Writing::Now);
    }

    #[test]
    fn a_joiner_writes_once_it_has_read_what_the_others_began_until_they_saw_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let new = Lease::none(start);
        // Its heartbeats are slow: what it read began before the others must have seen it.
        let joined = new.renewed(at(0), at(100), false, HashMap::new());
        let joined = joined.renewed(at(6_000), at(6_100), false, HashMap::new());
        let slow = joined.renewed(at(7_900), at(11_000), false, HashMap::new());
        assert_eq!(slow.writing(0, at(11_000)), Writing::From(at(13_000)));
        let read = slow.renewed(at(11_100), at(11_200), false, HashMap::new());
        assert_eq!(read.writing(0, at(11_200)), Writing::Now);
    }
}
