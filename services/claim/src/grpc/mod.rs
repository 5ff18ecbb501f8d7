//! Parse, call the use case, render; nothing else.

pub mod convert;
pub mod sanitization;
pub mod server_claim;
