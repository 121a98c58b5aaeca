//! Builds every part once, runs them, and ends them within a bounded time.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hostler_common::id::OperationId;
use hostler_common::units::UnixMillis;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::fleet::Fleet;
use crate::api::listener;
use crate::api::operations::Operations;
use crate::api::serve::{self, Services};
use crate::api::site::Site;
use crate::audit::Audit;
use crate::config::Config;
use crate::identity::enrolment::Enrolment;
use crate::identity::{Identities, enrol_port, own, recovery};
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
    enrol_address: Option<SocketAddr>,
    serving: JoinSet<anyhow::Result<()>>,
    background: JoinSet<()>,
    connections: TaskTracker,
    drain: Duration,
    audit: Audit,
    shutdown: CancellationToken,
    vital: Vital,
}

/// A store that is taken for the newest.
#[derive(Debug)]
pub struct AcceptedLoss {
    /// Its revision.
    pub revision: Revision,
    /// Operations that have ended, since nobody knows what became of them.
    pub ended: Vec<OperationId>,
    /// Tokens that were closed, since somebody may have used them.
    pub tokens_closed: usize,
    /// Who was revoked since, as the audit log says.
    pub revoked: Vec<String>,
}

/// Takes the store as it is for the newest, though it was restored, or lost changes, or all of it.
///
/// # Errors
/// When it is in use, damaged, or cannot be written.
pub async fn accept_loss(config: &Config) -> anyhow::Result<AcceptedLoss> {
    let (store, accepting) = Store::accept_loss(&config.data_dir)?;
    let mut background = JoinSet::new();
    let registry = registry::spawn(store.clone(), None, &mut background).await?;
    let ended = forsaken::end_all(&store, &registry).await?;
    let tokens_closed = recovery::close_tokens(&store).await?;
    let revoked = recovery::revocations(&store, &config.data_dir).await?;
    let revoked = revoked.iter().map(|record| record.identity.to_string()).collect();
    let revision = accepting.revision;
    // Last: a process that dies before leaves a store that is still refused, and nothing of it begins again.
    accepting.finish()?;
    Ok(AcceptedLoss {
        revision,
        ended,
        tokens_closed,
        revoked,
    })
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

/// Loads the fleet from `store` and builds every part on it, without certificates. Sessions are waited for in
/// `connections`, and end with `shutdown`.
///
/// # Errors
/// When the store cannot be read.
pub async fn assemble(
    config: &Config,
    store: Store,
    connections: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<Assembly> {
    let identities = Identities::without_certificates(&store);
    let audit = Audit::off();
    assemble_with(
        config,
        store,
        identities,
        audit,
        JoinSet::new(),
        connections,
        shutdown,
    )
    .await
}

async fn assemble_with(
    config: &Config,
    store: Store,
    identities: Identities,
    audit: Audit,
    mut background: JoinSet<()>,
    connections: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<Assembly> {
    let operations = &config.operations;
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
    own::spawn(identities.clone(), sessions.clone(), &mut background)?;
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
        identities.clone(),
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
        site: Site {
            engine: engine.clone(),
            registry: registry.clone(),
            store: store.clone(),
            sessions: sessions.clone(),
            identities: identities.clone(),
            audit: audit.clone(),
            shutdown: shutdown.clone(),
            started_at: UnixMillis::now(),
        },
        sessions: SessionService::new(SessionContext {
            engine,
            store,
            registry: registry.clone(),
            sessions,
            asks,
            identities,
            audit: audit.clone(),
            heartbeat: config.sessions.heartbeat,
            lease: operations.lease,
            shutdown: shutdown.clone(),
            tasks: connections.clone(),
        }),
        audit,
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
    let store = Store::open(&config.data_dir)?;
    recover_revocations(&store, &config.data_dir).await?;
    let audit = Audit::start(&config.data_dir).context("cannot start the audit log")?;
    let connections = TaskTracker::new();
    let mut background = JoinSet::new();
    let identities = Identities::start(config, &store, &mut background).await?;
    let Assembly {
        services,
        registry,
        background,
    } = assemble_with(
        config,
        store.clone(),
        identities.clone(),
        audit.clone(),
        background,
        &connections,
        &shutdown,
    )
    .await?;
    let tcp = listen(config.listen).await?;
    let address = tcp.local_addr()?;
    let mut serving = JoinSet::new();
    let mut enrol_address = None;
    if let (Some((_, own)), Some(port)) = (identities.keeping(), identities.enrolment()) {
        let tcp = listen(port.listen).await?;
        enrol_address = Some(tcp.local_addr()?);
        let enrolment = Enrolment::new(identities.clone(), port.advertise.clone())
            .for_sessions_at(address.port())
            .noted_in(audit.clone());
        serving.spawn(enrol_port::run(
            tcp,
            own,
            enrolment,
            connections.clone(),
            shutdown.clone(),
        ));
    }
    let (_, own) = identities.keeping().context("a coordinator has a certificate")?;
    let port = listener::Port {
        own: own.clone(),
        revocations: identities.revocations.clone(),
        connections: identities.connections.clone(),
        known: identities.known.clone(),
        audit: audit.clone(),
    };
    let (accepted, accepting) = listener::spawn(tcp, port, &connections, shutdown.clone());
    let vital = Vital {
        accepting,
        registry: registry.clone(),
        store,
    };
    serving.spawn(serve::run(services, accepted, own, shutdown.clone()));
    let hypervisors = registry.map_hypervisors(|_| ()).len();
    let pools = registry.map_pools(|_| ()).len();
    tracing::info!(%address, hypervisors, pools, unended_operations = registry.operations().len(), "serving");
    match enrol_address {
        Some(address) => tracing::info!(%address, "hosts enrol here"),
        None => tracing::info!("no [enrolment]: no host enrols, and no certificate is renewed"),
    }
    Ok(Running {
        address,
        enrol_address,
        serving,
        background,
        connections,
        drain: config.drain_timeout,
        audit,
        shutdown,
        vital,
    })
}

/// A store may be older than its audit log: a copy that was put back, or a disk that had not kept what it said to have.
async fn recover_revocations(store: &Store, data_dir: &Path) -> anyhow::Result<()> {
    let recovered = recovery::revocations(store, data_dir)
        .await
        .context("revocations that the audit log tells of, and the store lacks, cannot be stored")?;
    for record in recovered {
        tracing::warn!(identity = %record.identity, revoked_at = %record.revoked_at, by = record.revoked_by,
            "the audit log tells of a revocation that the store lacks; it holds again");
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: is another coordinator running there?"))
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where hosts enrol. None when they do not.
    pub fn enrol_address(&self) -> Option<SocketAddr> {
        self.enrol_address
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
        self.audit.end().await;
        match died {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
