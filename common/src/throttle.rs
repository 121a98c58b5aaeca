//! Bounds how often one kind of line is logged, for what a stranger can cause at will.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets a number of lines pass in each period, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    at_most: u32,
    period: Duration,
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    passed: u32,
    held_back: u64,
}

impl Throttle {
    /// At most `at_most` lines in each `period`.
    pub const fn new(at_most: u32, period: Duration) -> Self {
        Self {
            at_most,
            period,
            window: Mutex::new(None),
        }
    }

    /// Some when a line may be logged now, with the number that was held back since the last one that passed.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let window = window.get_or_insert(Window {
            began: now,
            passed: 0,
            held_back: 0,
        });
        if now.duration_since(window.began) >= self.period {
            (window.began, window.passed) = (now, 0);
        }
        if window.passed >= self.at_most {
            window.held_back += 1;
            return None;
        }
        window.passed += 1;
        Some(std::mem::take(&mut window.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_becomes_a_few_lines_and_a_count() {
        let throttle = Throttle::new(2, Duration::from_secs(10));
        let begin = Instant::now();
        let passed: Vec<_> = (0..100).filter_map(|_| throttle.pass_at(begin)).collect();
        assert_eq!(passed, [0, 0]);
        assert_eq!(throttle.pass_at(begin + Duration::from_secs(10)), Some(98));
    }
}
