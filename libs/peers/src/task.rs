//! What reconcilers that call peers have in common: why a pass fails, and how that is shown.

use std::time::Duration;

use ironyard_db::{Record, record};
use ironyard_reconcile::{Pass, SaveError};
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason};
use ironyard_types::Waiting;

use crate::PeerError;

/// Why a pass failed: ourselves, somebody else who was faster, or a peer.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Ours.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// Somebody else was faster.
    #[error("could not write what was decided")]
    Save(#[from] SaveError),
    /// A peer.
    #[error("a peer answered: {0}")]
    Peer(#[from] PeerError),
}

impl TaskError {
    /// Reason code, for the resource that waits because of it.
    pub fn reason(&self) -> &str {
        match self {
            Self::Fault(fault) => fault.reason.as_str(),
            Self::Save(_) => Reason::Internal.as_str(),
            Self::Peer(error) => error.reason_or(Reason::PeerUnavailable.as_str()),
        }
    }
}

impl From<tonic::Status> for TaskError {
    fn from(status: tonic::Status) -> Self {
        Self::Peer(status.into())
    }
}

/// A pass that failed.
pub struct Failed<'a> {
    /// The pass.
    pub pass: &'a Pass,
    /// Why.
    pub error: &'a TaskError,
    /// How often in a row.
    pub attempts: u32,
    /// When it is tried again.
    pub again: Duration,
}

impl Failed<'_> {
    /// Shows on the record that the pass looked at why it waits: no resource waits silently.
    pub async fn show<T: Record + PartialEq>(&self, cx: &Context, waiting: impl FnOnce(&mut T) -> &mut Option<Waiting>) {
        let now = cx.now();
        let Ok(Some(mut stored)) = record::get::<T>(&cx.db, self.pass.key()).await else {
            return;
        };
        let change = |value: &mut T| {
            let waiting = waiting(value);
            let why = Waiting::retry(waiting.as_ref(), self.error.reason(), self.error, self.attempts, now, self.again);
            *waiting = Some(why);
        };
        if let Err(error) = self.pass.save(&mut stored, now, change).await {
            tracing::debug!(key = self.pass.key(), %error, "could not say why it waits");
        }
    }
}
