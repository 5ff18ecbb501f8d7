//! Changes are sent only while whoever wants them may still make them.

use std::sync::Arc;

tokio::task_local! {
    static PERMISSION: Arc<dyn Fn() -> bool + Send + Sync>;
}

/// Does some work whose changes are refused once `permission` does not hold any more: that is asked right before each is sent, after all
/// waiting for a turn, a session or a version.
pub async fn changing_while<F: Future>(permission: Arc<dyn Fn() -> bool + Send + Sync>, work: F) -> F::Output {
    PERMISSION.scope(permission, work).await
}

/// Whether a change may be sent now.
pub(crate) fn holds() -> bool {
    PERMISSION.try_with(|permission| permission()).unwrap_or(true)
}
