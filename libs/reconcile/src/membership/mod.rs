//! Which of the replicas that share a database has which keys.
//!
//! Keys fall into slots, and each slot belongs to the replica that scores highest for it (rendezvous hashing): one that comes or goes moves its
//! own share and nothing else. Replicas may disagree on that for a moment, so a view alone permits nothing: what nobody else may do at the same
//! time, such as writing to a BMC, is asked of [`Membership::writing`] right before. A member has its keys only for as long as the others, who hear
//! nothing of it, would not take them; and one that has just come has them only once nobody can believe any more that they are another's.
//!
//! A write may take longer than all that. So each is told to the others before it begins ([`Membership::begin_write`]), and whoever takes over a key waits
//! until it is over; of one that is not heard of any more, until it must be.

mod heard;
mod lease;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use heard::Heard;
use heard::ReplicaRow;
use ironyard_db::{Db, Result, dialect::Dialect};
use ironyard_types::random_id;
use lease::Lease;
pub use lease::Writing;
use sqlx::Row;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use view::number;
pub use view::{Member, View, slot};

/// How often a replica says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// One that has not said so for this long has lost its keys to the others: as long as the leases that it held.
const SILENCE: Duration = Duration::from_secs(10);
/// For how long a member has its keys since it last began to say that it is there: what it sent at the last moment is over when they are taken.
const HOLD: Duration = Duration::from_secs(8);
/// One that has not said so for this long is forgotten, and longer if it may still be writing.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// This replica among those that share the work. Until it has joined, it is the only one that it knows of, and writes nothing.
#[derive(Clone)]
pub struct Membership {
    db: Db,
    me: Member,
    now: Arc<watch::Sender<Arc<View>>>,
    lease: Arc<Mutex<Lease>>,
    /// How many writes go on in each slot here.
    writes: Arc<Mutex<BTreeMap<usize, usize>>>,
    /// The slots that this one's row says it is writing for, which is written by one at a time; none: not known.
    announced: Arc<tokio::sync::Mutex<Option<String>>>,
    /// How long a write takes at most, once it was sent.
    write_timeout: Duration,
}

/// A write that goes on, which the others have been told of, until this is dropped.
pub struct WriteGuard {
    slot: usize,
    all: Arc<Mutex<BTreeMap<usize, usize>>>,
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.slot) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.slot);
            }
        }
    }
}

fn listed(slots: &BTreeMap<usize, usize>) -> String {
    slots.keys().map(usize::to_string).collect::<Vec<_>>().join(",")
}

impl Membership {
    /// A replica that its peers reach at this address (empty: nowhere), and none of whose writes takes longer than that once it was sent.
    pub fn new(db: Db, address: impl Into<String>, write_timeout: Duration) -> Self {
        let me = Member {
            id: random_id(),
            address: address.into(),
        };
        let view = Arc::new(View::new(me.clone(), []));
        let now = Instant::now();
        Self {
            db,
            me,
            now: Arc::new(watch::Sender::new(view)),
            lease: Arc::new(Mutex::new(Lease::none(now))),
            writes: Arc::default(),
            announced: Arc::default(),
            write_timeout,
        }
    }

    /// Who has what now.
    pub fn view(&self) -> Arc<View> {
        self.now.borrow().clone()
    }

    /// Its id, for logs: another one with every start.
    pub fn id(&self) -> &str {
        &self.me.id
    }

    /// Whether this replica, and no other, may write for a key; to be asked again right before it does.
    pub fn writing(&self, key: &str) -> Writing {
        // SQLite has one process.
        if self.db.dialect() == Dialect::Sqlite {
            return Writing::Now;
        }
        let lease = self.lease();
        if !self.view().is_mine(key) {
            return Writing::No;
        }
        lease.writing(slot(key), Instant::now())
    }

    /// Tells the others of a write, which may begin then. An error: they do not know of it, so it may not.
    pub async fn begin_write(&self, key: &str) -> Result<WriteGuard> {
        let slot = slot(key);
        *self.writing_now().entry(slot).or_default() += 1;
        let guard = WriteGuard {
            slot,
            all: self.writes.clone(),
        };
        // SQLite has one process.
        if self.db.dialect() == Dialect::Sqlite {
            return Ok(guard);
        }
        // Those who wait for their turn are told of with it.
        let mut announced = self.announced.lock().await;
        let is_announced = announced
            .as_ref()
            .is_some_and(|announced| announced.split(',').any(|one| one.parse() == Ok(slot)));
        if !is_announced {
            let now = listed(&self.writing_now());
            *announced = None;
            let announce = tokio::time::timeout(HEARTBEAT, self.announce(&now));
            announce.await.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))??;
            *announced = Some(now);
        }
        Ok(guard)
    }

    /// Writes down what this one writes for. In a transaction: what is given up before it commits never comes late, after a longer list.
    async fn announce(&self, writing: &str) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let row = sqlx::query("update replica set writing = $2 where replica_id = $1")
            .bind(self.me.id.clone())
            .bind(writing.to_owned())
            .execute(tx.conn())
            .await?;
        if row.rows_affected() == 0 {
            return Err(sqlx::Error::RowNotFound.into());
        }
        tx.commit().await
    }

    fn writing_now(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it may write, or is to be asked again, if it has only just come.
    pub fn writes_from(&self) -> Option<Instant> {
        match self.lease().joined(Instant::now()) {
            Writing::From(then) => Some(then),
            Writing::Now | Writing::No => None,
        }
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until` holds.
    pub async fn when(&self, mut until: impl FnMut(&View) -> bool) {
        let _ = self.now.subscribe().wait_for(|now| until(now)).await;
    }

    /// Tells the others that it is there, and learns of them. An error only costs time: it is done again and again.
    pub async fn join(&self) -> Heard {
        tracing::info!(replica.id = self.me.id, replica.address = self.me.address, "is a replica");
        let mut heard = Heard::nothing(Instant::now(), self.write_timeout);
        // Twice: who is alone after its first one was seen may write at once.
        self.try_heartbeat(&mut heard).await;
        self.try_heartbeat(&mut heard).await;
        heard
    }

    /// Stays in touch until `shutdown`.
    pub async fn run(&self, mut heard: Heard, shutdown: CancellationToken) {
        // SQLite has one process.
        if self.db.dialect() == Dialect::Sqlite {
            return shutdown.cancelled().await;
        }
        while tokio::time::timeout(HEARTBEAT, shutdown.cancelled()).await.is_err() {
            self.try_heartbeat(&mut heard).await;
        }
    }

    /// Gives its keys to the others, once it holds nothing of them any more. What it is still writing for they take when that must be over.
    pub async fn leave(&self) {
        self.lease().until = Instant::now();
        let mut announced = self.announced.lock().await;
        *announced = None;
        let left = listed(&self.writing_now());
        if !left.is_empty() {
            if let Err(error) = self.announce(&left).await {
                warn!(%error, "could not tell what is still being written");
            }
            return;
        }
        let outcome = sqlx::query("delete from replica where replica_id = $1")
            .bind(self.me.id.clone())
            .execute(self.db.pool())
            .await;
        if let Err(error) = outcome {
            warn!(%error, "could not leave; the others notice by themselves");
        }
    }

    async fn try_heartbeat(&self, heard: &mut Heard) {
        // One that hangs must not use up the time of those after it.
        match tokio::time::timeout(HOLD / 2, self.heartbeat(heard)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not tell the other replicas that this one is there"),
            Err(_) => warn!("the database took too long to be told that this replica is there"),
        }
    }

    /// What a heartbeat that began then has brought. What is one's own, and for how long, is one answer.
    fn take(&self, mut view: View, writing: HashMap<usize, Instant>, began: Instant) {
        let mut lease = self.lease();
        let (alone, ended) = (view.alone(), Instant::now());
        view.epoch = self.view().epoch + u64::from(lease.is_over(ended));
        self.now.send_if_modified(|now| {
            let changed = **now != view;
            if changed {
                tracing::info!(replicas = view.members.len(), "the replicas that share the work are others now");
                *now = Arc::new(view);
            }
            changed
        });
        *lease = lease.renewed(began, ended, alone, writing);
    }

    async fn heartbeat(&self, heard: &mut Heard) -> Result<()> {
        if self.db.dialect() == Dialect::Sqlite {
            return Ok(());
        }
        let began = Instant::now();
        let mut announced = self.announced.lock().await;
        let now = listed(&self.writing_now());
        *announced = None;
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "insert into replica (replica_id, address, beat, writing) values ($1, $2, $3, $4)
            on conflict (replica_id) do update set beat = replica.beat + 1, writing = excluded.writing",
        )
        .bind(self.me.id.clone())
        .bind(self.me.address.clone())
        // Not a number that others remember of a row that was forgotten.
        .bind(i64::try_from(number(&random_id()) >> 2).unwrap_or(1))
        .bind(now.clone())
        .execute(tx.conn())
        .await?;
        let rows = sqlx::query("select replica_id, address, beat, writing from replica where replica_id <> $1")
            .bind(self.me.id.clone())
            .fetch_all(tx.conn())
            .await?;
        let rows = rows.iter().map(|row| {
            let (id, address) = (row.try_get("replica_id")?, row.try_get("address")?);
            let (member, beat, writing) = (Member { id, address }, row.try_get("beat")?, row.try_get("writing")?);
            Ok(ReplicaRow { member, beat, writing })
        });
        let judged = heard.judge(&rows.collect::<Result<Vec<_>>>()?, began, Instant::now());
        tx.commit().await?;
        *announced = Some(now);
        drop(announced);
        self.take(View::new(self.me.clone(), judged.alive), judged.writing, began);
        for (id, beat) in judged.forgotten {
            // Not at any price: a lock that somebody left behind must not keep this one from the next heartbeat.
            let free = "select replica_id from replica where replica_id = $1 and beat = $2 for update skip locked";
            let delete = format!("delete from replica where replica_id in ({free})");
            sqlx::query(sqlx::AssertSqlSafe(delete))
                .bind(id)
                .bind(beat)
                .execute(self.db.pool())
                .await?;
        }
        Ok(())
    }
}
