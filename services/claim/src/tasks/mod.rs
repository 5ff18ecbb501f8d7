//! Reconcilers.

pub mod adoption;
pub mod binder;
pub mod claims;
pub mod cleanup;
pub mod cleanup_steps;
pub mod orphans;
pub mod pending;
