//! Many seeds, on every core, and what they came to.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Tally, Trace, run};
use crate::progress::Progress;

/// Seeds one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Seeds {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What they came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many were simulated.
    pub seeds: u64,
    /// Those that broke an invariant, with the first that each broke.
    pub broken: Vec<(u64, String)>,
    /// How often what happened.
    pub tally: Tally,
    /// How much time was simulated.
    pub simulated: Duration,
    /// How much time that took.
    pub took: Duration,
}

/// Runs `seeds` on every core. Each that has ended counts in `progress`.
///
/// # Panics
/// When a simulation does, which is a mistake in it.
pub fn run_all(seeds: Seeds, progress: &Progress) -> Summary {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let summary = Mutex::new(Summary::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds.count {
                        return;
                    }
                    let ended = run(seeds.first + number, Trace::Hashed);
                    progress.add(1);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.seeds += 1;
                    summary.simulated += ended.simulated;
                    for (what, count) in ended.tally {
                        *summary.tally.entry(what).or_default() += count;
                    }
                    if let Some(first) = ended.broken.into_iter().next() {
                        summary.broken.push((ended.seed, first));
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.broken.sort();
    summary.took = begun.elapsed();
    summary
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.tally {
            writeln!(f, "{count:>12}  {what}")?;
        }
        let hours = self.simulated.as_secs() / 3600;
        writeln!(f, "{:>12}  hours simulated, in {:.0?}", hours, self.took)?;
        writeln!(
            f,
            "{:>12}  seeds, of which {} broke an invariant",
            self.seeds,
            self.broken.len()
        )?;
        for (seed, broken) in &self.broken {
            writeln!(
                f,
                "seed {seed}: {broken}\n    replay: simulate --seed {seed} --trace"
            )?;
        }
        Ok(())
    }
}
