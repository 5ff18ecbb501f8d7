//! Wire ↔ domain.

pub mod server;
