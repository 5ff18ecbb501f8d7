//! The change feed: what changed, in an order that a watcher can resume from without losing anything.
//!
//! On PostgreSQL transactions commit in another order than they write; a watcher reads only rows below the oldest running
//! transaction, ordered by transaction, so nothing can appear behind it.

use std::time::Duration;

use ironyard_types::Timestamp;
use sqlx::{AssertSqlSafe, Row};

use crate::{Db, Result, Tx};

/// A place in the feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    tx: i64,
    seq: i64,
}

impl Position {
    /// Reads a token.
    pub fn parse(token: &str) -> Option<Self> {
        let (tx, seq) = token.split_once('.')?;
        Some(Self {
            tx: tx.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.tx, self.seq)
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub position: Position,
    /// Which resource.
    pub name: String,
    /// Which very one.
    pub uid: String,
    /// Whether it is gone.
    pub deleted: bool,
}

pub(crate) async fn append(tx: &mut Tx, kind: &'static str, name: &str, uid: &str, deleted: bool, now: Timestamp) -> Result<()> {
    sqlx::query("insert into change (kind, name, uid, deleted, created_at) values ($1, $2, $3, $4, $5)")
        .bind(kind)
        .bind(name)
        .bind(uid)
        .bind(i64::from(deleted))
        .bind(now.0)
        .execute(tx.conn())
        .await?;
    tx.feed_grew = true;
    Ok(())
}

/// The place after everything that has settled.
pub async fn head(db: &Db) -> Result<Position> {
    let sql = format!(
        "select tx, seq from change where {} order by tx desc, seq desc limit 1",
        db.dialect().feed_settled()
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(db.pool()).await?;
    match row {
        Some(row) => Ok(Position {
            tx: row.try_get("tx")?,
            seq: row.try_get("seq")?,
        }),
        None => floor(db).await,
    }
}

/// What has settled after `position`, for one kind of resource; at most 256 changes.
pub async fn after(db: &Db, kind: &'static str, position: Position) -> Result<Vec<Change>> {
    let sql = format!(
        "select tx, seq, name, uid, deleted from change
        where kind = $1 and (tx > $2 or (tx = $2 and seq > $3)) and {}
        order by tx, seq limit 256",
        db.dialect().feed_settled()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(kind)
        .bind(position.tx)
        .bind(position.seq)
        .fetch_all(db.pool())
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Change {
                position: Position {
                    tx: row.try_get("tx")?,
                    seq: row.try_get("seq")?,
                },
                name: row.try_get("name")?,
                uid: row.try_get("uid")?,
                deleted: row.try_get::<i64, _>("deleted")? != 0,
            })
        })
        .collect()
}

/// The place below which changes have been forgotten: a watcher that stands lower must begin again.
pub async fn floor(db: &Db) -> Result<Position> {
    let row = sqlx::query("select value from fact where fact_id = 'change_floor'")
        .fetch_optional(db.pool())
        .await?;
    let value: Option<String> = row.map(|r| r.try_get("value")).transpose()?;
    Ok(value.as_deref().and_then(Position::parse).unwrap_or_default())
}

/// Forgets changes older than `keep`.
pub async fn prune(db: &Db, now: Timestamp, keep: Duration) -> Result<()> {
    let before = now.0.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
    let mut tx = db.begin().await?;
    let row = sqlx::query("select tx, seq from change where created_at < $1 order by tx desc, seq desc limit 1")
        .bind(before)
        .fetch_optional(tx.conn())
        .await?;
    if let Some(row) = row {
        let floor = Position {
            tx: row.try_get("tx")?,
            seq: row.try_get("seq")?,
        };
        sqlx::query(
            "insert into fact (fact_id, value) values ('change_floor', $1) on conflict (fact_id) do update set value = excluded.value",
        )
        .bind(floor.to_string())
        .execute(tx.conn())
        .await?;
        sqlx::query("delete from change where tx < $1 or (tx = $1 and seq <= $2)")
            .bind(floor.tx)
            .bind(floor.seq)
            .execute(tx.conn())
            .await?;
    }
    tx.commit().await
}
