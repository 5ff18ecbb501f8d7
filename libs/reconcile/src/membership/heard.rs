//! What a replica hears of the others, and what follows from it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{FORGOTTEN, HOLD, SILENCE, view::Member};

/// What a replica has told of itself.
pub(super) struct ReplicaRow {
    pub(super) member: Member,
    pub(super) beat: i64,
    /// The slots that it writes for.
    pub(super) writing: String,
}

/// What follows from what was heard.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) alive: Vec<Member>,
    /// By id and count.
    pub(super) forgotten: Vec<(String, i64)>,
    /// Slots that are written for, and until when if the one that does is not heard of again.
    pub(super) writing: HashMap<usize, Instant>,
}

/// A count, when it was heard, and since when the replica counts as silent: not before this one listened.
struct Count {
    pub(super) beat: i64,
    heard: Instant,
    silent_since: Instant,
}

/// What was last heard of each replica. Counts are compared, not times: the replicas' clocks may differ.
pub struct Heard {
    counts: HashMap<String, Count>,
    /// When this replica last read them: who cannot hear is no judge of silence.
    read: Instant,
    write_timeout: Duration,
}

impl Heard {
    /// Nothing yet.
    pub(super) fn nothing(now: Instant, write_timeout: Duration) -> Self {
        Self {
            counts: HashMap::new(),
            read: now,
            write_timeout,
        }
    }

    /// The replicas that are there, those that may be forgotten, and when each was last heard of, as read now.
    pub(super) fn judge(&mut self, rows: &[ReplicaRow], began: Instant, now: Instant) -> Judged {
        let deaf = now.duration_since(self.read) > SILENCE / 2;
        self.read = now;
        let there: HashSet<&str> = rows.iter().map(|row| row.member.id.as_str()).collect();
        self.counts.retain(|id, _| there.contains(id.as_str()));
        let mut judged = Judged::default();
        for row in rows {
            let count = self.counts.entry(row.member.id.clone()).or_insert(Count {
                beat: row.beat,
                heard: now,
                silent_since: now,
            });
            if count.beat != row.beat {
                (count.beat, count.heard, count.silent_since) = (row.beat, now, now);
            } else if deaf {
                count.silent_since = now;
            }
            // Until the read began: what was written while it went on may not be in it.
            if began.saturating_duration_since(count.silent_since) <= SILENCE {
                judged.alive.push(row.member.clone());
            } else if began.saturating_duration_since(count.heard) > FORGOTTEN + self.write_timeout {
                judged.forgotten.push((row.member.id.clone(), row.beat));
            }
            // It may have sent something for as long as it held its keys, and then that takes its time. The same count: nothing came since.
            let over = count.heard + HOLD + self.write_timeout;
            for slot in row.writing.split(',').filter_map(|slot| slot.parse().ok()) {
                let until = judged.writing.entry(slot).or_insert(over);
                *until = over.max(*until);
            }
        }
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            HEARTBEAT,
            lease::{Lease, Writing},
            view::tests::member,
        },
        *,
    };

    fn row(n: usize, beat: i64, writing: &str) -> ReplicaRow {
        ReplicaRow {
            member: member(n),
            beat,
            writing: writing.to_owned(),
        }
    }

    #[test]
    fn silence_is_what_was_listened_to() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heard = Heard::nothing(start, Duration::ZERO);
        let mut alive = |seconds, beats: [i64; 2]| {
            let rows = [0, 1].map(|n| row(n, beats[n], ""));
            let judged = heard.judge(&rows, at(seconds), at(seconds));
            (judged.alive.len(), judged.forgotten.len())
        };
        assert_eq!(alive(0, [1, 1]), (2, 0));
        // One goes on, one does not.
        for n in 1..=5 {
            assert_eq!(alive(n * 2, [1 + i64::try_from(n).unwrap(), 1]), (2, 0));
        }
        assert_eq!(alive(12, [7, 1]), (1, 0));
        // Whoever heard nothing for a while begins anew.
        assert_eq!(alive(40, [7, 1]), (2, 0));
        for n in 21..=25 {
            assert_eq!(alive(n * 2, [7, 2]), (2, 0));
        }
        assert_eq!(alive(54, [8, 2]), (1, 0));
        for n in 28..=51 {
            assert_eq!(alive(n * 2, [i64::try_from(n).unwrap(), 2]), (1, 0));
        }
        assert_eq!(alive(104, [52, 2]), (1, 1));
    }

    /// Whatever two replicas hear of each other and when: never may both write.

    #[test]
    fn a_key_that_is_written_for_is_taken_over_once_that_is_over() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heard = Heard::nothing(start, Duration::from_secs(30));
        let mut lease = Lease::none(start);
        let mut beat = |seconds, count, writing| {
            let judged = heard.judge(&[row(1, count, writing)], at(seconds), at(seconds));
            lease = lease.renewed(at(seconds), at(seconds), judged.alive.is_empty(), judged.writing);
            (lease.writing(3, at(seconds)), lease.writing(4, at(seconds)), judged.forgotten.len())
        };
        let not_yet = |seconds| Writing::From(at(seconds) + HEARTBEAT);
        for n in 0..5 {
            assert_eq!(beat(n * 2, i64::try_from(n).unwrap(), "3,7").0, Writing::From(at(10)));
        }
        // It has joined; the other one goes on with what it had begun, for as long as it says so.
        for n in 5..9 {
            assert_eq!(beat(n * 2, i64::try_from(n).unwrap(), "3,7"), (not_yet(n * 2), Writing::Now, 0));
        }
        assert_eq!(beat(18, 9, "7"), (Writing::Now, Writing::Now, 0));
        // It writes again, as it may before it has seen who joined, and is not heard of any more.
        for n in 10..29 {
            assert_eq!(beat(n * 2, 10, "3"), (not_yet(n * 2), Writing::Now, 0), "{n}");
        }
        for n in 29..56 {
            assert_eq!(beat(n * 2, 10, "3"), (Writing::Now, Writing::Now, 0), "{n}");
        }
        assert_eq!(beat(112, 10, "3").2, 1);
    }
}
