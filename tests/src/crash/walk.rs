//! Kills the programs at every named point of every scene, one kill a time: a scene is played once undisturbed, which
//! tells what points it passes, then again for each of them.
//!
//! The invariant: a point that the programs have and no scene passes is found ([`Walked::missing`]).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hostler_agent::failpoint::Point as OfAgent;
use hostler_common::rpc::operations::v1::OperationState;
use hostler_coordinator::failpoint::Point as OfCoordinator;
use tokio::task::JoinSet;

use super::drive::{Course, Driver};
use super::round::{Has, Victim};
use super::scenes::Scene;
use super::tally::Tally;
use super::trap::{Action, Trap};
use super::world::{ATTEMPTS, Setting, World};
use crate::programs;
use crate::progress::Progress;

/// A plain operation whose programs are killed once is taken so often at most: the lease of its agent may run out
/// while it dials again.
const TAKEN_AT_MOST: u32 = 3;
/// A point that a race made a scene not pass is tried so often.
const TRIES: u32 = 3;

/// After the end of a scene its last points are passed within this.
const PASSED_WITHIN: Duration = Duration::from_secs(2);

/// How much is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Each point of a hypervisor's operations once, and each of a pool's that its work makes different.
    Short,
    /// Each point of each scene, at every passing.
    Long,
}

/// A named point of one of the programs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub victim: Victim,
    /// Its name.
    pub point: String,
}

/// What a walk came to.
#[derive(Debug, Default)]
pub struct Walked {
    /// What happened.
    pub tally: Tally,
    /// Where a program was killed.
    pub places: BTreeSet<Place>,
}

impl Walked {
    /// The points of the programs at which nothing was killed.
    pub fn missing(&self) -> Vec<&'static str> {
        let coordinator = OfCoordinator::ALL.iter();
        let coordinator = coordinator.map(|point| (Victim::Coordinator, point.name()));
        let agent = OfAgent::ALL.iter().map(|point| (Victim::Agent, point.name()));
        let killed = |(victim, name): &(Victim, &str)| {
            let place = Place {
                victim: *victim,
                point: (*name).to_owned(),
            };
            !self.places.contains(&place)
        };
        let missing = coordinator.chain(agent).filter(killed);
        missing.map(|(_, name)| name).collect()
    }

    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.tally.add(other.tally);
        self.places.extend(other.places);
    }
}

/// The worlds of hypervisors, each with its scenes.
const HYPERVISORS: [(&str, &[Scene]); 5] = [
    ("", &[Scene::Create]),
    ("", &[Scene::Destroy]),
    ("", &[Scene::Undone, Scene::Cancelled, Scene::Unqueued]),
    ("", &[Scene::Attention, Scene::Resumed, Scene::Held]),
    // Nobody is waited for.
    (
        "host_patience = '1s'\nresume_patience = '1s'\n",
        &[Scene::Absent, Scene::GivenUp],
    ),
];

/// The worlds of pools.
const POOLS: [(&str, &[Scene]); 6] = [
    ("", &[Scene::Expand]),
    ("", &[Scene::Delete]),
    ("", &[Scene::Shrink]),
    ("", &[Scene::Restore]),
    ("", &[Scene::Backup]),
    ("", &[Scene::Verify]),
];

/// Walks the worlds of what is asked for, side by side; only those with the scene `only`, when there is one.
///
/// # Errors
/// When an invariant is broken in any of them.
///
/// # Panics
/// When the programs have no named points.
pub async fn walk(
    has: Has,
    length: Length,
    only: Option<&str>,
    progress: &Arc<Progress>,
) -> anyhow::Result<Walked> {
    demand_points();
    let worlds: &[(&str, &[Scene])] = match has {
        Has::Hypervisor => &HYPERVISORS,
        Has::HypervisorAndPool => &POOLS,
    };
    let mut walks = JoinSet::new();
    for (operations, scenes) in worlds {
        let wanted = |scene: &&Scene| only.is_none_or(|only| format!("{scene:?}") == only);
        let scenes: Vec<_> = scenes.iter().filter(wanted).copied().collect();
        if scenes.is_empty() {
            continue;
        }
        let setting = Setting {
            has,
            lease: 1,
            operations,
        };
        walks.spawn(world(setting, scenes, length, Arc::clone(progress)));
    }
    if has == Has::Hypervisor && only.is_none() {
        walks.spawn(first_reports());
        walks.spawn(old_operations());
    }
    let mut walked = Walked::default();
    while let Some(world) = walks.join_next().await {
        walked.add(world.context("a world panicked")??);
    }
    Ok(walked)
}

#[allow(clippy::disallowed_methods)] // Tests start programs.
fn demand_points() {
    for name in ["hostler-coordinator", "hostler-agent"] {
        let said = programs::command(name).arg("--version").output().expect(name);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(
            said.contains("with failpoints"),
            "{said:?} has no named points: cargo build --bins --all-features, or tests/run.sh"
        );
    }
}

async fn world(
    setting: Setting,
    scenes: Vec<Scene>,
    length: Length,
    progress: Arc<Progress>,
) -> anyhow::Result<Walked> {
    let course = Course {
        seed: 0,
        kills: 0,
        has: setting.has,
    };
    let mut walker = Walker {
        driver: Driver::begin(course, World::begin(setting)?),
        places: BTreeSet::new(),
        length,
        has: setting.has,
        playing: Scene::Create,
    };
    match walker.whole(&scenes, &progress).await {
        Ok(()) => Ok(Walked {
            tally: walker.driver.tally,
            places: walker.places,
        }),
        Err(error) => {
            let short = match length {
                Length::Short => " --short",
                Length::Long => "",
            };
            let scene = walker.playing;
            let replay = format!("points{short} --scene {scene:?}");
            bail!(walker.driver.tell(&error, &replay, &format!("{scene:?}")))
        }
    }
}

struct Walker {
    driver: Driver,
    places: BTreeSet<Place>,
    length: Length,
    has: Has,
    playing: Scene,
}

/// A point of a scene, and at which of its passings the program dies.
#[derive(Debug, Clone)]
struct Job {
    place: Place,
    nth: u64,
}

impl Walker {
    async fn whole(&mut self, scenes: &[Scene], progress: &Progress) -> anyhow::Result<()> {
        self.driver.settle(None, Vec::new()).await?;
        for scene in scenes {
            self.playing = *scene;
            let jobs = self.rehearse(*scene).await?;
            progress.more(jobs.len() as u64);
            for job in jobs {
                self.kill_at(*scene, &job).await?;
                progress.add(1);
            }
        }
        self.driver.last_look()
    }

    /// Plays the scene undisturbed; what it passes is what can be hit.
    async fn rehearse(&mut self, scene: Scene) -> anyhow::Result<Vec<Job>> {
        self.driver.prepare(scene).await?;
        let traps = [
            (Victim::Coordinator, self.driver.world.coordinator_trap.clone()),
            (Victim::Agent, self.driver.world.agent_trap.clone()),
        ];
        for (_, trap) in &traps {
            trap.forget();
        }
        let _ = writeln!(self.driver.story, "{scene:?}, undisturbed");
        let before = self.driver.look();
        let told = self.driver.play(scene).await?;
        self.driver.settle(Some(before), told).await?;
        let mut jobs = Vec::new();
        for (victim, trap) in traps {
            for (point, passings) in trap.passed() {
                let place = Place { victim, point };
                if self.length == Length::Short && !belongs(scene, self.has, &place) {
                    continue;
                }
                let job = |nth| Job {
                    place: place.clone(),
                    nth,
                };
                match self.length {
                    // Another passing for another point: a different step each.
                    Length::Short => jobs.push(job(1 + jobs.len() as u64 % passings)),
                    Length::Long => jobs.extend((1..=passings).map(job)),
                }
            }
        }
        Ok(jobs)
    }

    async fn kill_at(&mut self, scene: Scene, job: &Job) -> anyhow::Result<()> {
        let Job { place, nth } = job;
        for _ in 0..TRIES {
            self.driver.prepare(scene).await?;
            let _ = writeln!(
                self.driver.story,
                "{scene:?}, the {:?} killed at {} {nth}",
                place.victim, place.point
            );
            let before = self.driver.look();
            let trap = self.trap(place.victim);
            trap.arm(&place.point, *nth, Action::Kill);
            let kills = self.driver.tally.kills;
            let told = self.driver.play(scene).await?;
            // What is passed after the client heard the end is passed soon; the rest was missed.
            let missed = Instant::now() + PASSED_WITHIN;
            let late = trap.clone();
            self.driver
                .until("the point is passed, or it is too late", |_| {
                    late.fell() || !late.is_armed() || Instant::now() > missed
                })
                .await?;
            let fell = late.fell() || !late.is_armed();
            if fell {
                self.driver.until("it is started again", |_| !late.fell()).await?;
            }
            trap.disarm();
            self.driver.revived = None;
            let made = self.driver.settle(Some(before), told).await?;
            if scene.is_plain() {
                for operation in &made {
                    ensure!(
                        operation.state() == OperationState::Completed
                            && operation.attempts <= TAKEN_AT_MOST.min(ATTEMPTS),
                        "{} is {:?} after {} attempts: {}",
                        operation.kind,
                        operation.state(),
                        operation.attempts,
                        operation.message
                    );
                }
            }
            if fell && self.driver.tally.kills > kills {
                self.places.insert(place.clone());
                self.driver
                    .tally
                    .count("kills by point", format!("{:?} {}", place.victim, place.point));
                self.driver.tally.count("kills by scene", format!("{scene:?}"));
                return Ok(());
            }
        }
        self.driver.tally.count(
            "points passed when nothing was killed, and not again",
            format!("{scene:?} {}", place.point),
        );
        Ok(())
    }

    fn trap(&self, victim: Victim) -> Trap {
        match victim {
            Victim::Agent => self.driver.world.agent_trap.clone(),
            Victim::Coordinator | Victim::Both => self.driver.world.coordinator_trap.clone(),
        }
    }
}

/// Whether the short form kills at this place of the scene.
fn belongs(scene: Scene, has: Has, place: &Place) -> bool {
    let starts = |names: &[&str]| names.iter().any(|name| place.point.starts_with(name));
    match (scene, place.victim) {
        (Scene::Create | Scene::Destroy, _) => true,
        (Scene::Undone, Victim::Agent) => starts(&["failed.", "undo.", "undone."]),
        (Scene::Cancelled, Victim::Agent) => starts(&["failed."]),
        (Scene::Cancelled | Scene::Unqueued, _) => starts(&["cancel."]),
        (Scene::Attention, Victim::Agent) => starts(&["undo_failed."]),
        (Scene::Attention, _) => starts(&["resolve."]),
        (Scene::Resumed, Victim::Agent) => starts(&["start.", "took."]),
        (Scene::Resumed, _) => starts(&["expiry.", "take."]),
        (Scene::Held, _) => starts(&["hold.", "ran."]),
        (Scene::Absent | Scene::GivenUp, Victim::Agent) => starts(&["aside."]),
        (Scene::Absent | Scene::GivenUp, _) => starts(&["absence."]),
        (_, Victim::Agent) => {
            has == Has::HypervisorAndPool
                && starts(&["planned.", "started.after", "done.before", "ended.before"])
        }
        _ => starts(&["end.before"]),
    }
}

/// A fleet's first report is stored, or not, when the coordinator dies.
async fn first_reports() -> anyhow::Result<Walked> {
    let mut walked = Walked::default();
    for point in [
        OfCoordinator::EnrollBefore,
        OfCoordinator::EnrollAfter,
        OfCoordinator::Reported,
    ] {
        let setting = Setting {
            has: Has::Hypervisor,
            lease: 1,
            operations: "",
        };
        let mut world = World::make(setting)?;
        world.coordinator_trap.arm(point.name(), 1, Action::Kill);
        world.start();
        let course = Course {
            seed: 0,
            kills: 0,
            has: Has::Hypervisor,
        };
        let mut driver = Driver::begin(course, world);
        let trap = driver.world.coordinator_trap.clone();
        driver
            .until("the first report kills the coordinator", |driver| {
                !trap.is_armed() && driver.tally.kills == 1
            })
            .await?;
        driver.settle(None, Vec::new()).await?;
        walked.killed(driver.tally, point);
    }
    Ok(walked)
}

/// Old operations are removed, or not, when the coordinator dies.
async fn old_operations() -> anyhow::Result<Walked> {
    let mut walked = Walked::default();
    let setting = Setting {
        has: Has::Hypervisor,
        lease: 1,
        operations: "keep_count = 2\n",
    };
    let course = Course {
        seed: 0,
        kills: 0,
        has: Has::Hypervisor,
    };
    for point in [OfCoordinator::RetentionBefore, OfCoordinator::RetentionAfter] {
        let mut driver = Driver::begin(course, World::begin(setting)?);
        driver.settle(None, Vec::new()).await?;
        for scene in [Scene::Create, Scene::Destroy, Scene::Create, Scene::Destroy] {
            driver.prepare(scene).await?;
            let before = driver.look();
            let told = driver.play(scene).await?;
            driver.settle(Some(before), told).await?;
        }
        let trap = driver.world.coordinator_trap.clone();
        trap.arm(point.name(), 1, Action::Kill);
        let kills = driver.tally.kills;
        // It looks for old ones when it starts.
        driver
            .world
            .kill(Victim::Coordinator, "between operations", &mut driver.tally);
        driver.world.start_coordinator();
        driver
            .until("the cleaning kills the coordinator", |driver| {
                !trap.is_armed() && driver.tally.kills == kills + 2
            })
            .await?;
        let kept = crate::wait::until("the newest two are kept", || async {
            let history = driver.world.client.history().await?;
            (history.len() == 2).then_some(history)
        })
        .await;
        ensure!(kept.iter().all(|operation| operation.ended.is_some()), "{kept:?}");
        walked.killed(driver.tally, point);
    }
    Ok(walked)
}

impl Walked {
    fn killed(&mut self, tally: Tally, point: OfCoordinator) {
        self.tally.add(tally);
        self.tally.count(
            "kills by point",
            format!("{:?} {}", Victim::Coordinator, point.name()),
        );
        self.places.insert(Place {
            victim: Victim::Coordinator,
            point: point.name().to_owned(),
        });
    }
}
