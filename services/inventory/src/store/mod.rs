//! SQL, and nothing but.

pub mod history;
pub mod server;
