//! Parse, call the use case, render; nothing else.

pub mod agent;
pub mod endpoint;
