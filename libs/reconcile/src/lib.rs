//! Reconcilers: a work queue in the service's own database, and the loop that empties it.
//!
//! Level-triggered: a pass gets a key, re-reads the world, does at most one thing, and says when to look again.

mod queue;
mod runner;

pub use queue::{Lease, Queue};
pub use runner::{Next, Reconcile, Runner, backoff};

/// Schema of the queue.
pub const MIGRATION: ironyard_db::Migration = ironyard_db::Migration {
    version: 2,
    name: "work_item",
    sql: include_str!("../migrations/0002_work_item.sql"),
};
