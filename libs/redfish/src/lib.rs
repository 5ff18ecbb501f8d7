//! A tolerant Redfish client: it keeps what is readable and says what is not.
//!
//! It follows links and never builds URIs; it resolves them against the BMC's own origin and refuses every other; it caps bodies while
//! they stream. Differences between vendors are questions about behaviour, answered by trying the standard form first and the known
//! other forms after the specific refusal.

mod client;
mod collection;
mod concurrency_limit;
mod connection;
mod doc;
mod error;
#[cfg(test)]
mod fuzz;
pub mod ops;
mod partial_read;
mod permission;
mod rate_limiter;
mod session;
mod tls;
mod transport;
mod uri;
mod weak;

pub use collection::Members;
pub use concurrency_limit::ConcurrencyLimit;
pub use connection::{Client, Holds, Limits, Login, Reply, SavedSession, SessionKeeper, Target};
pub use doc::Doc;
pub use error::Error;
pub use permission::changing_while;
pub use reqwest::Url;
pub use tls::{Trust, install_crypto, would_trust};
pub use weak::Weaknesses;

/// Result of a Redfish call.
pub type Result<T> = std::result::Result<T, Error>;
