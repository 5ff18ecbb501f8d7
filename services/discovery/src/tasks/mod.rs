//! Reconcilers.

pub mod agent_runs;
pub mod bmcs;
pub mod endpoints;
pub mod servers;

/// Why a pass failed: ourselves or a peer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Ours.
    #[error("{0}")]
    Fault(#[from] ironyard_rpc::Fault),
    /// Somebody else was faster.
    #[error("could not write what was decided")]
    Save(#[from] ironyard_reconcile::SaveError),
    /// A peer.
    #[error("a peer answered: {0}")]
    Peer(#[from] ironyard_peers::PeerError),
}
