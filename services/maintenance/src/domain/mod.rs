//! Pure: maintenances, and what of a server is not as its owner wants it.

pub mod drift;
pub mod server_maintenance;
