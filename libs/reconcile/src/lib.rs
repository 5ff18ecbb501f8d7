//! Reconcilers: a work queue in the service's own database, and the loop that empties it.
//!
//! Level-triggered: a pass gets a key, re-reads the world, does at most one thing, and says when to look again.

mod membership;
mod pass;
mod queue;
mod runner;

pub use membership::{Heard, Member, Membership, View, WriteGuard, Writing, slot};
pub use pass::{Pass, SaveError};
pub use queue::{Lease, Queue};
pub use runner::{Controller, Next, Reconcile, Runner, backoff, run_all};

/// Schema of the queue, and of those who share it.
pub const MIGRATIONS: [ironyard_db::Migration; 4] = [
    ironyard_db::Migration {
        version: 2,
        name: "work_item",
        sql: include_str!("../migrations/0002_work_item.sql"),
    },
    ironyard_db::Migration {
        version: 5,
        name: "share",
        sql: include_str!("../migrations/0005_share.sql"),
    },
    ironyard_db::Migration {
        version: 7,
        name: "failing_since",
        sql: include_str!("../migrations/0007_failing_since.sql"),
    },
    ironyard_db::Migration {
        version: 8,
        name: "replica_writing",
        sql: include_str!("../migrations/0008_replica_writing.sql"),
    },
];
