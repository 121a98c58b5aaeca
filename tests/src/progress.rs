//! How far a long run is, on standard error: a bar on a terminal, elsewhere a line now and then.
//!
//! It is no part of a result: what a run comes to is the same whoever looks on.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// Lines of a whole run, where there is no terminal.
const LINES: u64 = 50;

/// What is counted while a run lasts. Its bar goes when it is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    total: AtomicU64,
    done: AtomicU64,
    begun: Instant,
    shown: bool,
}

impl Progress {
    /// Of so many `what`, a word for many.
    pub fn of(what: &'static str, total: u64) -> Arc<Self> {
        let bar = ProgressBar::new(total);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {pos} of {len} {msg}, {elapsed}, {eta} left")
        {
            bar.set_style(style);
        }
        bar.set_message(what);
        Arc::new(Self::on(bar, what, total, true))
    }

    /// One that nobody sees.
    pub fn unseen() -> Arc<Self> {
        Arc::new(Self::on(ProgressBar::hidden(), "", 0, false))
    }

    fn on(bar: ProgressBar, what: &'static str, total: u64, shown: bool) -> Self {
        Self {
            bar,
            what,
            total: AtomicU64::new(total),
            done: AtomicU64::new(0),
            begun: Instant::now(),
            shown,
        }
    }

    /// There are so many more to do.
    pub fn more(&self, count: u64) {
        self.bar.inc_length(count);
        self.total.fetch_add(count, Ordering::Relaxed);
    }

    /// So many more are done.
    pub fn add(&self, count: u64) {
        self.bar.inc(count);
        if let Some(line) = self.counted(count).filter(|_| self.shown && self.bar.is_hidden()) {
            // Standard error may be closed; then nobody reads it.
            let _ = writeln!(std::io::stderr(), "{line}, {:.0?}", self.begun.elapsed());
        }
    }

    /// A line when another part of the whole is done.
    fn counted(&self, count: u64) -> Option<String> {
        let total = self.total.load(Ordering::Relaxed);
        let part = (total / LINES).max(1);
        let before = self.done.fetch_add(count, Ordering::Relaxed);
        let done = before + count;
        (done / part > before / part).then(|| format!("{done} of {total} {}", self.what))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_told_of_in_fifty_lines_and_a_short_one_in_each_that_is_done() {
        let lines = |total, at_once| {
            let progress = Progress::on(ProgressBar::hidden(), "seeds", 0, true);
            progress.more(total);
            let told = (0..total / at_once).filter_map(|_| progress.counted(at_once));
            told.collect::<Vec<_>>()
        };
        assert_eq!(lines(3, 1), ["1 of 3 seeds", "2 of 3 seeds", "3 of 3 seeds"]);
        let long = lines(50_000, 1);
        assert_eq!((long.len(), long[0].as_str()), (50, "1000 of 50000 seeds"));
        assert_eq!(long[49], "50000 of 50000 seeds");
        assert_eq!(lines(100, 7).len(), 14, "what is done at once is told of at once");
    }
}
