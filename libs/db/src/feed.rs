//! The change feed: what changed, in an order that a watcher can resume from without losing anything.
//!
//! A change gets its place once its transaction has committed, so nothing can appear behind a reader, whatever other transactions do. A
//! reader's position names a place and the change that stood there. Where that change is not to be found any more (it was forgotten, or the
//! database was restored or emptied), the reader is told to begin again.

use std::time::{Duration, Instant};

use ironyard_types::{Timestamp, random_id, sha256_hex};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row, any::AnyRow};

use crate::{Db, Result, Tx, dialect::Dialect};

/// Changes that are read at once.
const BATCH: i64 = 512;
/// Changes that are forgotten at once: few enough that no other writer waits.
const FORGET: i64 = 2000;

/// A place in the feed, and a mark of the change that stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    place: i64,
    mark: u64,
}

impl Position {
    /// Reads a token.
    pub fn parse(token: &str) -> Option<Self> {
        let (place, mark) = token.split_once('.')?;
        Some(Self {
            place: place.parse().ok()?,
            mark: u64::from_str_radix(mark, 16).ok()?,
        })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:x}", self.place, self.mark)
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub position: Position,
    /// Table of the resource.
    pub kind: String,
    /// Which resource.
    pub name: String,
    /// Which very one.
    pub uid: String,
    /// Version that it has since.
    pub version: i64,
    /// Whether it is gone.
    pub deleted: bool,
}

impl Change {
    fn read(row: &AnyRow) -> Result<Self> {
        let (place, seq, created_at): (i64, i64, i64) = (row.try_get("place")?, row.try_get("seq")?, row.try_get("created_at")?);
        let uid: String = row.try_get("uid")?;
        let version: i64 = row.try_get("version")?;
        let digest = sha256_hex(format!("{seq} {created_at} {uid} {version}").as_bytes());
        let mark = digest.get(..12).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        Ok(Self {
            position: Position { place, mark },
            kind: row.try_get("kind")?,
            name: row.try_get("name")?,
            uid,
            version,
            deleted: row.try_get::<i64, _>("deleted")? != 0,
        })
    }
}

/// Who or what changed, to be told to the feed.
pub(crate) struct Subject<'a> {
    pub kind: &'static str,
    pub name: &'a str,
    pub uid: &'a str,
    pub version: i64,
    pub deleted: bool,
}

impl Subject<'_> {
    /// A statement that writes one record, and tells the feed of it where the database takes both at once. The parameters that are named
    /// carry what the feed is told.
    pub(crate) fn with_write(dialect: Dialect, kind: &str, write: &str, [name, uid, version, now]: [&str; 4], deleted: bool) -> String {
        match dialect {
            Dialect::Sqlite => write.to_owned(),
            Dialect::Postgres => format!(
                "with written as ({write} returning 1)
                insert into change (kind, name, uid, version, deleted, created_at)
                select '{kind}', {name}, {uid}, {version}, {}, {now} from written",
                i64::from(deleted)
            ),
        }
    }
}

/// After such a statement: tells the feed where the statement has not.
pub(crate) async fn written(tx: &mut Tx, subjects: &[Subject<'_>], now: Timestamp) -> Result<()> {
    match tx.dialect() {
        Dialect::Sqlite => append_all(tx, subjects, now).await,
        Dialect::Postgres => {
            tx.feed_grew |= !subjects.is_empty();
            Ok(())
        }
    }
}

async fn append(tx: &mut Tx, subject: Subject<'_>, now: Timestamp) -> Result<()> {
    append_all(tx, &[subject], now).await
}

/// The same for many, in their order.
async fn append_all(tx: &mut Tx, subjects: &[Subject<'_>], now: Timestamp) -> Result<()> {
    if subjects.is_empty() {
        return Ok(());
    }
    let columns = [
        ("kind", "text"),
        ("name", "text"),
        ("uid", "text"),
        ("version", "bigint"),
        ("deleted", "bigint"),
    ];
    let sql = format!(
        "insert into change (kind, name, uid, version, deleted, created_at)
        select n.kind, n.name, n.uid, n.version, n.deleted, $2 from ({}) n",
        tx.dialect().rows(1, &columns)
    );
    let rows = subjects
        .iter()
        .map(|s| json!({"kind": s.kind, "name": s.name, "uid": s.uid, "version": s.version, "deleted": i64::from(s.deleted)}));
    let rows = Value::Array(rows.collect()).to_string();
    sqlx::query(AssertSqlSafe(sql)).bind(rows).bind(now.0).execute(tx.conn()).await?;
    tx.feed_grew = true;
    Ok(())
}

fn select(db: &Db, rest: &str) -> AssertSqlSafe<String> {
    let place = db.dialect().feed_position();
    AssertSqlSafe(format!(
        "select {place} as place, seq, kind, name, uid, version, deleted, created_at from change {}",
        rest.replace("{place}", place)
    ))
}

/// The place of the last change.
pub async fn head(db: &Db) -> Result<Position> {
    let last = || async {
        let sql = select(db, "where {place} is not null order by {place} desc limit 1");
        sqlx::query(sql).fetch_optional(db.pool()).await
    };
    if let Some(row) = last().await? {
        return Ok(Change::read(&row)?.position);
    }
    // A feed that has nothing begins with a change of nothing, so that even an empty history differs from every other.
    let (uid, now) = (random_id(), Timestamp::default());
    let mut tx = db.begin().await?;
    let beginning = Subject {
        kind: "",
        name: "",
        uid: &uid,
        version: 0,
        deleted: false,
    };
    append(&mut tx, beginning, now).await?;
    tx.commit().await?;
    db.place_changes().await?;
    let row = last().await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(Change::read(&row)?.position)
}

/// Whether more may follow a batch that was read.
pub fn is_full(batch: &[Change]) -> bool {
    i64::try_from(batch.len()).is_ok_and(|length| length >= BATCH)
}

/// What was read last, for the other readers of this process: most stand at the same place, and are woken by the same change.
pub(crate) struct Recent {
    /// How often the feed had grown, as far as this process knew, before it was read.
    grown: u64,
    at: Instant,
    position: Position,
    changes: Option<Vec<Change>>,
}

impl Recent {
    /// A growth that nobody told this process of is found after this.
    const KEEP: Duration = Duration::from_millis(200);
    /// All who read wait for the one who asks the database, so not for ever for a connection that is dead.
    const READ_TIMEOUT: Duration = Duration::from_secs(10);
}

/// What comes after `position`, of all kinds, at most a batch of it; `None` when `position` is not part of the feed any more.
pub async fn after(db: &Db, position: Position) -> Result<Option<Vec<Change>>> {
    let asked = Instant::now();
    let mut recent = db.recent.lock().await;
    let grown = db.growths();
    if let Some(recent) = &*recent
        && recent.position == position
        && recent.grown == grown
        && asked.saturating_duration_since(recent.at) < Recent::KEEP
    {
        return Ok(recent.changes.clone());
    }
    let at = Instant::now();
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let read = tokio::time::timeout(Recent::READ_TIMEOUT, read_after(db, position));
    let changes = read.await.map_err(late)??;
    *recent = Some(Recent {
        grown,
        at,
        position,
        changes: changes.clone(),
    });
    Ok(changes)
}

async fn read_after(db: &Db, position: Position) -> Result<Option<Vec<Change>>> {
    let sql = select(db, "where {place} >= $1 order by {place} limit $2");
    let rows = sqlx::query(sql).bind(position.place).bind(BATCH + 1).fetch_all(db.pool()).await?;
    let mut changes = rows.iter().map(Change::read).collect::<Result<Vec<_>>>()?;
    if changes.first().is_none_or(|first| first.position != position) {
        return Ok(None);
    }
    changes.remove(0);
    Ok(Some(changes))
}

/// Forgets changes older than `keep`, a few at a time. The last change stays, so that who has read everything can go on.
pub async fn prune(db: &Db, now: Timestamp, keep: Duration) -> Result<()> {
    let before = now.0.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
    let place = db.dialect().feed_position();
    let sql = format!(
        "delete from change where {place} < (
            select coalesce((select min({place}) from change where created_at >= $1), (select max({place}) from change)))
        and {place} < (select min({place}) from change) + {FORGET}"
    );
    loop {
        let mut tx = db.begin().await?;
        let query = sqlx::query(AssertSqlSafe(sql.clone())).bind(before);
        let forgotten = query.execute(tx.conn()).await?.rows_affected();
        tx.commit().await?;
        if forgotten == 0 {
            return Ok(());
        }
        // What is remembered of the last read may be forgotten now.
        *db.recent.lock().await = None;
    }
}
