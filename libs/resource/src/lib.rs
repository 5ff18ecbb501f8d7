//! The standard methods over records: get, list, create, update with a field mask, delete, watch. Each service adds its own rules.

mod mask;
mod methods;
mod watch;

pub use mask::Mask;
pub use methods::{Context, Kind, Page, create, delete, fault_of, get, list, request, update};
pub use watch::{Event, follow, names, watch};

use std::time::Duration;

/// Forgets old changes and old request ids until `shutdown`.
pub async fn housekeep(cx: &Context, shutdown: tokio_util::sync::CancellationToken) {
    // Longer than any operation that is polled by its request id.
    let (hour, month) = (Duration::from_secs(3600), Duration::from_secs(30 * 24 * 3600));
    while !shutdown.is_cancelled() {
        let now = cx.now();
        if let Err(error) = ironyard_db::feed::prune(&cx.db, now, hour).await {
            tracing::warn!(%error, "could not prune the change feed");
        }
        if let Err(error) = ironyard_operation::prune_requests(&cx.db, now, month).await {
            tracing::warn!(%error, "could not prune the request ledger");
        }
        let _ = tokio::time::timeout(Duration::from_secs(300), shutdown.cancelled()).await;
    }
}
