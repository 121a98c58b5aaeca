//! What every part of a simulation shares: the dice, the trace, the counts, and what was found broken.
//!
//! Invariant: a line of the trace depends on the seed alone, so that two runs of one seed have the same hash.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::dice::Dice;
use super::scenario::Scenario;

/// How often things happened, by name.
pub type Tally = BTreeMap<&'static str, u64>;

/// Whether lines are printed or only hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Line by line to standard output, for a person.
    Printed,
    /// For comparisons.
    Hashed,
}

/// Clones share it.
#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

struct Inner {
    begun: Instant,
    dice: Mutex<Dice>,
    scenario: Scenario,
    trace: Trace,
    said: Mutex<Said>,
    tally: Mutex<Tally>,
    calm: AtomicBool,
    clock_offset: AtomicI64,
}

#[derive(Default)]
struct Said {
    hash: DefaultHasher,
    broken: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A new one, of which `seed` decides everything.
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::of(seed, &mut dice);
        Self(Arc::new(Inner {
            begun: Instant::now(),
            dice: Mutex::new(dice),
            scenario,
            trace,
            said: Mutex::default(),
            tally: Mutex::default(),
            calm: AtomicBool::new(false),
            clock_offset: AtomicI64::new(0),
        }))
    }

    /// What the seed decided.
    pub(super) fn scenario(&self) -> &Scenario {
        &self.0.scenario
    }

    /// Simulated time since the begin.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Throws the dice.
    pub(super) fn roll<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut lock(&self.0.dice))
    }

    /// Whether a fault of this permille strikes now. None does once all is calm.
    pub(super) fn strikes(&self, permille: u64) -> bool {
        !self.is_calm() && self.roll(|dice| dice.happens(permille))
    }

    /// From now on nothing fails any more.
    pub(super) fn calm_down(&self) {
        self.0.calm.store(true, Ordering::Relaxed);
        self.note("calm: nothing fails from here on");
    }

    /// Whether nothing fails any more.
    pub(super) fn is_calm(&self) -> bool {
        self.0.calm.load(Ordering::Relaxed)
    }

    /// How far the wall clock is off, in milliseconds.
    pub(super) fn clock_offset(&self) -> i64 {
        self.0.clock_offset.load(Ordering::Relaxed)
    }

    /// Steps the wall clock.
    pub(super) fn step_clock(&self, millis: i64) {
        self.0.clock_offset.fetch_add(millis, Ordering::Relaxed);
    }

    /// A line of the trace.
    pub(super) fn note(&self, line: impl AsRef<str>) {
        let mut said = lock(&self.0.said);
        let at = self.elapsed().as_millis();
        said.hash.write_u128(at);
        said.hash.write(line.as_ref().as_bytes());
        if self.0.trace == Trace::Printed {
            // Who reads may have gone.
            let _ = writeln!(
                std::io::stdout(),
                "{:>8}.{:03} {}",
                at / 1000,
                at % 1000,
                line.as_ref()
            );
        }
    }

    /// One more of these.
    pub(super) fn count(&self, what: &'static str) {
        *lock(&self.0.tally).entry(what).or_default() += 1;
    }

    /// An invariant does not hold.
    pub(super) fn broke(&self, invariant: &str, how: impl AsRef<str>) {
        let line = format!("{invariant}: {}", how.as_ref());
        self.note(format!("BROKEN {line}"));
        let mut said = lock(&self.0.said);
        if said.broken.len() < 20 {
            said.broken.push(line);
        }
    }

    /// Unless it holds, `invariant` is broken.
    pub(super) fn check(&self, invariant: &str, holds: bool, how: impl FnOnce() -> String) {
        if !holds {
            self.broke(invariant, how());
        }
    }

    /// Whether an invariant is broken.
    pub(super) fn is_broken(&self) -> bool {
        !lock(&self.0.said).broken.is_empty()
    }

    /// Hash of the trace, what is broken, and the counts.
    pub(super) fn end(&self) -> (u64, Vec<String>, Tally) {
        let mut said = lock(&self.0.said);
        let broken = std::mem::take(&mut said.broken);
        (said.hash.finish(), broken, lock(&self.0.tally).clone())
    }
}
