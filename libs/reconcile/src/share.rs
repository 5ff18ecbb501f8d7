//! Which of the replicas that share a database has which keys.
//!
//! Keys fall into slots, and each slot belongs to the replica that scores highest for it (rendezvous hashing): one that comes or goes moves its
//! own share and nothing else. Replicas may disagree for a moment after that; leases and versions make it harmless.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ironyard_db::{Db, Result, dialect::Dialect};
use ironyard_types::{random_id, sha256_hex};
use sqlx::Row;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Many more than replicas, so that shares are about even; few enough to be listed in a statement.
const SLOTS: usize = 256;
/// How often a replica says that it is there.
const BEAT: Duration = Duration::from_secs(2);
/// One that has not said so for this long has lost its share: as long as the leases that it held.
const SILENCE: Duration = Duration::from_secs(10);
/// One that has not said so for this long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A process that shares the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Another one with every start.
    pub id: String,
    /// Where its peers reach it; empty: nowhere.
    pub address: String,
}

/// The slot of a key.
pub fn slot(key: &str) -> usize {
    usize::try_from(number(key) % SLOTS as u64).unwrap_or(0)
}

fn number(text: &str) -> u64 {
    let hash = sha256_hex(text.as_bytes());
    hash.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
}

/// Who is there, and who has what, as one replica sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    me: String,
    members: Vec<Member>,
    /// The member that has each slot.
    owners: Vec<usize>,
    /// A condition on rows that have a slot: those of this one, and those that were stored before there were slots. Empty: all.
    pub(crate) condition: String,
}

impl View {
    /// What `me` and `others` have. Whoever is asked, and in whichever order: the answer is the same.
    pub fn new(me: Member, others: impl IntoIterator<Item = Member>) -> Self {
        let id = me.id.clone();
        let mut members: Vec<Member> = others.into_iter().filter(|m| m.id != id).chain([me]).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let best = |slot: usize| {
            let score = |member: &Member| (number(&format!("{slot} {}", member.id)), member.id.clone());
            (0..members.len()).max_by_key(|n| members.get(*n).map(score)).unwrap_or(0)
        };
        let owners: Vec<usize> = (0..SLOTS).map(best).collect();
        let condition = if members.len() < 2 {
            String::new()
        } else {
            let me = members.iter().position(|m| m.id == id);
            let mine = owners.iter().enumerate().filter(|(_, owner)| Some(**owner) == me);
            let list: String = mine.map(|(slot, _)| format!(",{slot}")).collect();
            format!(" and slot in (-1{list})")
        };
        Self {
            me: id,
            members,
            owners,
            condition,
        }
    }

    /// The one that has a key; none: this one.
    pub fn elsewhere(&self, key: &str) -> Option<&Member> {
        self.of_slot(slot(key)).filter(|owner| owner.id != self.me)
    }

    /// Whether this one has a key.
    pub fn is_mine(&self, key: &str) -> bool {
        self.elsewhere(key).is_none()
    }

    /// Whether there is no other.
    pub fn alone(&self) -> bool {
        self.members.len() < 2
    }

    /// Whether it is there.
    pub fn has(&self, id: &str) -> bool {
        self.members.iter().any(|m| m.id == id)
    }

    /// Whether one is there at this address.
    pub fn reaches(&self, address: &str) -> bool {
        self.members.iter().any(|m| m.address == address)
    }

    fn of_slot(&self, slot: usize) -> Option<&Member> {
        self.owners.get(slot).and_then(|n| self.members.get(*n))
    }
}

/// This replica's part in the work. Until it has joined, it is the only one that it knows of.
#[derive(Clone)]
pub struct Share {
    db: Db,
    me: Member,
    now: Arc<watch::Sender<Arc<View>>>,
}

/// What was last heard of each replica. Counts are compared, not times: the replicas' clocks may differ.
pub struct Heard {
    counts: HashMap<String, (i64, Instant)>,
    /// When this replica last read them: who cannot hear is no judge of silence.
    read: Instant,
}

impl Heard {
    /// The replicas that are there, and those that may be forgotten, as read now.
    fn judge(&mut self, rows: Vec<(Member, i64)>, now: Instant) -> (Vec<Member>, Vec<(Member, i64)>) {
        let deaf = now.duration_since(self.read) > SILENCE / 2;
        self.read = now;
        let there: HashSet<String> = rows.iter().map(|(member, _)| member.id.clone()).collect();
        self.counts.retain(|id, _| there.contains(id));
        let (mut alive, mut forgotten) = (Vec::new(), Vec::new());
        for (member, beat) in rows {
            let (last, at) = self.counts.entry(member.id.clone()).or_insert((beat, now));
            if *last != beat || deaf {
                (*last, *at) = (beat, now);
            }
            let silence = now.duration_since(*at);
            if silence <= SILENCE {
                alive.push(member);
            } else if silence > FORGOTTEN {
                forgotten.push((member, beat));
            }
        }
        (alive, forgotten)
    }
}

impl Share {
    /// A replica that its peers reach at this address; empty: nowhere.
    pub fn new(db: Db, address: impl Into<String>) -> Self {
        let me = Member {
            id: random_id(),
            address: address.into(),
        };
        let now = Arc::new(View::new(me.clone(), []));
        Self {
            db,
            me,
            now: Arc::new(watch::Sender::new(now)),
        }
    }

    /// Who has what now.
    pub fn view(&self) -> Arc<View> {
        self.now.borrow().clone()
    }

    /// Waits until `until` holds.
    pub async fn when(&self, mut until: impl FnMut(&View) -> bool) {
        let _ = self.now.subscribe().wait_for(|now| until(now)).await;
    }

    /// Tells the others that it is there, and learns of them. An error only costs time: it is done again and again.
    pub async fn join(&self) -> Heard {
        let mut heard = Heard {
            counts: HashMap::new(),
            read: Instant::now(),
        };
        self.try_beat(&mut heard).await;
        heard
    }

    /// Stays in touch until `shutdown`.
    pub async fn run(&self, mut heard: Heard, shutdown: CancellationToken) {
        // SQLite has one process.
        if self.db.dialect() == Dialect::Sqlite {
            return shutdown.cancelled().await;
        }
        while tokio::time::timeout(BEAT, shutdown.cancelled()).await.is_err() {
            self.try_beat(&mut heard).await;
        }
    }

    /// Gives its share to the others, once it holds nothing of it any more.
    pub async fn leave(&self) {
        let outcome = sqlx::query("delete from replica where replica_id = $1")
            .bind(self.me.id.clone())
            .execute(self.db.pool())
            .await;
        if let Err(error) = outcome {
            warn!(%error, "could not leave; the others notice by themselves");
        }
    }

    async fn try_beat(&self, heard: &mut Heard) {
        if let Err(error) = self.beat(heard).await {
            warn!(%error, "could not tell the other replicas that this one is there");
        }
    }

    async fn beat(&self, heard: &mut Heard) -> Result<()> {
        if self.db.dialect() == Dialect::Sqlite {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "insert into replica (replica_id, address, beat) values ($1, $2, 1)
            on conflict (replica_id) do update set beat = replica.beat + 1",
        )
        .bind(self.me.id.clone())
        .bind(self.me.address.clone())
        .execute(tx.conn())
        .await?;
        let rows = sqlx::query("select replica_id, address, beat from replica")
            .fetch_all(tx.conn())
            .await?;
        let rows = rows.iter().map(|row| {
            let (id, address) = (row.try_get("replica_id")?, row.try_get("address")?);
            Ok((Member { id, address }, row.try_get("beat")?))
        });
        let (others, forgotten) = heard.judge(rows.collect::<Result<_>>()?, Instant::now());
        for (member, beat) in forgotten {
            sqlx::query("delete from replica where replica_id = $1 and beat = $2")
                .bind(member.id)
                .bind(beat)
                .execute(tx.conn())
                .await?;
        }
        tx.commit().await?;
        let view = View::new(self.me.clone(), others);
        self.now.send_if_modified(|now| {
            let changed = **now != view;
            if changed {
                tracing::info!(replicas = view.members.len(), "the replicas that share the work are others now");
                *now = Arc::new(view);
            }
            changed
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: usize) -> Member {
        Member {
            id: format!("replica-{n}"),
            address: format!("http://127.0.0.1:{n}"),
        }
    }

    fn views(count: usize) -> Vec<View> {
        (0..count).map(|me| View::new(member(me), (0..count).rev().map(member))).collect()
    }

    #[test]
    fn every_key_has_one_owner_on_whom_all_agree() {
        for count in 1..=5 {
            let views = views(count);
            let mut shares = vec![0_usize; count];
            for key in (0..10_000).map(|n| format!("bmc-{n}")) {
                let owners: Vec<usize> = (0..count).filter(|n| views[*n].is_mine(&key)).collect();
                assert_eq!(owners.len(), 1, "{key} of {count}");
                shares[owners[0]] += 1;
                for view in &views {
                    let owner = view.elsewhere(&key).unwrap_or(&member(owners[0])).id.clone();
                    assert_eq!(owner, member(owners[0]).id, "{key} of {count}");
                }
            }
            let (fair, most) = (10_000 / count, shares.iter().max().copied().unwrap_or_default());
            assert!(most < fair * 3 / 2, "{shares:?}");
        }
    }

    #[test]
    fn silence_is_what_was_listened_to() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heard = Heard {
            counts: HashMap::new(),
            read: start,
        };
        let mut alive = |seconds, beats: [i64; 2]| {
            let rows = (0..2).map(|n| (member(n), beats[n])).collect();
            let (alive, forgotten) = heard.judge(rows, at(seconds));
            (alive.len(), forgotten.len())
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

    #[test]
    fn one_that_goes_moves_its_own_share_only() {
        let before = View::new(member(0), (0..4).map(member));
        let after = View::new(member(0), (0..3).map(member));
        for slot in 0..SLOTS {
            let owner = before.of_slot(slot).unwrap();
            if owner.id != member(3).id {
                assert_eq!(after.of_slot(slot), Some(owner));
            }
        }
    }

    #[test]
    fn the_condition_lists_what_is_mine() {
        assert_eq!(View::new(member(0), []).condition, "");
        let views = views(3);
        let listed = |view: &View| {
            let condition = view.condition.clone();
            let list = condition
                .strip_prefix(" and slot in (-1")
                .unwrap()
                .strip_suffix(')')
                .unwrap()
                .to_owned();
            list.split(',').skip(1).map(|n| n.parse::<usize>().unwrap()).collect::<Vec<_>>()
        };
        let mut all: Vec<usize> = views.iter().flat_map(listed).collect();
        all.sort_unstable();
        assert_eq!(all, (0..SLOTS).collect::<Vec<_>>());
    }
}
