//! Long-running operations, the ledger of request ids, and changes to records that are idempotent by it.

mod ledger;
mod mutate;
mod operation;

pub use ledger::{Known, REQUESTS, Request};
pub use mutate::{MutateError, create, delete, update};
pub use operation::{ENDED, Failure, Operation};

/// Schema of operations and of the ledger.
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
