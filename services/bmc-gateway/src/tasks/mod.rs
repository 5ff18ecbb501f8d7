//! Reconcilers: BMCs are probed, operations go on.

pub mod events;
pub mod jobs;
pub mod operations;
pub mod power;
pub mod probe;
pub mod rotate;
pub mod spool;
pub mod steps;
