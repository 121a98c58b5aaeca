//! How fast bytes move and how long the rest takes, over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hostler_common::bytes::Bytes;
use hostler_common::rpc::hostler::agent::v1::Measure;

/// Chunks move whole, so that a shorter window would show bursts.
const WINDOW: Duration = Duration::from_secs(10);

/// Measures one thing that moves.
pub(super) struct Rate {
    what: String,
    total: Bytes,
    seen: VecDeque<(Instant, Bytes)>,
}

impl Rate {
    /// Of `total` bytes.
    pub(super) fn new(what: String, total: Bytes) -> Self {
        Self {
            what,
            total,
            seen: VecDeque::new(),
        }
    }

    /// After `left` bytes were seen to be left at `now`.
    pub(super) fn measure(&mut self, left: Bytes, now: Instant) -> Measure {
        // What is written meanwhile may land there too.
        self.total = self.total.max(left);
        let done = self.total.minus(left);
        let first = *self.seen.front().unwrap_or(&(now, done));
        let (span, moved) = (now.saturating_duration_since(first.0), done.minus(first.1));
        let per_second = u128::from(moved.0) * 1000 / span.as_millis().max(1);
        self.seen.push_back((now, done));
        while self
            .seen
            .front()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW)
        {
            self.seen.pop_front();
        }
        Measure {
            what: self.what.clone(),
            done_bytes: done.0,
            total_bytes: self.total.0,
            bytes_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            seconds_left: u128::from(left.0)
                .checked_div(per_second)
                .and_then(|seconds| u64::try_from(seconds).ok()),
            ..Measure::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_nothing_is_promised_while_nothing_moves() {
        let mut rate = Rate::new("relocate /dev/sdb".into(), Bytes(1000));
        let begun = Instant::now();
        let mut at = |seconds, left| {
            let measure = rate.measure(Bytes(left), begun + Duration::from_secs(seconds));
            (measure.done_bytes, measure.bytes_per_second, measure.seconds_left)
        };
        assert_eq!(at(0, 1000), (0, 0, None));
        assert_eq!(at(1, 900), (100, 100, Some(9)));
        assert_eq!(at(5, 500), (500, 100, Some(5)));
        // The fast beginning has left the window.
        assert_eq!(at(16, 490).0, 510);
        assert_eq!(at(17, 480), (520, 10, Some(48)));
    }

    #[test]
    fn what_grows_meanwhile_never_goes_below_nothing() {
        let mut rate = Rate::new(String::new(), Bytes(10));
        let now = Instant::now();
        assert_eq!(rate.measure(Bytes(30), now).done_bytes, 0);
        assert_eq!(rate.measure(Bytes(30), now).total_bytes, 30);
        assert_eq!(rate.measure(Bytes(0), now).done_bytes, 30);
    }
}
