//! How fast long work goes and how long it still takes.

use std::time::{Duration, Instant};

use hostler_common::rpc::hostler::agent::v1::Measure;

use super::count::Count;

const EVERY: Duration = Duration::from_secs(1);

/// Work of a known amount.
pub(super) struct Pace {
    what: String,
    total: Count,
    begun: Instant,
    said: Option<Instant>,
}

impl Pace {
    pub(super) fn of(what: String, total: Count) -> Self {
        Self {
            what,
            total,
            begun: Instant::now(),
            said: None,
        }
    }

    /// What to say now, at most once a second.
    pub(super) fn due(&mut self, done: impl FnOnce() -> Option<Count>) -> Option<Measure> {
        if self.said.is_some_and(|said| said.elapsed() < EVERY) {
            return None;
        }
        self.said = Some(Instant::now());
        let done = done()?;
        let elapsed = self.begun.elapsed();
        let done_bytes = done.bytes.min(self.total.bytes);
        let rate = u128::from(done_bytes) * 1000 / elapsed.as_millis().max(1);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        // Within the first second a rate is noise.
        let known = elapsed >= EVERY && rate > 0;
        Some(Measure {
            what: self.what.clone(),
            done_bytes,
            total_bytes: self.total.bytes,
            bytes_per_second: if known { rate } else { 0 },
            seconds_left: known.then(|| (self.total.bytes - done_bytes) / rate),
            done_files: done.files.min(self.total.files),
            total_files: if done.files > 0 { self.total.files } else { 0 },
        })
    }
}

/// The bytes that the programs which this thread started have written so far. None where the kernel does not say.
pub(super) fn written_by_children() -> Option<u64> {
    let children = std::fs::read_to_string("/proc/thread-self/children").ok()?;
    let written = |pid: &str| {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: "))?;
        line.parse::<u64>().ok()
    };
    children.split_whitespace().map(written).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_is_due_once_a_second_and_never_beyond_its_total() {
        let total = Count { files: 2, bytes: 100 };
        let mut pace = Pace::of("back up".into(), total);
        let measure = pace.due(|| Some(Count { files: 9, bytes: 900 })).unwrap();
        assert_eq!(
            (measure.done_bytes, measure.done_files, measure.total_files),
            (100, 2, 2)
        );
        assert_eq!(measure.seconds_left, None);
        assert_eq!(pace.due(|| Some(total)), None);
    }
}
