//! Parse, call the use case, render; nothing else.

pub mod convert;
pub mod server;
