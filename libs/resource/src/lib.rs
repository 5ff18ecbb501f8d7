//! The standard methods over records: get, list, create, update with a field mask, delete, watch. Each service adds its own rules.

mod mask;
mod methods;
mod watch;

pub use mask::Mask;
pub use methods::{Context, Kind, Page, create, delete, fault_of, get, list, list_newest, request, update};
pub use watch::{Event, follow, names, watch};

use std::time::Duration;

use ironyard_db::Retention;

/// Forgets old changes, old request ids and whatever else is over, until `shutdown`.
pub async fn housekeep(cx: &Context, over: &[Retention], shutdown: tokio_util::sync::CancellationToken) {
    let hour = Duration::from_secs(3600);
    while !shutdown.is_cancelled() {
        let now = cx.now();
        if let Err(error) = ironyard_db::feed::prune(&cx.db, now, hour).await {
            tracing::warn!(%error, "could not prune the change feed");
        }
        for retention in over.iter().chain([&ironyard_operation::REQUESTS]) {
            if let Err(error) = retention.apply(&cx.db, now).await {
                tracing::warn!(table = retention.table, %error, "could not forget what is over");
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(300), shutdown.cancelled()).await;
    }
}
