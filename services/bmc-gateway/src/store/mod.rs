//! SQL, and nothing but.

pub mod bmc;
pub mod credential;
pub mod session;
