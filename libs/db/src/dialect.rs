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

    /// The column that orders the change feed. SQLite has one writer, so that rows are numbered in the order of their commits; PostgreSQL
    /// numbers them afterwards, by [`Dialect::place_changes`].
    pub(crate) fn feed_position(self) -> &'static str {
        match self {
            Self::Sqlite => "seq",
            Self::Postgres => "position",
        }
    }

    /// Gives a place in the feed to every change that has been committed, and answers with the last place. One round trip, one at a time:
    /// who waits for the lock sees what its predecessor did. Places follow from the rows, so that a crash that loses them loses nothing.
    pub(crate) fn place_changes(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(
                "select set_config('synchronous_commit', 'off', true);
                select pg_advisory_xact_lock(hashtext('ironyard.change'), hashtext(current_schema()))::text;
                with base as (select coalesce(max(position), 0) as last from change),
                unplaced as (select seq, row_number() over (order by seq) as nth from change where position is null),
                placed as (
                    update change set position = base.last + unplaced.nth from base, unplaced
                    where change.position is null and change.seq = unplaced.seq returning change.position),
                told as (select pg_notify('ironyard_change_' || current_schema(), max(position)::text)::text as done
                    from placed having count(*) > 0)
                select greatest(base.last, (select coalesce(max(position), 0) from placed)) as head, (select max(done) from told) as told
                from base;",
            ),
        }
    }

    /// The time of the database in microseconds since 1970. Replicas share PostgreSQL, so its clock judges them all; SQLite has one process,
    /// which brings its own clock as parameter `parameter`.
    pub fn now(self, parameter: usize) -> String {
        match self {
            Self::Sqlite => format!("${parameter}"),
            Self::Postgres => "(extract(epoch from statement_timestamp()) * 1000000)::bigint".to_owned(),
        }
    }

    /// Many rows from one parameter, a JSON array of objects: the text of a statement does not depend on how many they are, so that it is
    /// prepared once. Columns have a name and are of type `text` or `bigint`.
    pub fn rows(self, parameter: usize, columns: &[(&str, &str)]) -> String {
        let list = |column: &dyn Fn(&(&str, &str)) -> String| columns.iter().map(column).collect::<Vec<_>>().join(", ");
        match self {
            Self::Sqlite => format!(
                "select {} from json_each(${parameter})",
                list(&|(name, _)| format!("json_extract(value, '$.{name}') as {name}"))
            ),
            Self::Postgres => format!(
                "select * from json_to_recordset(${parameter}::json) as t({})",
                list(&|(name, kind)| format!("{name} {kind}"))
            ),
        }
    }

    /// A condition on a text: that it is one of those in a parameter, a JSON array. Written so that PostgreSQL looks each up in an index,
    /// instead of reading a table because it takes the array to be long.
    pub fn any_of(self, parameter: usize) -> String {
        match self {
            Self::Sqlite => format!("in (select value from json_each(${parameter}))"),
            Self::Postgres => format!("= any (array (select json_array_elements_text(${parameter}::json)))"),
        }
    }

    /// Something to return, so that a statement that is a transaction by itself is committed asynchronously: it is answered before it is on
    /// the disk.
    pub fn asynchronous_commit(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => ", set_config('synchronous_commit', 'off', true) as asynchronous",
        }
    }

    /// Makes calls with the same request id (`$1`) wait for each other until the transaction ends; SQLite has one writer anyway.
    pub fn lock_request(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("select pg_advisory_xact_lock(hashtext('ironyard.request'), hashtext($1))::text"),
        }
    }

    /// The larger of two numbers.
    pub fn greatest(self) -> &'static str {
        match self {
            Self::Sqlite => "max",
            Self::Postgres => "greatest",
        }
    }

    pub(crate) async fn prepare(self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        match self {
            Self::Sqlite => {
                for pragma in [
                    "pragma busy_timeout = 10000",
                    "pragma journal_mode = wal",
                    // Who was told that it is done finds it after a power cut.
                    "pragma synchronous = full",
                    "pragma foreign_keys = on",
                ] {
                    Executor::execute(&mut *connection, sqlx::query::<Any>(pragma)).await?;
                }
            }
            Self::Postgres => {
                for setting in [
                    "set statement_timeout = '30s'",
                    // The locks of a process that is paused, or cut off, are given up: nobody waits for longer than for its leases.
                    "set idle_in_transaction_session_timeout = '10s'",
                    // Every statement is made for an index. At the default, a table of a few thousand rows is read as a whole instead.
                    "set random_page_cost = 1.1",
                ] {
                    Executor::execute(&mut *connection, sqlx::query::<Any>(setting)).await?;
                }
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
