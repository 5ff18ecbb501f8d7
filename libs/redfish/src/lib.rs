//! A tolerant Redfish client: it keeps what is readable and says what is not.
//!
//! It follows links and never builds URIs; it resolves them against the BMC's own origin and refuses every other; it caps bodies while
//! they stream. Differences between vendors are questions about behaviour, answered by trying the standard form first and the known
//! other forms after the specific refusal.

mod client;
mod collection;
mod doc;
mod error;
#[cfg(test)]
mod fuzz;
mod glance;
mod lanes;
pub mod ops;
mod pace;
mod permission;
mod session;
mod tls;
mod transport;
mod uri;

pub use client::{Client, Limits, Login, Reply, Target};
pub use collection::Members;
pub use doc::Doc;
pub use error::Error;
pub use lanes::Lanes;
pub use permission::changing_while;
pub use reqwest::Url;
pub use session::{SavedSession, SessionKeeper};
pub use tls::{Trust, install_crypto};

/// Result of a Redfish call.
pub type Result<T> = std::result::Result<T, Error>;
