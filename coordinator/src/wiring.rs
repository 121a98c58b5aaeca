//! Builds every part once, runs them, and ends them within a bounded time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use hostler_common::id::OperationId;
use hostler_pki::Credentials;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::fleet::Fleet;
use crate::api::listener;
use crate::api::operations::Operations;
use crate::api::serve::{self, Services};
use crate::api::site::Site;
use crate::config::Config;
use crate::operation::engine::Engine;
use crate::operation::forsaken;
use crate::operation::retention::{self, Retention};
use crate::operation::state::Limits;
use crate::registry::{self, Registry};
use crate::session::asks::Asks;
use crate::session::registry::Sessions;
use crate::session::service::{SessionContext, SessionService};
use crate::store::{Revision, Store};
use crate::vital::Vital;
use crate::{dispatch, liveness};

/// A coordinator that serves.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    serving: JoinSet<anyhow::Result<()>>,
    background: JoinSet<()>,
    connections: TaskTracker,
    drain: Duration,
    shutdown: CancellationToken,
    vital: Vital,
}

/// The coordinator's own certificate.
///
/// # Errors
/// When it cannot be used, or is not a coordinator's.
pub fn credentials(config: &Config) -> anyhow::Result<Credentials> {
    let credentials = Credentials::load(&config.tls)?;
    anyhow::ensure!(
        matches!(
            credentials.identity().subject,
            hostler_pki::Subject::Coordinator { .. }
        ),
        "{} names {}; a coordinator needs a certificate from `hostler-pki issue coordinator`",
        config.tls.certificate.display(),
        credentials.identity()
    );
    Ok(credentials)
}

/// A store that is taken for the newest.
#[derive(Debug)]
pub struct AcceptedLoss {
    /// Its revision.
    pub revision: Revision,
    /// Operations that have ended, since nobody knows what became of them.
    pub ended: Vec<OperationId>,
}

/// Takes the store as it is for the newest, though it was restored, or lost changes, or all of it.
///
/// # Errors
/// When it is in use, damaged, or cannot be written.
pub async fn accept_loss(config: &Config) -> anyhow::Result<AcceptedLoss> {
    let (store, revision) = Store::accept_loss(&config.data_dir)?;
    let mut background = JoinSet::new();
    let registry = registry::spawn(store.clone(), None, &mut background).await?;
    let ended = forsaken::end_all(&store, &registry).await?;
    Ok(AcceptedLoss { revision, ended })
}

/// Every part of a coordinator but its port.
#[derive(Debug)]
pub struct Assembly {
    /// What clients and agents call.
    pub services: Services,
    /// The fleet in memory.
    pub registry: Registry,
    /// What runs beside the calls. None of it ends before the process does.
    pub background: JoinSet<()>,
}

/// Loads the fleet from `store` and builds every part on it. Sessions are waited for in `connections`, and end with
/// `shutdown`.
///
/// # Errors
/// When the store cannot be read.
pub async fn assemble(
    config: &Config,
    store: Store,
    connections: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<Assembly> {
    let operations = &config.operations;
    let mut background = JoinSet::new();
    let registry = registry::spawn(store.clone(), config.default_pool.clone(), &mut background).await?;
    let limits = Limits {
        max_attempts: operations.max_attempts,
    };
    let engine = Engine::new(store.clone(), registry.clone(), limits);
    let watched = store.clone();
    background.spawn(async move {
        watched.died().await;
        tracing::error!("the store's engine has died; this is a bug");
    });
    let sessions = Sessions::default();
    let asks = Asks::new(sessions.clone());
    dispatch::spawn(registry.clone(), sessions.clone(), &mut background);
    let patience = liveness::Patience {
        unbegun: operations.host_patience,
        begun: operations.resume_patience,
        untaken: operations.take_patience,
    };
    liveness::spawn(
        registry.clone(),
        engine.clone(),
        sessions.clone(),
        patience,
        &mut background,
    );
    let retention = Retention {
        count: operations.keep_count,
        age: operations.keep_age,
    };
    retention::spawn(store.clone(), retention, &mut background);
    let services = Services {
        operations: Operations {
            engine: engine.clone(),
            registry: registry.clone(),
            shutdown: shutdown.clone(),
        },
        fleet: Fleet {
            engine: engine.clone(),
            registry: registry.clone(),
            store: store.clone(),
            asks: asks.clone(),
            shutdown: shutdown.clone(),
        },
        site: Site::default(),
        sessions: SessionService::new(SessionContext {
            engine,
            store,
            registry: registry.clone(),
            sessions,
            asks,
            heartbeat: config.sessions.heartbeat,
            lease: operations.lease,
            shutdown: shutdown.clone(),
            tasks: connections.clone(),
        }),
    };
    Ok(Assembly {
        services,
        registry,
        background,
    })
}

/// Loads the fleet, then starts to serve it. Nothing is served before everything is loaded.
///
/// # Errors
/// When a certificate, the store or the address cannot be used.
pub async fn start(config: &Config, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let credentials = credentials(config)?;
    let tls = hostler_pki::server_config(&credentials, hostler_pki::Revocations::none())?;
    let store = Store::open(&config.data_dir)?;
    let connections = TaskTracker::new();
    let Assembly {
        services,
        registry,
        background,
    } = assemble(config, store.clone(), &connections, &shutdown).await?;
    let tcp = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: is another coordinator running there?",
            config.listen
        )
    })?;
    let address = tcp.local_addr()?;
    let (accepted, accepting) = listener::spawn(tcp, tls, &connections, shutdown.clone());
    let vital = Vital {
        accepting,
        registry: registry.clone(),
        store,
    };
    let mut serving = JoinSet::new();
    serving.spawn(serve::run(services, accepted, shutdown.clone()));
    let hypervisors = registry.map_hypervisors(|_| ()).len();
    let pools = registry.map_pools(|_| ()).len();
    tracing::info!(%address, hypervisors, pools, unended_operations = registry.operations().len(), "serving");
    Ok(Running {
        address,
        serving,
        background,
        connections,
        drain: config.drain_timeout,
        shutdown,
        vital,
    })
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells whether it serves, also while it runs.
    pub fn vital(&self) -> Vital {
        self.vital.clone()
    }

    /// Until the shutdown token is cancelled and all has ended, at most the drain time after it.
    ///
    /// # Errors
    /// When a part died: then the process should end and be started again.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let died = tokio::select! {
            // Cancel-safe: joining loses nothing that is needed after a death. What ends at a shutdown did not die.
            biased;
            () = self.shutdown.cancelled() => None,
            served = self.serving.join_next() => Some(match served {
                Some(Ok(Err(error))) => error.context("the server ended"),
                _ => anyhow::anyhow!("the server ended"),
            }),
            _ = self.background.join_next() => Some(anyhow::anyhow!("a background task ended; its log line is above")),
        };
        self.shutdown.cancel();
        self.connections.close();
        let ended = async {
            while self.serving.join_next().await.is_some() {}
            self.connections.wait().await;
        };
        if tokio::time::timeout(self.drain, ended).await.is_err() {
            tracing::warn!(after = ?self.drain, "some calls did not end in time and are cut");
        }
        self.serving.shutdown().await;
        self.background.shutdown().await;
        match died {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
