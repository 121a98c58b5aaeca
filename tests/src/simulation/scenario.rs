//! What a seed decides before anything runs: how large the fleet is, how patient, how unlucky.

use std::path::Path;
use std::time::Duration;

use hostler_coordinator::config::{Config, OperationsConfig, SessionsConfig};

use super::dice::Dice;

/// One seed of so many is a large fleet.
const LARGE_EVERY: u64 = 100;

/// Of one seed.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// Hosts, each with an agent.
    pub(super) hosts: usize,
    /// Hypervisors on each.
    pub(super) hypervisors: usize,
    /// Clients that ask for things.
    pub(super) clients: usize,
    /// How long things fail.
    pub(super) storm: Duration,
    /// A client thinks at most so long between two calls, in milliseconds.
    pub(super) think_ms: u64,
    /// Between two faults, in milliseconds at most; 0 for none.
    pub(super) fault_ms: u64,
    /// How often a call of a step fails, in permille.
    pub(super) step_fails: u64,
    /// How often a step takes long, and how often longer than its deadline, in permille.
    pub(super) step_slow: (u64, u64),
    /// How often a message arrives twice, in permille.
    pub(super) twice: u64,
    /// One way of a message, in milliseconds.
    pub(super) latency_ms: (u64, u64),
    /// How long a commit takes, in milliseconds.
    pub(super) commit_ms: (u64, u64),
    /// The coordinator's.
    pub(super) config: Config,
}

/// How many times as long a late message takes.
pub(super) const LATE_TIMES: u32 = 20;

impl Scenario {
    /// Of `seed`.
    pub(super) fn of(seed: u64, dice: &mut Dice) -> Self {
        let large = seed % LARGE_EVERY == LARGE_EVERY - 1;
        let secs = |dice: &mut Dice, low, high| Duration::from_secs(dice.between(low, high));
        let operations = OperationsConfig {
            lease: secs(dice, 2, 31),
            max_attempts: u32::try_from(dice.between(1, 5)).unwrap_or(1),
            host_patience: secs(dice, 2, 60),
            resume_patience: secs(dice, 10, 120),
            take_patience: secs(dice, 60, 300),
            ..OperationsConfig::default()
        };
        let slowest = *dice.pick(&[3, 20, 200, 900]);
        // A sign of life and its answer fit well into three of them: who is silent for that long is gone.
        let heartbeat = dice.millis(if large { 4000 } else { 500.max(2 * slowest) }, 5001);
        let hosts = if large {
            dice.between(100, 301)
        } else {
            dice.between(1, 7)
        };
        Self {
            hosts: usize::try_from(hosts).unwrap_or(1),
            hypervisors: if large { 1 } else { 1 + dice.index(3) },
            clients: if large { 12 } else { 1 + dice.index(4) },
            storm: if large {
                secs(dice, 20, 40)
            } else {
                secs(dice, 20, 150)
            },
            think_ms: *dice.pick(&[200, 2_000, 8_000]),
            fault_ms: *dice.pick(&[0, 1_500, 5_000, 15_000]),
            step_fails: *dice.pick(&[0, 20, 150]),
            step_slow: (*dice.pick(&[0, 50, 300]), *dice.pick(&[0, 0, 10, 60])),
            twice: *dice.pick(&[0, 0, 30, 200]),
            latency_ms: (1, slowest),
            commit_ms: (0, *dice.pick(&[2, 30, 300])),
            config: Config {
                sessions: SessionsConfig { heartbeat },
                operations,
                ..unserved()
            },
        }
    }
}

/// The defaults, with certificates that nobody reads.
fn unserved() -> Config {
    let text = "[tls]\nca = '/nonexistent'\ncertificate = '/nonexistent'\nkey = '/nonexistent'";
    Config::parse(Path::new("simulation.toml"), text).expect("the least configuration")
}
