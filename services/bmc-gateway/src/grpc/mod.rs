//! Parse, call the use case, render; nothing else.

pub mod bmc;
pub mod convert;
pub mod credential;
pub mod operation;
pub mod system;
