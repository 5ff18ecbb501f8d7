//! What every Ironyard service does alike at its edge: configuration, telemetry, the server and client stacks, who may call what,
//! and the one place where an error becomes a gRPC status.

pub mod access;
pub mod client;
pub mod config;
pub mod convert;
mod deadline;
mod fault;
pub mod fence;
pub mod forward;
mod identity;
mod incoming;
mod metrics;
pub mod ops;
pub mod reason;
pub mod server;
pub mod telemetry;
mod tls;

pub use client::Channel;
pub use deadline::waits_for;
pub use fault::{Fault, Kind, reason_of};
pub use identity::{Identity, Role, caller, serving};
pub use reason::Reason;
pub use telemetry::{current_traceparent, follow};

/// Services allocate small things on every thread at once, and keep tens of thousands of connections.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
