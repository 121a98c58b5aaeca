//! An agent as a process on a host: the product's session, desk, executor and journal, over a simulated network, host
//! and pace.
//!
//! The journal is real files, which outlive the process. Invariant: after a kill nothing of it happens any more, and
//! what it was writing may be torn.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_agent::blocking::{Blocking, PLACES};
use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::run::Executor;
use hostler_agent::journal::state_dir::StateDir;
use hostler_agent::session::desk::Desk;
use hostler_agent::session::dial::Dial;
use hostler_agent::session::pulse::Pulse;
use hostler_agent::session::report;
use hostler_agent::session::task::SessionTask;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::coordinator::Coordinator;
use super::host::Host;
use super::network::Network;
use super::world::World;

/// How long a look at the host may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(60);

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As SIGTERM does: between two steps.
    Asked,
    /// As SIGKILL does.
    Killed,
    /// As a power cut does: nobody hears of it.
    Vanished,
}

/// An agent, running or not.
pub(super) struct Agent {
    /// Where it lives.
    pub(super) host: Host,
    world: World,
    state_dir: PathBuf,
    running: Option<Running>,
    /// Since when it runs or does not.
    pub(super) since: Instant,
}

struct Running {
    stop: CancellationToken,
    killed: CancellationToken,
    tasks: JoinSet<()>,
}

impl Agent {
    /// Not started. Its journal is under `dir`.
    pub(super) fn new(world: &World, host: Host, dir: &Path) -> Self {
        let state_dir = dir.join(host.name.as_str());
        Self {
            host,
            world: world.clone(),
            state_dir,
            running: None,
            since: Instant::now(),
        }
    }

    /// Whether it runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts on what its journal holds.
    ///
    /// # Panics
    /// When the journal cannot be used: this machine's disk is to blame.
    pub(super) fn start(&mut self, network: &Network, coordinator: &Coordinator) {
        self.world.note(format!("the agent of {} starts", self.host.name));
        let state_dir = match StateDir::open(&self.state_dir) {
            Ok(state_dir) => Arc::new(state_dir),
            Err(error) => {
                self.world
                    .broke("invariant_an_agent_starts_again", format!("{error}"));
                return;
            }
        };
        let found = state_dir.found().expect("the journal can be listed");
        for found in &found {
            if let Err(error) = &found.content {
                self.world
                    .broke("invariant_a_journal_is_read_after_a_crash", format!("{error}"));
            }
        }
        let (stop, killed) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let paced = self.host.clone();
        let steps = Blocking::in_place(PLACES, Arc::new(move |what| paced.pace(what)), killed.clone());
        let files = steps.like(8);
        let looked_at = self.host.clone();
        let reporter = report::spawn_in(
            &mut tasks,
            files.like(1),
            Arc::new(move |_| looked_at.report()),
            self.host.report(),
            LOOK_DEADLINE,
            stop.clone(),
        );
        let outbox = Outbox::default();
        let executor = Executor {
            plans: self.host.plans(),
            steps,
            files,
            state_dir: Arc::clone(&state_dir),
            outbox: outbox.clone(),
        };
        let desk = Desk::new(self.host.name.clone(), state_dir, outbox, stop.clone(), &found);
        let session = SessionTask::new(
            desk,
            self.dial(network, coordinator),
            executor,
            reporter,
            Arc::new(|_, pool| Err(format!("no pool {pool} here"))),
            Pulse::default(),
            stop.clone(),
        );
        tasks.spawn(session.run());
        self.since = Instant::now();
        self.running = Some(Running { stop, killed, tasks });
    }

    fn dial(&self, network: &Network, coordinator: &Coordinator) -> Dial {
        let (network, coordinator, host) = (network.clone(), coordinator.clone(), self.host.name.clone());
        Arc::new(move |hello| {
            let connecting = network.clone().connect(host.clone(), coordinator.clone(), hello);
            Box::pin(connecting)
        })
    }

    /// Ends it.
    pub(super) async fn end(&mut self, how: End, network: &Network) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        self.world
            .note(format!("the agent of {} ends: {how:?}", self.host.name));
        if how == End::Asked {
            running.stop.cancel();
            let ended = async { while running.tasks.join_next().await.is_some() {} };
            // Then as systemd does.
            let _ = timeout(Duration::from_secs(90), ended).await;
        }
        if how == End::Vanished {
            network.vanish(&self.host.name);
        }
        running.killed.cancel();
        running.tasks.shutdown().await;
        // Calls that were under way let go of the journal.
        tokio::task::yield_now().await;
        self.host.killed();
        if how != End::Asked && self.world.strikes(300) {
            self.tear();
        }
        self.since = Instant::now();
    }

    /// A record that was being written is on the disk in part.
    fn tear(&self) {
        for journal in self.journals() {
            if let Ok(mut file) = OpenOptions::new().append(true).open(&journal) {
                let torn = b"0badc0de {\"at\":1,\"entry\":\"st";
                let length = self.world.roll(|dice| dice.index(torn.len()));
                file.write_all(&torn[..length]).expect("this machine's disk");
                self.world.count("journals that were torn");
            }
        }
    }

    /// Whether a task of it has ended by itself, which would end the process.
    pub(super) fn check_tasks(&mut self) {
        if let Some(running) = &mut self.running
            && let Some(ended) = running.tasks.try_join_next()
        {
            let how = format!("of the agent of {}: {ended:?}", self.host.name);
            self.world.broke("invariant_no_task_dies", how);
        }
    }

    /// Journals of operations that are not done with, in order.
    pub(super) fn journals(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.state_dir.join("journal")) else {
            return Vec::new();
        };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        paths.sort();
        paths
    }
}
