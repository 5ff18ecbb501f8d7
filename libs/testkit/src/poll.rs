//! Tests wait for a state, never for a time.

use std::time::{Duration, Instant};

/// Looks again and again until `look` finds something, for at most two minutes.
///
/// # Panics
/// When it does not come.
pub async fn until<T, F, W>(what: &str, look: F) -> T
where
    F: FnMut() -> W,
    W: Future<Output = Option<T>>,
{
    within(Duration::from_secs(120), what, look).await
}

/// The same, within a time of the caller's.
///
/// # Panics
/// When it does not come.
pub async fn within<T, F, W>(most: Duration, what: &str, mut look: F) -> T
where
    F: FnMut() -> W,
    W: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + most;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
