//! Waiting for what tells nobody when it happens: a port that opens, a file that grows, domains that end.

use std::time::{Duration, Instant};

/// Asks until there is an answer, at most for `at_most`, with `pause` between two questions. It asks at least
/// once, so that what is so already needs no time.
pub(super) fn until<T, E>(
    at_most: Duration,
    pause: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let until = Instant::now() + at_most;
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        // Nobody unparks this thread; an early wake-up only asks once more.
        std::thread::park_timeout(pause.min(left));
    }
}
