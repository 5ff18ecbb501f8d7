//! How services call each other: one wrapper per peer, one error, and the watches that enqueue keys for reconcilers.

mod gateway;
mod inventory;
mod task;
mod wakeups;
mod watch;

pub use gateway::Gateway;
pub use inventory::{ADOPTABLE, Inventory, adoptable, identity, name};
use ironyard_proto::common::OperationError;
use ironyard_rpc::{Channel, Fault, Reason, client};
use serde::Deserialize;
pub use task::{Failed, TaskError};
pub use wakeups::Wakeups;
pub use watch::{enqueue_on_bmcs, follow_servers, resync_on_servers, sweep_servers, version};

/// Where the peers are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of inventory.
    pub inventory: String,
    /// Address of the gateway.
    pub bmc_gateway: String,
    /// Address of discovery, for those that boot the agent.
    #[serde(default)]
    pub discovery: Option<String>,
    /// Certificates to show.
    #[serde(default)]
    pub tls: Option<client::TlsConfig>,
}

impl Config {
    /// Every peer at one address (`demo`, `up`).
    pub fn all_at(address: &str) -> Self {
        Self {
            inventory: address.to_owned(),
            bmc_gateway: address.to_owned(),
            discovery: Some(address.to_owned()),
            tls: None,
        }
    }

    /// A channel to an address.
    pub fn channel(&self, address: &str) -> std::result::Result<Channel, client::Error> {
        Channel::new(address, self.tls.as_ref())
    }

    /// Channels to all of them.
    pub fn connect(&self) -> std::result::Result<Peers, client::Error> {
        let discovery = self.discovery.as_deref().map(|address| self.channel(address));
        Ok(Peers {
            inventory: self.channel(&self.inventory)?,
            bmc_gateway: self.channel(&self.bmc_gateway)?,
            discovery: discovery.transpose()?,
        })
    }
}

/// The services that a service calls.
#[derive(Debug, Clone)]
pub struct Peers {
    /// Inventory.
    pub inventory: Channel,
    /// The gateway.
    pub bmc_gateway: Channel,
    /// Discovery, for those that boot the agent.
    pub discovery: Option<Channel>,
}

/// What a peer answered instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PeerError {
    /// Canonical code.
    pub code: tonic::Code,
    /// Reason, empty where the peer gave none.
    pub reason: String,
    /// Sentence.
    pub message: String,
}

impl From<&OperationError> for PeerError {
    /// An operation that failed for good.
    fn from(error: &OperationError) -> Self {
        Self {
            code: tonic::Code::FailedPrecondition,
            reason: error.reason.clone(),
            message: error.message.clone(),
        }
    }
}

impl PeerError {
    /// Whether it carries this reason.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == reason.as_str()
    }

    /// Its reason, or another one where the peer gave none.
    pub fn reason_or<'a>(&'a self, otherwise: &'a str) -> &'a str {
        if self.reason.is_empty() { otherwise } else { &self.reason }
    }

    /// Whether the same call may well succeed later: the peer is away, or somebody was faster.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code,
            tonic::Code::Unavailable
                | tonic::Code::Aborted
                | tonic::Code::Cancelled
                | tonic::Code::DeadlineExceeded
                // A peer that lost its database, or that was killed in the middle of the call.
                | tonic::Code::Internal
                | tonic::Code::Unknown
        )
    }
}

impl From<tonic::Status> for PeerError {
    fn from(status: tonic::Status) -> Self {
        let reason = ironyard_rpc::reason_of(&status).unwrap_or_default();
        Self {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
        }
    }
}

impl From<PeerError> for Fault {
    fn from(error: PeerError) -> Self {
        Self::new(Reason::PeerUnavailable, format!("another service said: {}", error.message))
    }
}

/// Result of a call to a peer.
pub type Result<T> = std::result::Result<T, PeerError>;
