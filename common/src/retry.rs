//! The only file that uses the `backoff` crate (RUSTSEC-2025-0012, unmaintained; see `deny.toml`).

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::origin;

/// Waits that double from `first` to `longest`, each spread by half either way, without end.
#[derive(Debug)]
pub struct Waits(ExponentialBackoff);

impl Waits {
    /// The first wait is about `first`, none is longer than one and a half times `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let mut inner = ExponentialBackoff {
            initial_interval: first,
            max_interval: longest,
            multiplier: 2.0,
            // The spread is ours: a simulation seeds it.
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        inner.reset();
        Self(inner)
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        // None comes only from max_elapsed_time, which is off.
        let middle = self.0.next_backoff().unwrap_or(self.0.max_interval);
        middle.mul_f64(0.5 + origin::fraction())
    }

    /// Begins again with the first wait.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_differ() {
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(10));
        let first = waits.next_wait();
        assert!(
            first >= Duration::from_millis(50) && first <= Duration::from_millis(150),
            "{first:?}"
        );
        let many: Vec<_> = (0..50).map(|_| waits.next_wait()).collect();
        assert!(many.iter().all(|wait| *wait <= Duration::from_secs(15)));
        assert!(
            many.iter()
                .rev()
                .take(20)
                .all(|wait| *wait >= Duration::from_secs(5))
        );
        assert!(
            many.iter()
                .rev()
                .take(20)
                .collect::<std::collections::HashSet<_>>()
                .len()
                > 1,
            "no jitter"
        );
        waits.reset();
        assert!(waits.next_wait() <= Duration::from_millis(150));
    }
}
