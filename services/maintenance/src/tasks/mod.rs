//! Reconcilers.

pub mod bios;
pub mod maintenances;
pub mod servers;
