//! All that differs between SQLite and PostgreSQL.

use sqlx::{Any, AnyConnection, Executor, error::DatabaseError};

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Embedded; one writer at a time.
    Sqlite,
    /// A server; many writers, more than one replica.
    Postgres,
}

impl Dialect {
    /// From a database URL.
    pub fn of(url: &str) -> Option<Self> {
        if url.starts_with("sqlite:") {
            Some(Self::Sqlite)
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Some(Self::Postgres)
        } else {
            None
        }
    }

    /// Fills the placeholders of a migration.
    pub fn migration(self, sql: &str) -> String {
        let (auto_id, tx_id) = match self {
            Self::Sqlite => ("integer primary key autoincrement", "bigint not null default 0"),
            Self::Postgres => (
                "bigint generated always as identity primary key",
                "bigint not null default (pg_current_xact_id()::text::bigint)",
            ),
        };
        sql.replace("{{auto_id}}", auto_id).replace("{{tx_id}}", tx_id)
    }

    /// How a write transaction begins. SQLite must take its lock at once: an upgrade from a read lock fails.
    pub fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "begin immediate",
            Self::Postgres => "begin",
        }
    }

    /// Locks the rows that a `select` returns and passes over those that others hold.
    pub fn skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "for update skip locked",
        }
    }

    /// Locks the rows that a `select` returns.
    pub fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "for update",
        }
    }

    /// Restricts rows of the change feed to those that no running transaction can precede any more.
    pub fn feed_settled(self) -> &'static str {
        match self {
            Self::Sqlite => "1 = 1",
            Self::Postgres => "tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint",
        }
    }

    /// Tells other processes at commit that the change feed has grown.
    pub(crate) fn notify(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("select pg_notify('ironyard_change', '')::text"),
        }
    }

    pub(crate) async fn prepare(self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        match self {
            Self::Sqlite => {
                for pragma in [
                    "pragma busy_timeout = 10000",
                    "pragma journal_mode = wal",
                    "pragma synchronous = normal",
                    "pragma foreign_keys = on",
                ] {
                    Executor::execute(&mut *connection, sqlx::query::<Any>(pragma)).await?;
                }
            }
            Self::Postgres => {
                Executor::execute(&mut *connection, sqlx::query::<Any>("set statement_timeout = '30s'")).await?;
            }
        }
        Ok(())
    }
}

/// The constraint that a unique violation names. SQLite names columns (`server.name`) where PostgreSQL names the constraint
/// (`server_name_key`); ours are called `<table>_<column>_key`, so that both say the same.
pub(crate) fn unique_constraint(error: &dyn DatabaseError) -> Option<String> {
    if let Some(columns) = error.message().split("UNIQUE constraint failed: ").nth(1) {
        let first = columns.split(',').next().unwrap_or(columns).trim();
        return Some(format!("{}_key", first.replace('.', "_")));
    }
    (error.code().as_deref() == Some("23505")).then(|| error.constraint().unwrap_or("unknown").to_owned())
}
