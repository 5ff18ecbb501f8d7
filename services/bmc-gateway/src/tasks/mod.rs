//! Reconcilers: BMCs are probed, operations go on.

pub mod erase;
pub mod operations;
pub mod power;
pub mod probe;
