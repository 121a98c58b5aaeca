//! How long the agent waits before it dials the coordinator again. Pure.
//!
//! The invariant: waits grow only while no session comes up. Where one came up a coordinator is there, perhaps one that
//! is restarted again and again, and what runs must not wait longer for it each time.

use std::time::Duration;

use hostler_common::retry::Waits;

use super::dial::Trouble;
use super::live::Gone;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// After a refusal that only a person cures.
const REFUSED_WAIT: Duration = Duration::from_secs(10);
/// From the beginning of a session to the next at the least, however soon it ends.
const APART: Duration = Duration::from_secs(1);

/// The waits between one session and the next.
#[derive(Debug)]
pub(super) struct Redial(Waits);

impl Redial {
    pub(super) fn new() -> Self {
        Self(Waits::new(FIRST_WAIT, LONGEST_WAIT))
    }

    /// Before the next try.
    pub(super) fn after(&mut self, gone: &Gone) -> Duration {
        match gone {
            Gone::Stopping => Duration::ZERO,
            Gone::Never(Trouble::Person(_)) => self.0.next_wait().max(REFUSED_WAIT),
            Gone::Never(Trouble::Passing(_)) => self.0.next_wait(),
            Gone::After(lasted, _) => {
                self.0.reset();
                self.0.next_wait() + APART.saturating_sub(*lasted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble() -> Trouble {
        Trouble::Passing("it is gone".to_owned())
    }

    #[test]
    fn sessions_that_end_soon_are_no_reason_to_wait_longer_each_time() {
        let mut redial = Redial::new();
        let short = Duration::from_millis(300);
        for _ in 0..20 {
            let wait = redial.after(&Gone::After(short, trouble()));
            assert!(wait <= APART + FIRST_WAIT, "{wait:?}");
            assert!(
                wait + short >= APART,
                "sessions follow each other too fast: {wait:?}"
            );
        }
        let wait = redial.after(&Gone::After(Duration::from_secs(60), trouble()));
        assert!(wait <= FIRST_WAIT * 3 / 2, "{wait:?}");
    }

    #[test]
    fn a_coordinator_that_is_away_is_dialled_ever_more_seldom_and_one_that_came_up_as_at_first() {
        let mut redial = Redial::new();
        let waits: Vec<_> = (0..12).map(|_| redial.after(&Gone::Never(trouble()))).collect();
        assert!(waits[11] >= LONGEST_WAIT / 2, "{waits:?}");
        redial.after(&Gone::After(Duration::ZERO, trouble()));
        let wait = redial.after(&Gone::Never(trouble()));
        assert!(wait <= FIRST_WAIT * 3, "{wait:?}");
        let refused = Gone::Never(Trouble::Person("a foreign certificate".to_owned()));
        assert!(redial.after(&refused) >= REFUSED_WAIT);
    }
}
