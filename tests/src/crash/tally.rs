//! What a run came to, counted, as the table of the README.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The longest of them.
const RECOVERIES_SHOWN: usize = 20;

/// Counts of one world, or of several together.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: BTreeMap<(&'static str, String), u64>,
    /// Every SIGKILL.
    pub kills: u64,
    longest_settling: (Duration, String),
    recoveries: BTreeMap<String, Duration>,
}

impl Tally {
    /// One more of `what` in a section.
    pub fn count(&mut self, section: &'static str, what: impl Into<String>) {
        *self.counts.entry((section, what.into())).or_default() += 1;
    }

    /// After the last operation had ended it took so long until every invariant held; what held last.
    pub fn settled(&mut self, took: Duration, last: String) {
        if took > self.longest_settling.0 {
            self.longest_settling = (took, last);
        }
    }

    /// From the start of a program that was killed at a point to the end of its operation; the last line of `story`
    /// says which.
    pub fn recovered(&mut self, took: Duration, story: &str) {
        let line = story.lines().last().unwrap_or_default().trim();
        let longest = self.recoveries.entry(line.to_owned()).or_default();
        *longest = took.max(*longest);
    }

    /// Adds another world's.
    pub fn add(&mut self, other: Self) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        self.kills += other.kills;
        let (took, last) = other.longest_settling;
        self.settled(took, last);
        for (story, took) in other.recoveries {
            self.recovered(took, &story);
        }
    }

    /// How often `what` was counted.
    pub fn of(&self, section: &'static str, what: &str) -> u64 {
        let key = (section, what.to_owned());
        self.counts.get(&key).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for ((of, what), count) in &self.counts {
            if section != *of {
                section = of;
                writeln!(f, "{of}")?;
            }
            writeln!(f, "  {what:<58}{count:>8}")?;
        }
        writeln!(f, "{:<60}{:>8}", "SIGKILLs", self.kills)?;
        let (longest, last) = &self.longest_settling;
        let longest = longest.as_secs_f64();
        writeln!(
            f,
            "{:<60}{longest:>6.1} s",
            "longest until everything had settled"
        )?;
        writeln!(f, "  it waited for: {last}")?;
        if self.recoveries.is_empty() {
            return Ok(());
        }
        writeln!(f, "longest from a restart to the end of the operation")?;
        let mut recoveries: Vec<_> = self.recoveries.iter().collect();
        recoveries.sort_by_key(|(_, took)| std::cmp::Reverse(**took));
        for (story, took) in recoveries.into_iter().take(RECOVERIES_SHOWN) {
            writeln!(f, "  {story:<58}{:>6.1} s", took.as_secs_f64())?;
        }
        Ok(())
    }
}
