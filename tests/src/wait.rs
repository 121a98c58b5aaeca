//! Waiting on predicates. A deadline is only there so that a broken program fails instead of hanging.

use std::time::Duration;

/// Far beyond what anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `probe` until it gives something.
///
/// # Panics
/// When it has not within [`PATIENCE`]; `what` names it.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let polling = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Some(found) = probe().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, polling).await {
        Ok(found) => found,
        Err(_) => panic!("never happened: {what}"),
    }
}
