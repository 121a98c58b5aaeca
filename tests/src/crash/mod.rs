//! The real programs, killed over and over: a seed draws what is asked for and what is killed when; after each round
//! everything must settle, and named invariants are held against what the host itself says.
//!
//! ```text
//!  dice ──▶ round ──▶ drive ──▶ client ── calls ──▶ coordinator ══ agent ──▶ host
//!                       │ strikes: world                                       │
//!                       └──────────▶ invariants ◀── evidence: truth ◀──────────┘
//! ```
//!
//! What is drawn never depends on what happened, so one seed asks and strikes the same again. When exactly a blow
//! falls is the machine's: so many milliseconds after the n-th line of an operation.

pub mod client;
pub mod dice;
pub mod drive;
pub mod invariants;
pub mod round;
pub mod scenes;
pub mod tally;
pub mod trap;
pub mod truth;
pub mod walk;
pub mod world;

use std::sync::Arc;

use anyhow::Context as _;
use drive::Course;
use round::Has;
use tally::Tally;
use tokio::task::JoinSet;

use crate::progress::Progress;

/// Several worlds side by side, each with a seed of its own: this one, and those after it.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first world's seed.
    pub seed: u64,
    /// How many worlds there are.
    pub worlds: u64,
    /// Kills of all of them together, at least.
    pub kills: u64,
    /// What each has.
    pub has: Has,
}

impl Campaign {
    /// Runs them to their end. Each kill counts in `progress`.
    ///
    /// # Errors
    /// When an invariant is broken in any of them.
    pub async fn run(self, progress: &Arc<Progress>) -> anyhow::Result<Tally> {
        let mut worlds = JoinSet::new();
        for world in 0..self.worlds {
            let course = Course {
                seed: self.seed.wrapping_add(world),
                kills: self.kills.div_ceil(self.worlds.max(1)),
                has: self.has,
            };
            worlds.spawn(drive::run(course, Arc::clone(progress)));
        }
        let mut tally = Tally::default();
        while let Some(world) = worlds.join_next().await {
            tally.add(world.context("a world panicked")??);
        }
        Ok(tally)
    }
}
