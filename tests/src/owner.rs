//! The owner of a pool in memory: the agent's own session, journal, executor, planner and steps, over a pool that is
//! only figures. What it cannot show is what btrfs does; everything else is the product's.

use std::sync::Arc;
use std::time::Duration;

use hostler_agent::blocking::Blocking;
use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::plan::Job;
use hostler_agent::executor::run::Executor;
use hostler_agent::hypervisor::Look;
use hostler_agent::journal::state_dir::StateDir;
use hostler_agent::session::desk::Desk;
use hostler_agent::session::pulse::Pulse;
use hostler_agent::session::task::SessionTask;
use hostler_agent::session::{dial, report};
use hostler_agent::storage::memory::MemoryPool;
use hostler_agent::storage::owned::Owned;
use hostler_agent::storage::owner::{Settings, Storage};
use hostler_agent::storage::plan::Reserve;
use hostler_agent::storage::pool::Profile;
use hostler_common::bytes::Bytes;
use hostler_common::rpc::hostler::agent::v1 as rpc;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;

/// A host whose agent owns a pool in memory. The pool, the journal and the certificate outlive its processes.
pub struct PoolOwner {
    /// The pool.
    pub pool: MemoryPool,
    host: String,
    name: String,
    dir: TempDir,
    running: Option<(CancellationToken, JoinSet<()>)>,
}

impl PoolOwner {
    /// A pool of devices of one copy, with others that are spare, owned by `host`; its agent runs.
    ///
    /// # Panics
    /// When the agent does not start.
    pub fn start(
        fleet: &Fleet,
        host: &str,
        name: &str,
        members: &[(&str, Bytes)],
        spares: &[(&str, Bytes)],
    ) -> Self {
        let dir = TempDir::new().expect("a directory");
        let snapshots = dir.path().join("snapshots");
        let mut owner = Self {
            pool: MemoryPool::new(snapshots, Profile::Single, members, spares),
            host: host.to_owned(),
            name: name.to_owned(),
            dir,
            running: None,
        };
        owner.begin(fleet);
        owner
    }

    /// Starts the agent, on whatever the one before left.
    ///
    /// # Panics
    /// When its journal cannot be opened.
    pub fn begin(&mut self, fleet: &Fleet) {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let settings = Settings {
            pool: self.name.parse().expect("a pool's name"),
            path: self.dir.path().to_owned(),
            reserve: Reserve::default(),
            backup_repository: String::new(),
        };
        let owned = Arc::new(Owned {
            storage: Storage::new(settings, Arc::new(self.pool.clone())),
            backups: None,
        });
        let (planned, answers, looked_at) = (owned.clone(), owned.clone(), owned.clone());
        let observe = move |look: Look| rpc::HostReport {
            pools: vec![looked_at.report(look)],
            ..rpc::HostReport::default()
        };
        let unseen = rpc::HostReport {
            pools: vec![owned.storage.last()],
            ..rpc::HostReport::default()
        };
        let state_dir = StateDir::open(&self.dir.path().join("state")).expect("the journal opens");
        let state_dir = Arc::new(state_dir);
        let found = state_dir.found().expect("the journal is read");
        let deadline = Duration::from_secs(30);
        let reporter = report::spawn(&mut tasks, Arc::new(observe), unseen, deadline, stop.clone());
        let outbox = Outbox::default();
        let files = Blocking::new(4);
        let executor = Executor {
            plans: Arc::new(move |job: &Job, decided| planned.plan(job, decided)),
            steps: Blocking::default(),
            files: files.clone(),
            state_dir: state_dir.clone(),
            outbox: outbox.clone(),
        };
        let host = self.host.parse().expect("a host's name");
        let desk = Desk::new(host, state_dir, outbox, stop.clone(), &found);
        let address = fleet.address.to_string().parse().expect("an address");
        let files = dial::over_tls(address, fleet.ca.files(&format!("agent/{}", self.host)), files);
        let session = SessionTask::new(
            desk,
            files,
            executor,
            reporter,
            Arc::new(move |question, pool| answers.answer(question, &pool)),
            Pulse::default(),
            stop.clone(),
        );
        tasks.spawn(session.run());
        self.running = Some((stop, tasks));
    }

    /// Ends the agent as SIGTERM does: between two steps.
    ///
    /// # Panics
    /// When one of its tasks panicked.
    pub async fn stop(&mut self) {
        if let Some((stop, mut tasks)) = self.running.take() {
            stop.cancel();
            while let Some(ended) = tasks.join_next().await {
                ended.expect("no panic");
            }
        }
    }
}
