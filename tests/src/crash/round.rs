//! What a round does and what befalls it, drawn from the dice before it begins. Pure: the machine's speed changes
//! when something happens, never what is tried.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;

/// One round: an operation or two, and the blows that fall meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// The operation that the moments count the lines of.
    pub work: Work,
    /// Whether the hypervisor changes beside a work on the pool.
    pub beside: Beside,
    /// How many parts of 50 ms an activation has.
    pub parts: u64,
    /// When somebody cancels the work.
    pub cancel: Option<Moment>,
    /// In the order of their moments.
    pub blows: Vec<Blow>,
}

/// What is asked for. What that means follows from the state it meets: only what is out of service is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The hypervisor goes into service or out of it.
    Toggle,
    /// The pool grows or shrinks.
    Resize {
        /// Grows where both can be done.
        lean: Lean,
        /// By how much, in MiB.
        mebibytes: u64,
    },
    /// The pool is backed up.
    Backup,
    /// A file that was spoilt comes back.
    Restore,
    /// The newest backup is checked.
    Verify,
    /// The oldest backup goes, unless it is the only one.
    Delete,
}

/// Which way a pool goes that can go both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lean {
    /// It grows.
    Grow,
    /// It shrinks.
    Shrink,
}

/// What happens beside the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// The hypervisor goes into service or out of it.
    Toggle,
}

/// When something happens. An operation that ends before its moment is hit right after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// So long after this many lines of the work were heard; 0 lines: after the call was begun.
    Line(u64, Duration),
    /// When everything has settled and nothing runs.
    Idle,
}

/// Who is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The coordinator.
    Coordinator,
    /// The agent.
    Agent,
    /// Both at once.
    Both,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// SIGKILL; it is started again after so long.
    Kill {
        /// How long it is away.
        away: Duration,
        /// It is killed again so long after its start.
        again: Option<Duration>,
    },
    /// SIGSTOP for longer than its lease, then SIGCONT.
    Pause,
}

/// One blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blow {
    /// When.
    pub at: Moment,
    /// Whom.
    pub victim: Victim,
    /// How.
    pub how: How,
}

/// What a world has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// A hypervisor.
    Hypervisor,
    /// A hypervisor and a storage pool.
    HypervisorAndPool,
}

/// So many parts of 50 ms each has an activation that is quick, and one that outlasts a lease.
const PARTS: [u64; 2] = [6, 60];

/// Blows of a storm: more than there are attempts.
const STORM: u64 = 8;

impl Round {
    /// The next round.
    pub fn draw(dice: &mut Dice, has: Has) -> Self {
        let work = match has {
            Has::Hypervisor => Work::Toggle,
            Has::HypervisorAndPool => Work::draw(dice),
        };
        let beside = match work != Work::Toggle && dice.percent(50) {
            true => Beside::Toggle,
            false => Beside::Nothing,
        };
        // Now and then the agent is killed until the attempts are used up.
        let storm = dice.percent(5);
        let parts = match storm || dice.percent(30) {
            true => PARTS[1],
            false => PARTS[0],
        };
        let lines = work.lines();
        let cancel = dice.percent(25).then(|| Moment::draw(dice, lines));
        let mut blows: Vec<_> = match storm {
            true => (0..STORM).map(|blow| Blow::of_storm(dice, blow)).collect(),
            false => (0..=dice.below(4)).map(|_| Blow::draw(dice, lines)).collect(),
        };
        blows.sort_by_key(|blow| blow.at);
        Self {
            work,
            beside,
            parts,
            cancel,
            blows,
        }
    }
}

impl Work {
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(12) {
            0..=1 => Self::Toggle,
            2..=5 => Self::Resize {
                lean: match dice.percent(50) {
                    true => Lean::Grow,
                    false => Lean::Shrink,
                },
                mebibytes: 60 + dice.below(200),
            },
            6..=7 => Self::Backup,
            8..=9 => Self::Restore,
            10 => Self::Verify,
            _ => Self::Delete,
        }
    }

    /// About so many lines it says.
    fn lines(self) -> u64 {
        match self {
            Self::Toggle => 10,
            Self::Resize { .. } => 8,
            Self::Verify | Self::Delete => 6,
            Self::Backup | Self::Restore => 16,
        }
    }
}

impl Moment {
    fn draw(dice: &mut Dice, lines: u64) -> Self {
        // Most that can go wrong is right after a line.
        let lines = dice.below(lines);
        let within = match (lines, dice.percent(50)) {
            (0, _) => 12,
            (_, true) => 30,
            (_, false) => 400,
        };
        Self::Line(lines, Duration::from_millis(dice.below(within)))
    }
}

impl Blow {
    /// Each after the lines of another attempt.
    fn of_storm(dice: &mut Dice, number: u64) -> Self {
        Self {
            at: Moment::Line(3 + 2 * number, Duration::from_millis(dice.below(100))),
            victim: Victim::Agent,
            how: How::Kill {
                away: Duration::from_millis(dice.below(300)),
                again: None,
            },
        }
    }

    fn draw(dice: &mut Dice, lines: u64) -> Self {
        let at = match dice.percent(8) {
            true => Moment::Idle,
            false => Moment::draw(dice, lines),
        };
        let victim = match dice.below(10) {
            0..=4 => Victim::Coordinator,
            5..=8 => Victim::Agent,
            _ => Victim::Both,
        };
        // A paused coordinator is one that cannot be reached; the lease is the agent's.
        let how = match victim == Victim::Agent && dice.percent(10) {
            true => How::Pause,
            false => How::Kill {
                away: Duration::from_millis(dice.below(300)),
                again: dice.percent(15).then(|| Duration::from_millis(dice.below(150))),
            },
        };
        Self { at, victim, how }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, activations of {} parts", self.work, self.parts)?;
        if self.beside == Beside::Toggle {
            f.write_str(" beside Toggle")?;
        }
        if let Some(moment) = self.cancel {
            write!(f, ", cancelled {moment}")?;
        }
        self.blows.iter().try_for_each(|blow| write!(f, "; {blow}"))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(lines, after) => write!(f, "{after:?} after line {lines}"),
            Self::Idle => f.write_str("between operations"),
        }
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Pause => write!(f, "pause {:?} {}", self.victim, self.at),
            How::Kill { again: None, .. } => write!(f, "kill {:?} {}", self.victim, self.at),
            How::Kill {
                again: Some(again), ..
            } => {
                write!(
                    f,
                    "kill {:?} {}, again {again:?} after its start",
                    self.victim, self.at
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_follow_from_the_seed_and_differ() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            let rounds = (0..50).map(|_| Round::draw(&mut dice, Has::HypervisorAndPool).to_string());
            rounds.collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        let rounds = draw(7).join("\n");
        for word in [
            "Toggle",
            "Resize",
            "Backup",
            "Restore",
            "Verify",
            "Delete",
            "cancelled",
            "pause Agent",
            "kill Both",
            "again",
            "between operations",
        ] {
            assert!(rounds.contains(word), "no {word} in {rounds}");
        }
    }
}
