//! Shows that the session task still turns, for the service manager's watchdog.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often a task that waits shows that it does.
pub const BEAT: Duration = Duration::from_secs(1);

/// The last sign of life. Clones share it.
#[derive(Debug, Clone)]
pub struct Pulse {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            last_ms: Arc::default(),
        }
    }
}

impl Pulse {
    /// A sign of life.
    pub fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    /// How long ago the last one was.
    pub fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }

    /// Awaits `future`, beating meanwhile: waiting is not being stuck.
    pub async fn during<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        let mut beats = tokio::time::interval(BEAT);
        loop {
            // Cancel-safe: the future is pinned outside, a tick is only a time.
            tokio::select! {
                biased;
                result = &mut future => return result,
                _ = beats.tick() => self.beat(),
            }
        }
    }
}
