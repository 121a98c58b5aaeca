//! What goes wrong, and when it is over: crashes, partitions, resets, slow links, full disks, stepped clocks.

use std::collections::BTreeMap;

use tokio::time::{Instant, sleep_until};

use super::absences::Absences;
use super::agent::{Agent, End};
use super::coordinator::Coordinator;
use super::network::{Direction, Network};
use super::world::World;

/// Of one simulation.
pub(super) struct Faults {
    /// Where all is noted.
    pub(super) world: World,
    /// Every agent.
    pub(super) agents: Vec<Agent>,
    /// The coordinator.
    pub(super) coordinator: Coordinator,
    /// The network.
    pub(super) network: Network,
    /// Which hosts are away.
    pub(super) absences: Absences,
    /// What is to be mended, by when, in order.
    mends: BTreeMap<(Instant, u64), Mend>,
    mends_made: u64,
}

/// How a fault is over.
#[derive(Debug, Clone, Copy)]
enum Mend {
    Agent(usize),
    Coordinator,
    Line(usize, Direction),
    Slowness,
}

impl Faults {
    /// Nothing has gone wrong yet.
    pub(super) fn new(
        world: &World,
        agents: Vec<Agent>,
        coordinator: &Coordinator,
        network: &Network,
        absences: &Absences,
    ) -> Self {
        Self {
            world: world.clone(),
            agents,
            coordinator: coordinator.clone(),
            network: network.clone(),
            absences: absences.clone(),
            mends: BTreeMap::new(),
            mends_made: 0,
        }
    }

    fn later(&mut self, low: u64, high: u64, mend: Mend) {
        let at = Instant::now() + self.world.roll(|dice| dice.millis(low, high));
        self.mends_made += 1;
        self.mends.insert((at, self.mends_made), mend);
    }

    /// Lets things go wrong until `until`, then mends them all.
    pub(super) async fn storm(&mut self, until: Instant) {
        let pause = self.world.scenario().fault_ms;
        let next = |world: &World| match pause {
            0 => until,
            pause => Instant::now() + world.roll(|dice| dice.millis(1, pause)),
        };
        let mut strike_at = next(&self.world);
        loop {
            let now = Instant::now();
            if now >= until {
                break;
            }
            while let Some((at, mend)) = self
                .mends
                .first_entry()
                .map(|first| (first.key().0, *first.get()))
            {
                if at > now {
                    break;
                }
                self.mends.pop_first();
                self.mend(mend).await;
            }
            if strike_at <= Instant::now() {
                self.strike().await;
                strike_at = next(&self.world);
            }
            self.check_tasks();
            let mended = self.mends.keys().next().map_or(until, |(at, _)| *at);
            sleep_until(strike_at.min(mended).min(until)).await;
        }
        self.world.calm_down();
        for (_, mend) in std::mem::take(&mut self.mends) {
            self.mend(mend).await;
        }
    }

    /// No task of the product ends by itself.
    pub(super) fn check_tasks(&mut self) {
        self.coordinator.check_tasks();
        for agent in &mut self.agents {
            agent.check_tasks();
        }
    }

    async fn mend(&mut self, mend: Mend) {
        self.world.note(format!("mended: {mend:?}"));
        match mend {
            Mend::Agent(one) if !self.agents[one].is_running() => {
                let (network, coordinator) = (self.network.clone(), self.coordinator.clone());
                self.agents[one].start(&network, &coordinator);
                self.absences.end(&self.agents[one].host.name);
            }
            Mend::Agent(_) => {}
            Mend::Coordinator => self.coordinator.start().await,
            Mend::Line(one, direction) => {
                let host = self.agents[one].host.name.clone();
                self.network.set_open(&host, direction, true);
                if silences(direction) {
                    self.absences.end(&host);
                }
            }
            Mend::Slowness => self.network.slow(1),
        }
    }

    async fn strike(&mut self) {
        let one = self.world.roll(|dice| dice.index(self.agents.len()));
        match self.world.roll(|dice| dice.index(16)) {
            0..2 => self.crash_coordinator().await,
            2..5 => self.end_agent(one, End::Killed).await,
            5 => self.end_agent(one, End::Vanished).await,
            6 => self.end_agent(one, End::Asked).await,
            7..9 => self.partition(1000 / self.agents.len() as u64),
            9 => self.partition(600),
            10 => self.partition(1000),
            11 => {
                self.world.count("streams that were reset");
                self.world
                    .note(format!("the stream of {} is reset", self.agents[one].host.name));
                self.network.reset(&self.agents[one].host.name.clone());
            }
            12 => {
                self.world.count("slow networks");
                self.network.slow(5);
                self.later(1_000, 30_000, Mend::Slowness);
            }
            13 => {
                self.world.count("full disks");
                self.world.note("the store's disk is full");
                let lasting = self.world.roll(|dice| dice.millis(100, 15_000));
                self.coordinator.fill_disk(lasting);
            }
            14 => {
                self.world.count("steps of the wall clock");
                let step = self
                    .world
                    .roll(|dice| *dice.pick(&[3_600_000, -3_600_000, 1_000, -1_000]));
                self.world.note(format!("the wall clock steps by {step} ms"));
                self.world.step_clock(step);
            }
            // Everybody reconnects at once.
            _ => {
                self.world.count("streams that were reset");
                for agent in &self.agents {
                    self.network.reset(&agent.host.name);
                }
            }
        }
    }

    async fn crash_coordinator(&mut self) {
        if self.coordinator.since().is_none() {
            return;
        }
        self.world.count("crashes of the coordinator");
        if self.world.roll(|dice| dice.happens(300)) {
            for agent in &self.agents {
                self.network.vanish(&agent.host.name);
            }
        }
        self.coordinator.crash().await;
        let longest = self.world.roll(|dice| *dice.pick(&[50, 3_000, 60_000]));
        self.later(1, longest, Mend::Coordinator);
    }

    async fn end_agent(&mut self, one: usize, how: End) {
        if !self.agents[one].is_running() {
            return;
        }
        self.world.count(match how {
            End::Asked => "agents that were stopped",
            End::Killed => "agents that were killed",
            End::Vanished => "agents that vanished",
        });
        self.absences.begin(&self.agents[one].host.name);
        let network = self.network.clone();
        self.agents[one].end(how, &network).await;
        let longest = self.world.roll(|dice| *dice.pick(&[50, 5_000, 30_000, 100_000]));
        self.later(5, longest, Mend::Agent(one));
    }

    fn partition(&mut self, permille: u64) {
        self.world.count("partitions");
        let direction = self
            .world
            .roll(|dice| *dice.pick(&[Direction::Both, Direction::Both, Direction::Up, Direction::Down]));
        let longest = self.world.roll(|dice| *dice.pick(&[500, 5_000, 40_000, 100_000]));
        let cut: Vec<_> = (0..self.agents.len())
            .filter(|_| self.world.roll(|dice| dice.happens(permille)))
            .collect();
        for one in cut {
            let host = self.agents[one].host.name.clone();
            let shut = self
                .mends
                .values()
                .any(|mend| matches!(mend, Mend::Line(other, _) if *other == one));
            if shut {
                continue;
            }
            self.world.note(format!("{host} is cut off: {direction:?}"));
            if silences(direction) {
                self.absences.begin(&host);
            }
            self.network.set_open(&host, direction, false);
            self.later(1, longest, Mend::Line(one, direction));
        }
    }

    /// Everything that would go on for ever: it is empty once the fleet has come to rest.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for agent in &self.agents {
            for journal in agent.journals() {
                let name = journal
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                left.push(format!(
                    "invariant_no_journal_is_left: {name} of {}",
                    agent.host.name
                ));
            }
        }
        left
    }
}

/// Whether a host with such a line is not heard. One that only hears nothing still speaks.
fn silences(direction: Direction) -> bool {
    direction != Direction::Down
}
