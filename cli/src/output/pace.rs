//! Which of many measures become lines. It prints nothing. The last measure of each piece of work is always told,
//! since a bar or a pause would swallow it.

use std::time::Duration;

use hostler_common::measure;
use hostler_common::rpc::hostler::agent::v1::Measure;
use tokio::time::Instant;

/// The longest that long work goes on without a line.
const EVERY: Duration = Duration::from_secs(10);
/// A line is also due once so much more is done, in percent.
const STRIDE: u64 = 10;

/// What becomes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Only the last measure: a bar shows the others.
    TheLast,
    /// One at times, and the last.
    NowAndThen,
}

/// The measures so far.
#[derive(Debug)]
pub(super) struct Pace {
    telling: Telling,
    work: Option<Work>,
}

/// A piece of work that is being measured.
#[derive(Debug)]
struct Work {
    what: String,
    told_at: Instant,
    told_percent: u64,
    /// The newest measure, unless it has become a line.
    untold: Option<String>,
}

impl Pace {
    /// Nothing so far.
    pub(super) fn new(telling: Telling) -> Self {
        Self { telling, work: None }
    }

    /// The lines that are due at a new measure, which `line` says: the last one of the work before it, and its own.
    pub(super) fn lines(&mut self, measure: &Measure, line: String, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        let mut work = match self.work.take() {
            Some(work) if work.what == measure.what => work,
            before => {
                due.extend(before.and_then(|work| work.untold));
                Work {
                    what: measure.what.clone(),
                    told_at: now,
                    told_percent: 0,
                    untold: None,
                }
            }
        };
        let percent = measure::percent(measure);
        let is_due = now.duration_since(work.told_at) >= EVERY || percent >= work.told_percent + STRIDE;
        if self.telling == Telling::NowAndThen && is_due {
            (work.told_at, work.told_percent, work.untold) = (now, percent, None);
            due.push(line);
        } else {
            work.untold = Some(line);
        }
        self.work = Some(work);
        due
    }

    /// The last measure, unless it has become a line. What is measured next is new work.
    pub(super) fn last(&mut self) -> Option<String> {
        self.work.take().and_then(|work| work.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of measures given as work, seconds and percent.
    fn told(telling: Telling, measures: &[(&str, u64, u64)]) -> Vec<String> {
        let start = Instant::now();
        let mut pace = Pace::new(telling);
        let mut lines = Vec::new();
        for (what, seconds, percent) in measures {
            let measure = Measure {
                what: (*what).to_owned(),
                done_bytes: *percent,
                total_bytes: 100,
                ..Measure::default()
            };
            let now = start + Duration::from_secs(*seconds);
            lines.extend(pace.lines(&measure, format!("{what} {percent}"), now));
        }
        lines.extend(pace.last());
        assert_eq!(pace.last(), None, "it is told once");
        lines
    }

    #[test]
    fn quick_work_is_told_in_strides_and_slow_work_in_time() {
        let quick: Vec<_> = (0..=100).map(|percent| ("a", 0, percent)).collect();
        let lines = told(Telling::NowAndThen, &quick);
        let expected: Vec<_> = (1..=10).map(|stride| format!("a {}", stride * 10)).collect();
        assert_eq!(lines, expected);
        let slow: Vec<_> = (0..35).map(|second| ("a", second, 1)).collect();
        assert_eq!(
            told(Telling::NowAndThen, &slow).len(),
            4,
            "at 10, 20, 30 and the last"
        );
    }

    #[test]
    fn the_last_measure_of_each_work_is_told() {
        let measures = [("a", 0, 1), ("a", 1, 9), ("b", 2, 3), ("b", 3, 4)];
        for telling in [Telling::NowAndThen, Telling::TheLast] {
            assert_eq!(told(telling, &measures), ["a 9", "b 4"]);
        }
    }

    #[test]
    fn beside_a_bar_only_the_last_is_told() {
        let measures: Vec<_> = (0..=100).map(|percent| ("a", percent, percent)).collect();
        assert_eq!(told(Telling::TheLast, &measures), ["a 100"]);
    }
}
