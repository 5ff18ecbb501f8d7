//! Pure: what a server is and how it may move.

pub mod claimability;
pub mod lifecycle;
pub mod server;
