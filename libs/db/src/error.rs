/// What can go wrong with a database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unique constraint refused a row; named `<table>_<column>_key`.
    #[error("constraint {constraint} refused the row")]
    Unique {
        /// Name of the constraint.
        constraint: String,
    },
    /// A row that this program cannot read.
    #[error("row {key:?} of table {table} is corrupt")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A value that cannot be written.
    #[error("could not encode a row of table {table}")]
    Encode {
        /// Table.
        table: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A URL that names no database we know.
    #[error("{0:?} is not a database URL: use sqlite://PATH or postgres://…")]
    Url(String),
    /// A file that cannot be used.
    #[error("cannot use the database file {path}")]
    File {
        /// Path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that another process has open.
    #[error("{path} is in use by another process; stop that one, or use another folder")]
    InUse {
        /// Path.
        path: String,
    },
    /// A server that does not answer.
    #[error("cannot reach the database {url}")]
    Unreachable {
        /// URL, without password.
        url: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The schema is that of a newer release.
    #[error(
        "the database was written by a newer release (its schema has step {version}): run that release, or restore a backup from before the upgrade"
    )]
    Newer {
        /// A step that this release does not know.
        version: i64,
    },
    /// The schema could not be brought up to date.
    #[error("could not migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database is gone, busy or broken.
    #[error("the database did not answer as it should")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(inner) = &error
            && let Some(constraint) = crate::dialect::unique_constraint(inner.as_ref())
        {
            return Self::Unique { constraint };
        }
        Self::Database(error)
    }
}
