use std::{sync::Arc, time::Duration};

use ironyard_db::{Db, Result, Tx, dialect::Dialect};
use ironyard_types::{Clock, Timestamp};
use sqlx::{AssertSqlSafe, Row};
use tokio::sync::Notify;

use crate::{Share, share};

/// A renewable hold on one key. The fence grows with every hold: a holder that lost its lease can change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Key.
    pub key: String,
    /// Fencing number.
    pub fence: i64,
    /// How often the pass has failed in a row.
    pub attempts: u32,
    dirty: i64,
}

/// A queue of keys that are due at some time.
#[derive(Clone)]
pub struct Queue {
    db: Db,
    name: &'static str,
    clock: Arc<dyn Clock>,
    pub(crate) wake: Arc<Notify>,
    lease: Duration,
    share: Option<Share>,
}

impl Queue {
    /// The queue of this name.
    pub fn new(db: Db, name: &'static str, clock: Arc<dyn Clock>) -> Self {
        // Ten seconds: a crashed replica's keys are taken over soon, and a renewal every three may be late twice.
        Self {
            db,
            name,
            clock,
            wake: Arc::default(),
            lease: Duration::from_secs(10),
            share: None,
        }
    }

    /// The same queue, of which each replica takes only its share.
    pub fn shared(self, share: Share) -> Self {
        Self {
            share: Some(share),
            ..self
        }
    }

    /// Name, for logs.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How long a lease lasts unless renewed.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Makes the key due now, even while a pass over it runs.
    pub async fn poke(&self, key: &str) -> Result<()> {
        self.poke_for(key, key).await
    }

    /// The same, for the replica that has `of`.
    pub async fn poke_for(&self, key: &str, of: &str) -> Result<()> {
        let mut tx = self.db.begin().await?;
        self.poke_in(&mut tx, key, of).await?;
        tx.commit().await?;
        self.wake.notify_one();
        Ok(())
    }

    /// The same, within the transaction that made it necessary. Call [`Queue::wake`] after the commit.
    pub async fn poke_in(&self, tx: &mut Tx, key: &str, of: &str) -> Result<()> {
        let again =
            "on conflict (queue, work_key) do update set due_at = excluded.due_at, dirty = work_item.dirty + 1, slot = excluded.slot";
        self.put_in(tx, key, of, again).await
    }

    /// Makes the key due now unless the queue has it.
    pub async fn know_in(&self, tx: &mut Tx, key: &str, of: &str) -> Result<()> {
        self.put_in(tx, key, of, "on conflict (queue, work_key) do nothing").await
    }

    async fn put_in(&self, tx: &mut Tx, key: &str, of: &str, otherwise: &str) -> Result<()> {
        let sql = format!(
            "insert into work_item (queue, work_key, due_at, lease_until, fence, dirty, attempts, slot)
            values ($1, $2, $3, 0, 0, 1, 0, $4)
            {otherwise}"
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(self.name)
            .bind(key.to_owned())
            .bind(self.clock.now().0)
            .bind(i64::try_from(share::slot(of)).unwrap_or(-1))
            .execute(tx.conn())
            .await?;
        Ok(())
    }

    /// Lets the loop look at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes up to `limit` keys that are due.
    pub async fn take(&self, limit: i64) -> Result<Vec<Lease>> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let sql = format!(
            "update work_item set lease_until = $1, fence = fence + 1
            where queue = $2 and work_key in (
                select work_key from work_item
                where queue = $2 and due_at <= $3 and lease_until <= $3{}
                order by due_at limit $4 {})
            returning work_key, fence, dirty, attempts",
            self.mine(),
            tx.dialect().skip_locked()
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(now.plus(self.lease).0)
            .bind(self.name)
            .bind(now.0)
            .bind(limit)
            .fetch_all(tx.conn())
            .await?;
        tx.commit().await?;
        rows.iter()
            .map(|row| {
                Ok(Lease {
                    key: row.try_get("work_key")?,
                    fence: row.try_get("fence")?,
                    attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
                    dirty: row.try_get("dirty")?,
                })
            })
            .collect()
    }

    /// Extends a lease; false when it was lost.
    pub async fn renew(&self, lease: &Lease) -> Result<bool> {
        self.write(
            "update work_item set lease_until = $4 where queue = $1 and work_key = $2 and fence = $3",
            lease,
            self.clock.now().plus(self.lease),
        )
        .await
    }

    /// Ends a pass that wants another one at `due`. A poke that came meanwhile makes it due now. False when the lease was lost.
    pub async fn again(&self, lease: &Lease, due: Timestamp, attempts: u32) -> Result<bool> {
        let sql = format!(
            "update work_item set lease_until = 0, attempts = {attempts},
            due_at = case when dirty > {} then due_at else $4 end
            where queue = $1 and work_key = $2 and fence = $3",
            lease.dirty
        );
        self.write(&sql, lease, due).await
    }

    /// Ends a pass that wants no other. A poke that came meanwhile keeps the key.
    pub async fn done(&self, lease: &Lease) -> Result<bool> {
        let sql = format!(
            "delete from work_item where queue = $1 and work_key = $2 and fence = $3 and dirty <= {} and $4 > 0",
            lease.dirty
        );
        if self.write(&sql, lease, self.clock.now()).await? {
            return Ok(true);
        }
        self.again(lease, self.clock.now(), 0).await
    }

    async fn write(&self, sql: &str, lease: &Lease, time: Timestamp) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let query = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .bind(self.name)
            .bind(lease.key.clone())
            .bind(lease.fence)
            .bind(time.0);
        let rows = query.execute(tx.conn()).await?.rows_affected();
        tx.commit().await?;
        Ok(rows > 0)
    }

    /// When the next key is due.
    pub async fn next_due(&self) -> Result<Option<Timestamp>> {
        let sql = format!(
            "select min(case when due_at > lease_until then due_at else lease_until end) as due from work_item where queue = $1{}",
            self.mine()
        );
        let row = sqlx::query(AssertSqlSafe(sql)).bind(self.name).fetch_one(self.db.pool()).await?;
        Ok(row.try_get::<Option<i64>, _>("due")?.map(Timestamp))
    }

    /// A condition on the rows that this replica takes.
    fn mine(&self) -> String {
        self.share.as_ref().map(|share| share.view().condition.clone()).unwrap_or_default()
    }

    /// At the start of a process: SQLite has one process, so every lease in it is that of one that died.
    pub async fn adopt(&self) -> Result<()> {
        if self.db.dialect() == Dialect::Sqlite {
            let mut tx = self.db.begin().await?;
            sqlx::query("update work_item set lease_until = 0, fence = fence + 1 where queue = $1")
                .bind(self.name)
                .execute(tx.conn())
                .await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
