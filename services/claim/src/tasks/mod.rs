//! Reconcilers.

pub mod adoption;
mod agent_commands;
pub mod binder;
pub mod claims;
pub mod cleanup;
pub mod cleanup_steps;
pub mod orphans;
pub mod pending;
