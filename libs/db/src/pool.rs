use std::{
    fs::{File, TryLockError},
    os::unix::fs::OpenOptionsExt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ironyard_types::{Clock, SystemClock, Timestamp};
use serde::Deserialize;
use sqlx::{
    Any, AnyPool, AssertSqlSafe, Connection, Row, SqlSafeStr, Transaction,
    any::{AnyPoolOptions, install_default_drivers},
    migrate::{MigrateError, MigrationType, Migrator},
    postgres::PgListener,
};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};

use crate::{Error, Result, dialect::Dialect, feed::Recent};

/// Where a service keeps its records.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `sqlite://PATH` or `postgres://…`.
    pub url: String,
    /// PostgreSQL schema, so that services may share a database and still not see each other's tables.
    #[serde(default)]
    pub schema: Option<String>,
    /// Most connections.
    #[serde(default = "Config::default_connections")]
    pub max_connections: u32,
}

impl Config {
    fn default_connections() -> u32 {
        8
    }

    /// The defaults for a URL.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: None,
            max_connections: Self::default_connections(),
        }
    }
}

/// One step of a schema; never edited once landed. Placeholders are filled by [`Dialect::migration`].
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Number; libraries use 1 to 99, services 101 and up.
    pub version: i64,
    /// Name.
    pub name: &'static str,
    /// Text.
    pub sql: &'static str,
}

const OWN: [Migration; 2] = [
    Migration {
        version: 1,
        name: "change_feed",
        sql: include_str!("../migrations/0001_change_feed.sql"),
    },
    Migration {
        version: 6,
        name: "feed_position",
        sql: include_str!("../migrations/0006_feed_position.sql"),
    },
];

/// How long a database may take to answer when a service starts, and a connection to come free later.
const PATIENCE: Duration = Duration::from_secs(15);
/// Another process that has SQLite's file may be about to end. So may a child of this one, which has what is open here until it executes.
const HANDOVER: Duration = Duration::from_secs(1);
/// The feed is looked at this often even when nobody says that it grew: the process that wrote may have died before it said so.
const LOOK: Duration = Duration::from_secs(10);

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It is about to begin.
    Before,
    /// It is committed.
    After,
}

/// What happens before and after each transaction: nothing, except in a simulation, which decides there who goes on and who dies.
pub type Between = Arc<dyn Fn(Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Tells that the feed has grown.
#[derive(Clone)]
struct Changed {
    /// The place of the last change, as far as this process knows; it may go back for a moment.
    head: watch::Sender<i64>,
    /// How often that was told.
    times: Arc<AtomicU64>,
}

impl Default for Changed {
    fn default() -> Self {
        Self {
            head: watch::Sender::new(0),
            times: Arc::default(),
        }
    }
}

impl Changed {
    /// Tells who waits, if this says that there is something to tell.
    fn tell(&self, news: impl FnOnce(&mut i64) -> bool) {
        self.head.send_if_modified(|head| {
            let news = news(head);
            if news {
                // Before anybody is woken.
                self.times.fetch_add(1, Ordering::SeqCst);
            }
            news
        });
    }
}

/// An open database, brought up to date.
#[derive(Clone)]
pub struct Db {
    pool: AnyPool,
    dialect: Dialect,
    /// SQLite has one writer; waiting here is fair, waiting inside SQLite polls.
    writer: Arc<Mutex<()>>,
    /// The place of the last change, as far as this process knows.
    changed: Changed,
    /// What was last read of the feed.
    pub(crate) recent: Arc<Mutex<Option<Recent>>>,
    /// Wakes the task that gives changes their places.
    grown: Arc<Notify>,
    clock: Arc<dyn Clock>,
    between: Option<Between>,
    /// Held as long as the database is open: SQLite's file has one process.
    _lock: Option<Arc<File>>,
}

impl Db {
    /// Opens the database and runs the migrations it lacks.
    pub async fn open(config: &Config, migrations: &[Migration]) -> Result<Self> {
        Self::open_with(config, migrations, Arc::new(Monotonic::default())).await
    }

    /// The same, with a clock that takes the place of SQLite's own time.
    pub async fn open_with(config: &Config, migrations: &[Migration], clock: Arc<dyn Clock>) -> Result<Self> {
        install_default_drivers();
        let dialect = Dialect::of(&config.url).ok_or_else(|| Error::Url(without_password(&config.url)))?;
        let lock = match dialect {
            Dialect::Sqlite => own_file(&config.url).await?.map(Arc::new),
            Dialect::Postgres => None,
        };
        let url = match (dialect, &config.schema) {
            (Dialect::Postgres, schema) => postgres(&config.url, schema.as_deref()).await?,
            (Dialect::Sqlite, _) if !config.url.contains('?') => format!("{}?mode=rwc", config.url),
            (Dialect::Sqlite, _) => config.url.clone(),
        };
        let pool = AnyPoolOptions::new()
            .max_connections(config.max_connections)
            .min_connections(1)
            .acquire_timeout(PATIENCE)
            .idle_timeout(Duration::from_secs(120))
            .after_connect(move |connection, _| Box::pin(dialect.prepare(connection)))
            .connect(&url)
            .await?;
        migrate(&pool, dialect, migrations).await?;
        let db = Self {
            pool,
            dialect,
            writer: Arc::default(),
            changed: Changed::default(),
            recent: Arc::default(),
            grown: Arc::default(),
            clock,
            between: None,
            _lock: lock,
        };
        if dialect == Dialect::Postgres {
            tokio::spawn(listen(url, config.schema.clone(), db.changed.clone(), db.pool.clone()));
            tokio::spawn(place(db.clone()));
        }
        Ok(db)
    }

    /// The same database, whose transactions take turns as a simulation decides.
    pub fn interleaved(self, between: Between) -> Self {
        let between = Some(between);
        Self { between, ..self }
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// For statements that only read, or that are whole in themselves.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// What [`Dialect::now`] asks for, where it asks for anything.
    pub fn now(&self) -> Option<Timestamp> {
        match self.dialect {
            Dialect::Sqlite => Some(self.clock.now()),
            Dialect::Postgres => None,
        }
    }

    /// Begins a write transaction. Never await the network while it is open.
    pub async fn begin(&self) -> Result<Tx> {
        if let Some(between) = &self.between {
            between(Moment::Before).await;
        }
        let writer = match self.dialect {
            Dialect::Sqlite => Some(self.writer.clone().lock_owned().await),
            Dialect::Postgres => None,
        };
        let inner = self.pool.begin_with(self.dialect.begin()).await?;
        Ok(Tx {
            inner,
            db: self.clone(),
            feed_grew: false,
            writer,
        })
    }

    /// Tells when the change feed has grown, whoever wrote.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.changed.head.subscribe()
    }

    /// How often the feed has grown, as far as this process knows.
    pub(crate) fn growths(&self) -> u64 {
        self.changed.times.load(Ordering::SeqCst)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.grown.notify_one();
        self.pool.close().await;
    }

    /// Gives every committed change its place in the feed, where the database does not by itself; the last place.
    pub(crate) async fn place_changes(&self) -> Result<i64> {
        let Some(sql) = self.dialect.place_changes() else { return Ok(0) };
        let rows = sqlx::raw_sql(sql).fetch_all(&self.pool).await?;
        let last = rows.last().ok_or(sqlx::Error::RowNotFound)?;
        Ok(last.try_get("head")?)
    }
}

/// Brings the schema up to date. A step may take long; on a connection of its own, no limit for statements cuts it.
async fn migrate(pool: &AnyPool, dialect: Dialect, migrations: &[Migration]) -> Result<()> {
    let mut all: Vec<&Migration> = OWN.iter().chain(migrations).collect();
    all.sort_by_key(|m| m.version);
    let all = all.into_iter().map(|m| {
        let sql = AssertSqlSafe(dialect.migration(m.sql)).into_sql_str();
        sqlx::migrate::Migration::new(m.version, m.name.into(), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator::with_migrations(all.collect());
    let mut connection = pool.acquire().await?.detach();
    if dialect == Dialect::Postgres {
        sqlx::query("set statement_timeout = 0").execute(&mut connection).await?;
    }
    let outcome = migrator.run_direct(None, &mut connection, false).await;
    connection.close().await?;
    outcome.map_err(|error| match error {
        MigrateError::VersionMissing(version) => Error::Newer { version },
        other => Error::Migrate(other),
    })
}

/// Gives changes their places as they are committed, and wakes who follows the feed, until the database is closed. An error only costs time.
async fn place(db: Db) {
    let mut head = 0;
    // At once: the process before may have died in between.
    db.grown.notify_one();
    while !db.pool.is_closed() {
        let _ = tokio::time::timeout(LOOK, db.grown.notified()).await;
        match db.place_changes().await {
            Ok(now) if now == head => {}
            Ok(now) => {
                head = now;
                db.changed.tell(|known| std::mem::replace(known, now) != now);
            }
            Err(_) if db.pool.is_closed() => return,
            Err(error) => {
                tracing::warn!(%error, "the change feed stands still: changes could not be given their places");
                tokio::time::sleep(Duration::from_secs(1)).await;
                db.grown.notify_one();
            }
        }
    }
}

/// Wakes watchers when another process has written. The feed is looked at as well, so errors only cost time.
async fn listen(url: String, schema: Option<String>, changed: Changed, pool: AnyPool) {
    let channel = format!("ironyard_change_{}", schema.as_deref().unwrap_or("public"));
    while !pool.is_closed() {
        if let Ok(mut listener) = PgListener::connect(&url).await
            && listener.listen(&channel).await.is_ok()
        {
            while let Ok(notification) = listener.recv().await {
                // What this process has placed itself, it knows.
                let head = notification.payload().parse::<i64>().ok();
                changed.tell(|known| {
                    let news = head.is_none_or(|head| head > *known);
                    *known = head.unwrap_or(0).max(*known);
                    news
                });
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// A write transaction.
pub struct Tx {
    inner: Transaction<'static, Any>,
    db: Db,
    pub(crate) feed_grew: bool,
    writer: Option<OwnedMutexGuard<()>>,
}

impl Tx {
    /// The connection, to run statements on.
    pub fn conn(&mut self) -> &mut sqlx::AnyConnection {
        &mut self.inner
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.db.dialect
    }

    /// Makes it all true.
    pub async fn commit(self) -> Result<()> {
        let Self {
            inner,
            db,
            feed_grew,
            writer,
        } = self;
        inner.commit().await?;
        drop(writer);
        if feed_grew {
            match db.dialect {
                Dialect::Sqlite => {
                    db.changed.tell(|commits| {
                        *commits += 1;
                        true
                    });
                }
                Dialect::Postgres => db.grown.notify_one(),
            }
        }
        if let Some(between) = &db.between {
            between(Moment::After).await;
        }
        Ok(())
    }
}

/// The time since a start, added to what the machine's clock said then: it neither steps nor goes back.
struct Monotonic {
    start: Timestamp,
    since: tokio::time::Instant,
}

impl Default for Monotonic {
    fn default() -> Self {
        Self {
            start: SystemClock.now(),
            since: tokio::time::Instant::now(),
        }
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Timestamp {
        self.start.plus(self.since.elapsed())
    }
}

/// Makes SQLite's file this process's own: nobody else reads it, and no second process opens it.
async fn own_file(url: &str) -> Result<Option<File>> {
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let path = path.split('?').next().unwrap_or(path);
    if path.is_empty() || path.starts_with(':') {
        return Ok(None);
    }
    let unusable = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let open = |path: &str| {
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600).open(path)
    };
    open(path).map_err(unusable)?;
    let lock = open(&format!("{path}.lock")).map_err(unusable)?;
    let deadline = tokio::time::Instant::now() + HANDOVER;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
    }
}

/// The URL with the schema, which is created where it is missing. Waits a while for a server that is starting, and says so.
async fn postgres(url: &str, schema: Option<&str>) -> Result<String> {
    if let Some(schema) = schema
        && (schema.is_empty() || !schema.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
    {
        return Err(Error::Url(format!("schema {schema}")));
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut told = false;
    let mut connection = loop {
        let attempt = tokio::time::timeout(Duration::from_secs(5), sqlx::AnyConnection::connect(url)).await;
        let error = match attempt {
            Ok(Ok(connection)) => break connection,
            Ok(Err(error)) => error,
            Err(_elapsed) => sqlx::Error::PoolTimedOut,
        };
        let (url, left) = (
            without_password(url),
            deadline.saturating_duration_since(tokio::time::Instant::now()),
        );
        if left.is_zero() {
            return Err(Error::Unreachable { url, source: error });
        }
        if !told {
            told = true;
            tracing::warn!(url, %error, "cannot reach the database; trying again for {} s", left.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    let Some(schema) = schema else { return Ok(url.to_owned()) };
    // Two services that start at once may both create it; the loser's error is harmless if the schema is there.
    let created = sqlx::query(AssertSqlSafe(format!("create schema if not exists {schema}")))
        .execute(&mut connection)
        .await;
    let there = sqlx::query("select nspname::text from pg_namespace where nspname = $1")
        .bind(schema)
        .fetch_optional(&mut connection)
        .await?;
    connection.close().await?;
    if there.is_none() {
        created?;
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{separator}options=-csearch_path%3D{schema}"))
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed;

    /// A database of the release before the feed had places is brought up to date, and keeps its changes.
    async fn an_old_feed_is_taken_over(config: Config) {
        install_default_drivers();
        let dialect = Dialect::of(&config.url).unwrap();
        let url = match dialect {
            Dialect::Sqlite => format!("{}?mode=rwc", config.url),
            Dialect::Postgres => postgres(&config.url, None).await.unwrap(),
        };
        let pool = AnyPoolOptions::new().connect(&url).await.unwrap();
        // Services number their own steps from 101: step 6 comes after one of them.
        let steps = [(1, OWN[0].sql), (101, "create table later (later_id text primary key)")].map(|(version, sql)| {
            let sql = AssertSqlSafe(dialect.migration(sql)).into_sql_str();
            sqlx::migrate::Migration::new(version, "old".into(), MigrationType::Simple, sql, false)
        });
        Migrator::with_migrations(steps.to_vec()).run(&pool).await.unwrap();
        for n in 0..3 {
            sqlx::query("insert into change (kind, name, uid, deleted, created_at) values ('thing', $1, $1, 0, 1)")
                .bind(format!("thing-{n}"))
                .execute(&pool)
                .await
                .unwrap();
        }
        pool.close().await;
        let later = Migration {
            version: 101,
            name: "later",
            sql: "create table later (later_id text primary key)",
        };
        let db = Db::open(&config, &[later]).await.unwrap();
        db.place_changes().await.unwrap();
        let head = feed::head(&db).await.unwrap();
        assert_eq!(feed::after(&db, head).await.unwrap(), Some(vec![]));
        let row = sqlx::query("select count(*) as n from change").fetch_one(db.pool()).await.unwrap();
        assert_eq!(row.try_get::<i64, _>("n").unwrap(), 3);
        db.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_old_feed_is_taken_over_on_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        an_old_feed_is_taken_over(Config::url(format!("sqlite://{}", path.display()))).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_old_feed_is_taken_over_on_postgres() {
        let Some(server) = ironyard_testkit::Postgres::start().await else {
            return;
        };
        an_old_feed_is_taken_over(Config::url(server.url())).await;
    }
}
