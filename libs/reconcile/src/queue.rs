use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ironyard_db::{Db, Result, Tx, dialect::Dialect};
use serde_json::{Value, json};
use sqlx::{
    Any, AssertSqlSafe, Row,
    any::{AnyArguments, AnyRow},
    query::Query,
};
use tokio::{sync::Notify, time::Instant};

use crate::{Membership, membership};

/// A renewable hold on one key. The fence grows with every hold: a holder that lost its lease can change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Key.
    pub key: String,
    /// Fencing number: of two holds on one key, the later has the greater.
    pub fence: i64,
    /// How often the pass has failed in a row.
    pub attempts: u32,
    /// For how long it has failed in a row.
    pub failing_for: Duration,
    /// Until when it surely lasts, by this process's own clock.
    pub until: Instant,
    dirty: i64,
}

/// A queue of keys that are due at some time. Time is the database's: replicas whose clocks differ agree on who holds what.
#[derive(Clone)]
pub struct Queue {
    pub(crate) db: Db,
    name: &'static str,
    pub(crate) wake: Arc<Notify>,
    lease: Duration,
    membership: Option<Membership>,
    /// What a take returns beside the keys.
    taken: &'static str,
}

/// A key that an earlier process wanted to look at later is looked at after this at the latest: its clock may have been ahead.
const SOON: Duration = Duration::from_secs(60);

/// A key that is held is due when its pass has ended, be that late or not; one that is due and that nobody has taken stays as it is.
const ENQUEUE: &str = "on conflict (queue, work_key) do update set
    due_at = case when work_item.lease_until > {now} then work_item.due_at else {now} end,
    dirty = work_item.dirty + 1, slot = excluded.slot
    where work_item.due_at > {now} or work_item.lease_until > 0 or work_item.slot <> excluded.slot";
const ENQUEUE_NEW: &str = "on conflict (queue, work_key) do nothing";

impl Queue {
    /// The queue of this name.
    pub fn new(db: Db, name: &'static str) -> Self {
        // Ten seconds: a crashed replica's keys are taken over soon, and a renewal every three may be late twice.
        Self {
            db,
            name,
            wake: Arc::default(),
            lease: Duration::from_secs(10),
            membership: None,
            taken: "",
        }
    }

    /// The same queue, whose leases a crash of the database may forget: somebody else may then take a key that is held. That is right where
    /// a pass does nothing but what its fence guards.
    pub fn with_asynchronous_leases(self) -> Self {
        let taken = self.db.dialect().asynchronous_commit();
        Self { taken, ..self }
    }

    /// Whether every key is this replica's to take.
    pub(crate) fn alone(&self) -> bool {
        self.membership.as_ref().is_none_or(|membership| membership.view().alone())
    }

    /// The same queue, of which each replica takes only its share.
    pub fn shared(self, membership: Membership) -> Self {
        Self {
            membership: Some(membership),
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
    pub async fn enqueue(&self, key: &str) -> Result<()> {
        self.enqueue_for(key, key).await
    }

    /// The same, for the replica that has `of`.
    pub async fn enqueue_for(&self, key: &str, of: &str) -> Result<()> {
        let (sql, rows) = self.put(&BTreeMap::from([(key, of)]), ENQUEUE);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.name).bind(rows);
        self.in_one(self.timed(query)).await?;
        self.wake();
        Ok(())
    }

    /// The same, within the transaction that made it necessary. Call [`Queue::wake`] after the commit.
    pub async fn enqueue_in(&self, tx: &mut Tx, key: &str, of: &str) -> Result<()> {
        self.put_in(tx, &[(key, of)], ENQUEUE).await
    }

    /// The same for many keys.
    pub async fn enqueue_all_in(&self, tx: &mut Tx, keys: &[String]) -> Result<()> {
        let keys: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
        self.put_in(tx, &keys, ENQUEUE).await
    }

    /// Makes the key due now unless the queue has it.
    pub async fn enqueue_new_in(&self, tx: &mut Tx, key: &str, of: &str) -> Result<()> {
        self.put_in(tx, &[(key, of)], ENQUEUE_NEW).await
    }

    /// Makes those keys due now that the queue does not have.
    pub async fn enqueue_all_new(&self, keys: &[String]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        let all: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
        self.put_in(&mut tx, &all, ENQUEUE_NEW).await?;
        tx.commit().await?;
        self.wake();
        Ok(())
    }

    /// Keys, and of what they are; `otherwise` is for those that the queue has.
    async fn put_in(&self, tx: &mut Tx, keys: &[(&str, &str)], otherwise: &str) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        // In one order everywhere, so that two who put the same keys do not wait for each other; and each once.
        let (sql, rows) = self.put(&keys.iter().copied().collect(), otherwise);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.name).bind(rows);
        self.timed(query).execute(tx.conn()).await?;
        Ok(())
    }

    /// The statement that puts keys, and what it binds as its second parameter.
    fn put(&self, keys: &BTreeMap<&str, &str>, otherwise: &str) -> (String, String) {
        let dialect = self.db.dialect();
        let now = dialect.now(3);
        // SQLite wants a condition between a select and what is to be done on a conflict.
        let sql = format!(
            "insert into work_item (queue, work_key, due_at, lease_until, fence, dirty, attempts, slot)
            select $1, n.work_key, {now}, 0, 0, 1, 0, n.slot from ({}) n where 1 = 1 {}",
            dialect.rows(2, &[("work_key", "text"), ("slot", "bigint")]),
            otherwise.replace("{now}", &now)
        );
        let rows = keys.iter().map(|(key, of)| json!({"work_key": key, "slot": membership::slot(of)}));
        (sql, Value::Array(rows.collect()).to_string())
    }

    /// Binds the time, where the database does not know it by itself.
    fn timed<'q>(&self, query: Query<'q, Any, AnyArguments>) -> Query<'q, Any, AnyArguments> {
        match self.db.now() {
            Some(now) => query.bind(now.0),
            None => query,
        }
    }

    /// Lets the loop look at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes up to `limit` keys that are due. A key that is held is due again when its lease runs out.
    pub async fn take(&self, limit: i64) -> Result<Vec<Lease>> {
        let until = Instant::now() + self.lease;
        let dialect = self.db.dialect();
        let (now, greatest) = (dialect.now(4), dialect.greatest());
        let sql = format!(
            "update work_item set lease_until = {now} + $1, due_at = {now} + $1, fence = {greatest}(fence + 1, {now})
            where queue = $2 and work_key in (
                select work_key from work_item where queue = $2 and due_at <= {now}{} order by due_at limit $3 {})
            returning work_key, fence, dirty, attempts, coalesce({now} - failing_since, 0) as failing_for{}",
            self.mine(),
            dialect.skip_locked(),
            self.taken
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(micros(self.lease)).bind(self.name).bind(limit);
        let rows = self.in_one(self.timed(query)).await?;
        rows.iter()
            .map(|row| {
                let failing_for: i64 = row.try_get("failing_for")?;
                Ok(Lease {
                    key: row.try_get("work_key")?,
                    fence: row.try_get("fence")?,
                    attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
                    failing_for: Duration::from_micros(u64::try_from(failing_for).unwrap_or(0)),
                    until,
                    dirty: row.try_get("dirty")?,
                })
            })
            .collect()
    }

    /// One statement that writes, in a transaction of its own.
    async fn in_one(&self, query: Query<'_, Any, AnyArguments>) -> Result<Vec<AnyRow>> {
        match self.db.dialect() {
            Dialect::Postgres => Ok(query.fetch_all(self.db.pool()).await?),
            Dialect::Sqlite => {
                let mut tx = self.db.begin().await?;
                let rows = query.fetch_all(tx.conn()).await?;
                tx.commit().await?;
                Ok(rows)
            }
        }
    }

    /// Extends a lease; false when it was lost.
    pub async fn renew(&self, lease: &Lease) -> Result<bool> {
        let now = self.db.dialect().now(5);
        let sql = format!(
            "update work_item set lease_until = {now} + $4, due_at = {now} + $4
            where queue = $1 and work_key = $2 and fence = $3 returning fence"
        );
        Ok(self.write(&sql, lease, micros(self.lease)).await?.is_some())
    }

    /// Ends a pass that wants another one after `wait`; after how long it is due. One that was enqueued meanwhile is due now. Nothing when
    /// the lease was lost.
    pub async fn again(&self, lease: &Lease, wait: Duration, attempts: u32) -> Result<Option<Duration>> {
        let now = self.db.dialect().now(5);
        let failing = if attempts == 0 {
            "null".to_owned()
        } else {
            format!("coalesce(failing_since, {now})")
        };
        let sql = format!(
            "update work_item set lease_until = 0, attempts = {attempts}, failing_since = {failing},
            due_at = case when dirty > {} then {now} else {now} + $4 end
            where queue = $1 and work_key = $2 and fence = $3 returning case when dirty > {} then 0 else 1 end as waits{}",
            lease.dirty,
            lease.dirty,
            // What a crash forgets of this is a lease that runs out by itself.
            self.db.dialect().asynchronous_commit()
        );
        let row = self.write(&sql, lease, micros(wait)).await?;
        let waits = row.map(|row| {
            row.try_get::<i64, _>("waits")
                .or_else(|_| row.try_get::<i32, _>("waits").map(i64::from))
        });
        Ok(waits.transpose()?.map(|waits| if waits == 0 { Duration::ZERO } else { wait }))
    }

    /// Ends a pass that wants no other; after how long there is one. One that was enqueued meanwhile stays.
    pub async fn done(&self, lease: &Lease) -> Result<Option<Duration>> {
        let sql = format!(
            "delete from work_item where queue = $1 and work_key = $2 and fence = $3 and dirty <= {} and $4 = 0{} returning fence{}",
            lease.dirty,
            // SQLite counts its parameters.
            self.db.now().map_or("", |_| " and $5 > 0"),
            self.db.dialect().asynchronous_commit()
        );
        if self.write(&sql, lease, 0).await?.is_some() {
            return Ok(Some(Duration::MAX));
        }
        self.again(lease, Duration::ZERO, 0).await
    }

    async fn write(&self, sql: &str, lease: &Lease, time: i64) -> Result<Option<AnyRow>> {
        let query = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .bind(self.name)
            .bind(lease.key.clone())
            .bind(lease.fence)
            .bind(time);
        Ok(self.in_one(self.timed(query)).await?.pop())
    }

    /// Whether the lease is still held, as seen by a transaction; until its end nobody else takes the key.
    pub(crate) async fn holds(&self, tx: &mut Tx, lease: &Lease) -> Result<bool> {
        let sql = format!(
            "select fence from work_item where queue = $1 and work_key = $2 and fence = $3 {}",
            tx.dialect().for_update()
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(self.name)
            .bind(lease.key.clone())
            .bind(lease.fence)
            .fetch_optional(tx.conn())
            .await?;
        Ok(row.is_some())
    }

    /// How long until the next key is due; none: there is none.
    pub async fn next_due(&self) -> Result<Option<Duration>> {
        let sql = format!(
            "select due_at - {} as wait from work_item where queue = $1{} order by due_at limit 1",
            self.db.dialect().now(2),
            self.mine()
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.name);
        let row = self.timed(query).fetch_optional(self.db.pool()).await?;
        let wait = row.map(|row| row.try_get::<i64, _>("wait")).transpose()?;
        Ok(wait.map(|wait| Duration::from_micros(u64::try_from(wait).unwrap_or(0))))
    }

    /// A condition on the rows that this replica takes.
    fn mine(&self) -> String {
        self.membership
            .as_ref()
            .map(|membership| membership.view().condition.clone())
            .unwrap_or_default()
    }

    /// At the start of a process: SQLite has one process, so every lease in it is that of one that died.
    pub async fn adopt(&self) -> Result<()> {
        let Some(now) = self.db.now() else { return Ok(()) };
        let query = sqlx::query(
            "update work_item set fence = fence + 1, lease_until = 0, due_at = case when lease_until > 0 then $2 else min(due_at, $3) end
            where queue = $1",
        );
        let query = query.bind(self.name).bind(now.0).bind(now.plus(SOON).0);
        let mut tx = self.db.begin().await?;
        query.execute(tx.conn()).await?;
        tx.commit().await
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}
