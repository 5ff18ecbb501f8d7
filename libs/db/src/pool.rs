use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use sqlx::{
    Any, AnyPool, AssertSqlSafe, SqlSafeStr, Transaction,
    any::{AnyPoolOptions, install_default_drivers},
    migrate::{MigrationType, Migrator},
    postgres::PgListener,
};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::{Error, Result, dialect::Dialect};

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

const OWN: Migration = Migration {
    version: 1,
    name: "change_feed",
    sql: include_str!("../migrations/0001_change_feed.sql"),
};

/// An open database, brought up to date.
#[derive(Clone)]
pub struct Db {
    pool: AnyPool,
    dialect: Dialect,
    /// SQLite has one writer; waiting here is fair, waiting inside SQLite polls.
    writer: Arc<Mutex<()>>,
    changed: watch::Sender<()>,
    url: String,
}

impl Db {
    /// Opens the database and runs the migrations it lacks.
    pub async fn open(config: &Config, migrations: &[Migration]) -> Result<Self> {
        install_default_drivers();
        let dialect = Dialect::of(&config.url).ok_or_else(|| Error::Url(without_password(&config.url)))?;
        let url = match (dialect, &config.schema) {
            (Dialect::Postgres, Some(schema)) => with_schema(&config.url, schema).await?,
            (Dialect::Sqlite, _) if !config.url.contains('?') => format!("{}?mode=rwc", config.url),
            (Dialect::Sqlite | Dialect::Postgres, _) => config.url.clone(),
        };
        let pool = AnyPoolOptions::new()
            .max_connections(config.max_connections)
            .min_connections(1)
            .acquire_timeout(Duration::from_secs(15))
            .idle_timeout(Duration::from_secs(120))
            .after_connect(move |connection, _| Box::pin(dialect.prepare(connection)))
            .connect(&url)
            .await?;
        let all = std::iter::once(&OWN).chain(migrations).map(|m| {
            let sql = AssertSqlSafe(dialect.migration(m.sql)).into_sql_str();
            sqlx::migrate::Migration::new(m.version, m.name.into(), MigrationType::Simple, sql, false)
        });
        Migrator::with_migrations(all.collect()).run(&pool).await?;
        let db = Self {
            pool,
            dialect,
            writer: Arc::default(),
            changed: watch::Sender::new(()),
            url,
        };
        if dialect == Dialect::Postgres {
            db.listen();
        }
        Ok(db)
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// For statements that only read, or that are whole in themselves.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Begins a write transaction. Never await the network while it is open.
    pub async fn begin(&self) -> Result<Tx> {
        let writer = match self.dialect {
            Dialect::Sqlite => Some(self.writer.clone().lock_owned().await),
            Dialect::Postgres => None,
        };
        let inner = self.pool.begin_with(self.dialect.begin()).await?;
        Ok(Tx {
            inner,
            dialect: self.dialect,
            changed: self.changed.clone(),
            feed_grew: false,
            _writer: writer,
        })
    }

    /// Tells when the change feed has grown. Poll it now and then too: another process may have written.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Wakes watchers when another process commits. Watchers poll as well, so errors only cost time.
    fn listen(&self) {
        let (url, changed, pool) = (self.url.clone(), self.changed.clone(), self.pool.clone());
        tokio::spawn(async move {
            while !pool.is_closed() {
                if let Ok(mut listener) = PgListener::connect(&url).await
                    && listener.listen("ironyard_change").await.is_ok()
                {
                    while let Ok(_notification) = listener.recv().await {
                        changed.send_replace(());
                    }
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
    }
}

/// A write transaction.
pub struct Tx {
    inner: Transaction<'static, Any>,
    dialect: Dialect,
    changed: watch::Sender<()>,
    pub(crate) feed_grew: bool,
    _writer: Option<OwnedMutexGuard<()>>,
}

impl Tx {
    /// The connection, to run statements on.
    pub fn conn(&mut self) -> &mut sqlx::AnyConnection {
        &mut self.inner
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Makes it all true.
    pub async fn commit(mut self) -> Result<()> {
        if self.feed_grew
            && let Some(sql) = self.dialect.notify()
        {
            sqlx::query(sql).execute(self.conn()).await?;
        }
        self.inner.commit().await?;
        if self.feed_grew {
            self.changed.send_replace(());
        }
        Ok(())
    }
}

async fn with_schema(url: &str, schema: &str) -> Result<String> {
    if !schema.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') || schema.is_empty() {
        return Err(Error::Url(format!("schema {schema}")));
    }
    let pool = AnyPoolOptions::new().max_connections(1).connect(url).await?;
    // Two services that start at once may both create it; the loser's error is harmless if the schema is there.
    let created = sqlx::query(AssertSqlSafe(format!("create schema if not exists {schema}")))
        .execute(&pool)
        .await;
    let there = sqlx::query("select nspname::text from pg_namespace where nspname = $1")
        .bind(schema)
        .fetch_optional(&pool)
        .await?;
    pool.close().await;
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
