//! Builds every part of the agent once, and starts its tasks.
//!
//! [`Parts`] needs no runtime and starts nothing, so that `--check` can build it too; only [`Parts::start`]
//! takes the state directory and begins.

use std::path::Path;
use std::sync::Arc;

use hostler_common::error::Chain;
use hostler_common::id::{HostName, PoolName};
use hostler_common::operation::Subject as On;
use hostler_pki::PeerRoot;
use hostler_pki::files::CredentialsError;
use hostler_pki::identity::{Identity, Subject};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::blocking::Blocking;
use crate::config::AgentConfig;
use crate::executor::outbox::Outbox;
use crate::executor::plan::{Job, PlanSource};
use crate::executor::run::Executor;
use crate::hypervisor::{Hypervisors, Look, SetupError};
use crate::identity::files::Own;
use crate::identity::keeper::Keeper;
use crate::identity::line;
use crate::inventory::storage;
use crate::journal::state_dir::{StateDir, StateDirError};
use crate::libvirt::Libvirt;
use crate::libvirt::events::{DomainWatch, watch_domains};
use crate::session::desk::Desk;
use crate::session::dial;
use crate::session::pulse::Pulse;
use crate::session::questions::{self, Answerer};
use crate::session::report::{self, Observe, Reporter};
use crate::session::task::SessionTask;
use crate::storage::owned::Owned;
use crate::storage::report as pool_report;
use crate::storage::setup::{self, StorageSetupError};

/// Calls on files at a time. A disk works on one fsync after another; more threads would only wait with them.
const FILE_PLACES: usize = 8;
/// A report is a few dozen quick libvirt calls; twice the longest that one may take shows that libvirt hangs.
/// The shared paths and the pool have their own time.
const REPORT_CALLS: u32 = 2;
/// Threads for blocking calls: the steps' places, the files', the questions', one report, and the resolver of host
/// names.
pub const BLOCKING_THREADS: usize = crate::blocking::PLACES + FILE_PLACES + questions::PLACES + 2;

/// Why the agent cannot start.
#[derive(Debug, Error)]
pub enum WiringError {
    /// Its certificate, key or CA is not good.
    #[error("the agent's credentials are not good")]
    Credentials(#[source] CredentialsError),
    /// Its certificate is somebody else's.
    #[error(
        "the agent's certificate is of {identity}; an agent needs one of …/agent/<host> (`hostler-pki issue agent <host>`)"
    )]
    NotAnAgent {
        /// Whose it is.
        identity: Box<Identity>,
    },
    /// A configured hypervisor cannot be worked on.
    #[error("the configured hypervisors cannot be set up")]
    Setup(#[source] SetupError),
    /// The configured storage pool cannot be served.
    #[error("the configured storage pool cannot be set up")]
    Storage(#[source] StorageSetupError),
    /// The journal cannot be used.
    #[error("the agent cannot keep its journal")]
    StateDir(#[source] StateDirError),
    /// The thread for libvirt's events cannot start.
    #[error("cannot watch libvirt's domains")]
    Watch(#[source] std::io::Error),
}

/// What is built before anything starts.
pub struct Parts {
    /// The configuration.
    pub config: AgentConfig,
    /// The host that the certificate names.
    pub host: HostName,
    /// The certificate's identity and validity. They are read again for each connection, so that one which has expired may
    /// be replaced while the agent runs.
    pub own: Own,
    /// The hypervisors of this host.
    pub hypervisors: Arc<Hypervisors>,
    /// The storage pool of this host, when it owns one.
    pub owned: Option<Arc<Owned>>,
}

/// The running agent.
pub struct Agent {
    /// Its tasks. None ends before the token that they were started with is cancelled.
    pub tasks: JoinSet<()>,
    /// Shows that the session task turns.
    pub pulse: Pulse,
    /// The looks at the host.
    pub reporter: Reporter,
    _watch: DomainWatch,
}

impl Parts {
    /// Checks the credentials and finds what the configured hypervisors need. Blocks.
    ///
    /// # Errors
    /// When something is missing; the sentence names it.
    pub fn new(config: AgentConfig) -> Result<Self, WiringError> {
        let own = Own::read(&config.tls).map_err(WiringError::Credentials)?;
        let host = match &own.identity.subject {
            Subject::Agent { host } => host.clone(),
            Subject::Coordinator { .. } | Subject::Client { .. } => {
                return Err(WiringError::NotAnAgent {
                    identity: Box::new(own.identity),
                });
            }
        };
        let libvirt = Libvirt::new(config.libvirt.uri.clone());
        let hypervisors = Hypervisors::new(&config, libvirt).map_err(WiringError::Setup)?;
        let owned = setup::from_config(&config).map_err(WiringError::Storage)?;
        Ok(Self {
            config,
            host,
            own,
            hypervisors: Arc::new(hypervisors),
            owned: owned.map(Arc::new),
        })
    }

    /// How the whole host is looked at: its hypervisors and its pool.
    pub fn observe(&self) -> Observe {
        let (hypervisors, owned) = (Arc::clone(&self.hypervisors), self.owned.clone());
        Arc::new(move |look: Look| {
            let mut report = hypervisors.report(look);
            report.pools.extend(owned.iter().map(|owned| owned.report(look)));
            report
        })
    }

    /// Takes the state directory and starts the tasks, on the current runtime.
    ///
    /// # Errors
    /// When another agent has the directory, or it is not usable.
    pub fn start(self, stop: &CancellationToken) -> Result<Agent, WiringError> {
        let state_dir: &Path = self.config.state_dir.as_ref();
        let state_dir = Arc::new(StateDir::open(state_dir).map_err(WiringError::StateDir)?);
        let found = state_dir.found().map_err(WiringError::StateDir)?;
        if !found.is_empty() {
            tracing::info!(
                operations = found.len(),
                "the journal holds operations of an earlier run"
            );
        }

        let mut tasks = JoinSet::new();
        let mut unseen = self.hypervisors.unseen();
        unseen
            .pools
            .extend(self.owned.iter().map(|owned| owned.storage.last()));
        let reporter = report::spawn(
            &mut tasks,
            self.observe(),
            unseen,
            self.config.libvirt.call_timeout * REPORT_CALLS + storage::DEADLINE + pool_report::DEADLINE,
            stop.clone(),
        );
        let changed = reporter.clone();
        let watch =
            watch_domains(&self.config.libvirt.uri, move || changed.changed()).map_err(WiringError::Watch)?;

        let files = Blocking::new(FILE_PLACES);
        let outbox = Outbox::default();
        let executor = Executor {
            plans: plans(&self.hypervisors, self.owned.as_ref()),
            steps: Blocking::default(),
            files: files.clone(),
            state_dir: Arc::clone(&state_dir),
            outbox: outbox.clone(),
        };
        let desk = Desk::new(self.host, state_dir, outbox, stop.clone(), &found);
        let theirs = PeerRoot::default();
        let (identity, end) = line::line();
        let keeper = Keeper::new(
            self.config.tls.clone(),
            end,
            theirs.clone(),
            files.clone(),
            stop.clone(),
        );
        tasks.spawn(keeper.run());
        let dial = dial::over_tls_noting(self.config.coordinator, self.config.tls, files, theirs);
        let pulse = Pulse::default();
        let session = SessionTask::new(
            desk,
            dial,
            executor,
            reporter.clone(),
            answerer(self.owned.as_ref()),
            pulse.clone(),
            stop.clone(),
        )
        .with_identity(identity);
        tasks.spawn(session.run());
        Ok(Agent {
            tasks,
            pulse,
            reporter,
            _watch: watch,
        })
    }
}

/// What a request comes to, by what it is on.
fn plans(hypervisors: &Arc<Hypervisors>, owned: Option<&Arc<Owned>>) -> PlanSource {
    let (hypervisors, owned) = (Arc::clone(hypervisors), owned.cloned());
    Arc::new(
        move |job: &Job, decided| match (job.request.kind().subject(), &owned) {
            (On::Hypervisor, _) => hypervisors
                .plan(&job.request)
                .map_err(|error| Chain(&error).to_string()),
            (On::Pool, Some(owned)) => owned.plan(job, decided),
            (On::Pool, None) => Err(no_pool(&PoolName::from(&job.resource))),
        },
    )
}

/// Who answers questions about pools.
fn answerer(owned: Option<&Arc<Owned>>) -> Answerer {
    let owned = owned.cloned();
    Arc::new(move |question, pool| match &owned {
        Some(owned) => owned.answer(question, &pool),
        None => Err(no_pool(&pool)),
    })
}

fn no_pool(pool: &PoolName) -> String {
    format!(
        "this host owns no storage pool, so not {pool}; `[storage]` in the agent's configuration names one"
    )
}
