//! Long-running operations, the idempotency_key of request ids, and changes to records that are idempotent by it.

mod idempotency_key;
mod mutate;
mod operation;

pub use idempotency_key::{Known, REQUESTS, Request};
pub use mutate::{MutateError, create, delete, update};
pub use operation::{ENDED, Failure, Operation};

/// Schema of operations and of the idempotency_key.
pub const MIGRATIONS: [ironyard_db::Migration; 2] = [
    ironyard_db::Migration {
        version: 3,
        name: "operation",
        sql: include_str!("../migrations/0003_operation.sql"),
    },
    ironyard_db::Migration {
        version: 4,
        name: "operation line",
        sql: include_str!("../migrations/0004_line.sql"),
    },
];
