//! The database of one service: SQLite or PostgreSQL, one SQL text for both.
//!
//! Where the two must differ, the difference lives in [`dialect`].

pub mod dialect;
mod error;
pub mod feed;
mod pool;
pub mod record;
mod retention;
mod snapshot;

pub use error::Error;
pub use pool::{Config, Db, Migration, Moment, Tx};
pub use record::{Outcome, Record, Stored};
pub use retention::Retention;
pub use snapshot::Snapshot;

/// Result of a database call.
pub type Result<T> = std::result::Result<T, Error>;
