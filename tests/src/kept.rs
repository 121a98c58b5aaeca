//! A host whose identity is the agent's own matter: the product's enrolment, keeper of certificates and session, without
//! anything to carry out.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hostler_agent::blocking::Blocking;
use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::run::Executor;
use hostler_agent::identity::enrol::{EnrolError, Enrolment, Service};
use hostler_agent::identity::keeper::Keeper;
use hostler_agent::identity::line;
use hostler_agent::journal::state_dir::StateDir;
use hostler_agent::session::desk::Desk;
use hostler_agent::session::pulse::Pulse;
use hostler_agent::session::task::SessionTask;
use hostler_agent::session::{dial, report};
use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::units::UnixMillis;
use hostler_pki::{CoordinatorAddress, Credentials, EnrolToken, PeerRoot, TlsFiles, TrustBundle};
use tempfile::TempDir;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// A host. Its identity and its journal outlive its agent.
pub struct KeptHost {
    /// Its name. It has one hypervisor, of the same name and `-hv`.
    pub host: String,
    /// Its identity.
    pub files: TlsFiles,
    dir: TempDir,
    dials: Arc<AtomicUsize>,
    running: Option<(CancellationToken, JoinSet<()>)>,
    keeper: Option<AbortHandle>,
}

impl KeptHost {
    /// A host without an identity, with a configuration as the package has it.
    ///
    /// # Panics
    /// When there is no directory for it.
    pub fn new(host: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let root = dir.path().display();
        let config = format!(
            "coordinator = \"coordinator.example.org:1312\"\nstate_dir = \"{root}/state\"\n\
             [tls]\nca = \"{root}/identity/ca.crt\"\ncertificate = \"{root}/identity/agent.pem\"\nkey = \"{root}/identity/agent.pem\"\n"
        );
        std::fs::write(dir.path().join("agent.toml"), config).expect("the configuration is written");
        let identity = dir.path().join("identity");
        Self {
            host: host.to_owned(),
            files: TlsFiles {
                ca: identity.join("ca.crt"),
                certificate: identity.join("agent.pem"),
                key: identity.join("agent.pem"),
            },
            dir,
            dials: Arc::default(),
            running: None,
            keeper: None,
        }
    }

    /// Its directory, with `agent.toml` and `identity`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `hostler-agent enrol`; what a person reads.
    ///
    /// # Errors
    /// As for a person.
    pub async fn enrol(&self, token: &EnrolToken, at: &CoordinatorAddress) -> Result<String, EnrolError> {
        let mut said = Vec::new();
        let enrolment = Enrolment {
            token: token.clone(),
            coordinator: Some(at.clone()),
            config: self.dir.path().join("agent.toml"),
            service: Service::Start,
            wait: Duration::ZERO,
            stop: CancellationToken::new(),
        };
        enrolment.run(&mut said, &mut std::io::sink()).await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// From now on its session goes on, and its certificate and CAs stay as they are: a host whose disk takes nothing more.
    pub fn stop_keeping(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }

    /// Starts its agent.
    ///
    /// # Panics
    /// When its journal cannot be opened.
    pub fn begin(&mut self, coordinator: &CoordinatorAddress) {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let report = rpc::HostReport {
            inventory: Some(rpc::Inventory {
                cpu_threads: 4,
                memory_mb: 4096,
                ..rpc::Inventory::default()
            }),
            hypervisors: vec![rpc::HypervisorReport {
                id: format!("{}-hv", self.host),
                kind: rpc::HypervisorKind::Host.into(),
                observed: rpc::Observed::OutOfService.into(),
                ..rpc::HypervisorReport::default()
            }],
            ..rpc::HostReport::default()
        };
        let shown = report.clone();
        let observe: report::Observe = Arc::new(move |_| shown.clone());
        let reporter = report::spawn(&mut tasks, observe, report, Duration::from_secs(30), stop.clone());
        let state_dir = StateDir::open(&self.dir.path().join("state")).expect("the journal opens");
        let state_dir = Arc::new(state_dir);
        let (outbox, blocking) = (Outbox::default(), Blocking::new(2));
        let executor = Executor {
            plans: Arc::new(|_, _| Err("this host carries nothing out".to_owned())),
            steps: blocking.clone(),
            files: blocking.clone(),
            state_dir: state_dir.clone(),
            outbox: outbox.clone(),
        };
        let (identity, end) = line::line();
        let theirs = PeerRoot::default();
        let keeper = Keeper::new(
            self.files.clone(),
            end,
            theirs.clone(),
            blocking.clone(),
            stop.clone(),
        );
        self.keeper = Some(tasks.spawn(keeper.run()));
        let over_tls = dial::over_tls_noting(coordinator.clone(), self.files.clone(), blocking, theirs);
        let dials = self.dials.clone();
        let counted: dial::Dial = Arc::new(move |hello| {
            dials.fetch_add(1, Ordering::SeqCst);
            over_tls(hello)
        });
        let host = self.host.parse().expect("a host's name");
        let session = SessionTask::new(
            Desk::new(host, state_dir, outbox, stop.clone(), &[]),
            counted,
            executor,
            reporter,
            Arc::new(|_, pool| Err(format!("no pool {pool} here"))),
            Pulse::default(),
            stop.clone(),
        );
        tasks.spawn(session.with_identity(identity).run());
        self.running = Some((stop, tasks));
    }

    /// How often its agent has dialled.
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// When its certificate ends; None when it is not good.
    pub fn valid_until(&self) -> Option<UnixMillis> {
        Some(Credentials::load(&self.files).ok()?.not_after())
    }

    /// How many CAs it trusts.
    pub fn roots(&self) -> usize {
        let pem = std::fs::read_to_string(&self.files.ca).unwrap_or_default();
        TrustBundle::parse(&pem).map_or(0, |bundle| bundle.roots().len())
    }

    /// Ends the agent as SIGTERM does.
    ///
    /// # Panics
    /// When one of its tasks panicked.
    pub async fn stop(&mut self) {
        if let Some((stop, mut tasks)) = self.running.take() {
            stop.cancel();
            while let Some(ended) = tasks.join_next().await {
                assert!(!ended.is_err_and(|error| error.is_panic()), "no panic");
            }
        }
    }
}
