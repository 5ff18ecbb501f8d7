use std::time::Duration;

use ironyard_types::Timestamp;
use sqlx::{AssertSqlSafe, Row};

use crate::{Db, Result};

/// What of a table is forgotten, and when. What is younger than [`Retention::LEAST`] never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Table.
    pub table: &'static str,
    /// Its key.
    pub key: &'static str,
    /// Which of its rows, in SQL: those that are over.
    pub over: &'static str,
    /// The column that says since when.
    pub since: &'static str,
    /// Rows are kept for this long.
    pub keep: Duration,
    /// And as many of the newest at most.
    pub most: i64,
}

/// Rows that are forgotten in one transaction: few, so that nobody waits for it.
const STEP: i64 = 500;
/// Transactions of one call: what is left is left for the next.
const STEPS: usize = 100;

impl Retention {
    /// Whatever is younger is kept, however much it is: somebody may still ask for it.
    pub const LEAST: Duration = Duration::from_secs(3600);

    /// Forgets what is due, a few rows at a time; how many.
    pub async fn apply(&self, db: &Db, now: Timestamp) -> Result<u64> {
        let Self {
            table,
            key,
            over,
            since,
            most,
            ..
        } = self;
        let ago = |time: Duration| now.0.saturating_sub(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
        let sql = format!("select {since} as since from {table} where {over} order by {since} desc limit 1 offset $1");
        let oldest = sqlx::query(AssertSqlSafe(sql)).bind(*most).fetch_optional(db.pool()).await?;
        let oldest = oldest.map(|row| row.try_get::<i64, _>("since")).transpose()?;
        let before = oldest
            .map_or(i64::MIN, |at| at.saturating_add(1))
            .max(ago(self.keep))
            .min(ago(Self::LEAST));
        let sql = format!("delete from {table} where {key} in (select {key} from {table} where {over} and {since} < $1 limit $2)");
        let mut forgotten = 0;
        for _ in 0..STEPS {
            let mut tx = db.begin().await?;
            let query = sqlx::query(AssertSqlSafe(sql.clone())).bind(before).bind(STEP);
            let step = query.execute(tx.conn()).await?.rows_affected();
            tx.commit().await?;
            forgotten += step;
            if step == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(forgotten)
    }
}
