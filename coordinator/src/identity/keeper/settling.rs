//! Whether files that have lost a root were left alone for long enough to be meant.
//!
//! It reads no file. The invariant: a root goes only when two looks, some time apart, have found the same files without it, so
//! that a `ca.crt` which is written in pieces cuts nobody off.

use std::time::{Duration, Instant};

use hostler_pki::FilesStamp;

/// Shorter than the time between two looks, and far longer than a small file takes to be written.
const SETTLES_FOR: Duration = Duration::from_millis(500);

/// Files that have lost a root, and when they were first seen so.
#[derive(Debug, Default)]
pub(super) struct Settling(Option<(FilesStamp, Instant)>);

impl Settling {
    /// Whether something waits for another look.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.is_some()
    }

    /// Whether files with this stamp, which lack a root at `now`, have to be looked at again before that counts.
    pub(super) fn has_to_wait(&mut self, stamp: FilesStamp, now: Instant) -> bool {
        match &self.0 {
            Some((seen, since)) if *seen == stamp => now.saturating_duration_since(*since) < SETTLES_FOR,
            _ => {
                self.0 = Some((stamp, now));
                true
            }
        }
    }

    /// Nothing waits any more.
    pub(super) fn settle(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn files_count_when_nobody_has_touched_them_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        let stamp = || FilesStamp::of([&*path as &Path]);
        let (mut settling, begun) = (Settling::default(), Instant::now());
        std::fs::write(&path, "half").unwrap();
        assert!(settling.has_to_wait(stamp(), begun));
        assert!(settling.has_to_wait(stamp(), begun + SETTLES_FOR / 2));
        std::fs::write(&path, "half and more").unwrap();
        let touched = begun + SETTLES_FOR;
        assert!(settling.has_to_wait(stamp(), touched), "somebody is writing it");
        assert!(settling.is_waiting());
        assert!(!settling.has_to_wait(stamp(), touched + SETTLES_FOR));
        settling.settle();
        assert!(!settling.is_waiting());
    }
}
