//! `hostler proxy`: lets clients that cannot do TLS reach the coordinator. It copies bytes between a local
//! connection and one over mutual TLS, and reads none of them: HTTP/2 streams, pings and goodbyes pass from end to
//! end. Every local connection has its own connection to the coordinator, so nobody waits for somebody else.
//!
//! Whoever can connect to it acts as its certificate. That is why it keeps to loopback addresses and to socket
//! files of one owner unless it is told otherwise.

mod listen;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hostler_common::retry::Waits;
use hostler_common::shutdown;
use hostler_common::telemetry::{self, LogFormat};
use hostler_common::throttle::Throttle;
use hostler_pki::{CoordinatorAddress, Credentials, TlsFiles};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::listen::ListenError;
use self::listen::{Listen, Listener};
use self::tunnel::Local;
use super::Context;
use crate::failure::Failure;
use crate::output;

/// Two descriptors each, so 512: half of the 1024 that a process usually may have. The next one waits in the
/// kernel's queue until another ends.
const MOST_CONNECTIONS: usize = 256;

/// That every place is taken, is told; a client that comes and goes at the bound does not fill the log.
static FULL: Throttle = Throttle::new(1, Duration::from_secs(60));

/// How long open connections may go on after a signal.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves clients that cannot do TLS
#[derive(Debug, Args)]
#[command(
    about = "Serves clients that cannot do TLS",
    long_about = "\
Listens on a loopback address or a Unix socket for gRPC clients that speak plaintext HTTP/2, and forwards them to \
the coordinator over mutual TLS with this client's certificate. Every client that can connect acts with that \
certificate's role.

It prints `listening on …` once it is ready, and a line on standard error for each connection that fails. The \
certificate files are read anew for each connection. SIGTERM ends it; open connections have 5 s to end. HOSTLER_LOG \
filters what it logs.

On a Unix socket, some clients name the socket's path as the authority, which HTTP does not allow; tell them \
another one, as `grpc.default_authority=localhost` for Python and C++.",
    after_long_help = "\
Examples:
  hostler proxy --listen 127.0.0.1:1312
  hostler proxy --listen unix:/run/hostler/proxy.sock
  hostler proxy --listen unix:/run/hostler/proxy.sock --mode 0660"
)]
pub(crate) struct Proxy {
    /// A loopback address with its port, or a socket file
    #[arg(long, value_name = "ADDR|unix:PATH")]
    listen: Listen,
    /// Take an address that others can reach: everyone who reaches it acts as this certificate
    #[arg(long)]
    allow_non_loopback: bool,
    /// The permission bits of the socket file
    #[arg(long, value_name = "OCTAL", default_value = "0600", value_parser = listen::parse_mode)]
    mode: u32,
}

impl Proxy {
    /// Serves until a signal.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let settings = &context.settings;
        // Now, so that a file that does not do is told at once and not at the first connection.
        let identity = Credentials::load(&settings.tls)?.identity().to_string();
        telemetry::start(LogFormat::Text);
        let stop = shutdown::on_signals().map_err(|source| Failure::System {
            what: "wait for signals",
            source,
        })?;
        let listener = self.listen.bind(self.allow_non_loopback, self.mode)?;
        let coordinator = settings.coordinator.clone();
        output::print(&format!(
            "listening on {}, forwarding to {coordinator} as {identity}",
            listener.address()
        ))?;
        let way = Arc::new(Way {
            coordinator,
            tls: settings.tls.clone(),
            patience: settings.timeout,
        });
        serve(listener, way, stop).await;
        Ok(())
    }
}

/// Where tunnels lead, and with what.
#[derive(Debug)]
struct Way {
    coordinator: CoordinatorAddress,
    tls: TlsFiles,
    /// For connecting; `None`: the default.
    patience: Option<Duration>,
}

async fn serve(listener: Listener, way: Arc<Way>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut tunnels = JoinSet::new();
    let mut waits = Waits::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let next = async {
            // Never closed, so there always is a place in the end.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        tokio::select! {
            // Cancel-safe: the token stays cancelled.
            () = stop.cancelled() => break,
            // Cancel-safe: a joined tunnel is gone from the set only when it is returned.
            Some(ended) = tunnels.join_next() => if let Err(error) = ended && error.is_panic() {
                tracing::error!(%error, "a connection ended unexpectedly");
            },
            // Cancel-safe: a place is given back when dropped, and accept loses no connection.
            (place, accepted) = next => match accepted {
                Ok(local) => {
                    waits.reset();
                    if places.available_permits() == 0 && FULL.pass().is_some() {
                        tracing::warn!(
                            connections = MOST_CONNECTIONS,
                            "every place is taken; further clients wait until a connection ends"
                        );
                    }
                    let way = Arc::clone(&way);
                    tunnels.spawn(async move {
                        carry(local, &way).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely. The waiting client stays in the queue.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(waits.next_wait()).await;
                }
            },
        }
    }
    drop(listener);
    let ending = async { while tunnels.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, ending).await.is_err() {
        tracing::info!(connections = tunnels.len(), "closing what is still open");
    }
}

async fn carry(mut local: Box<dyn Local>, way: &Way) {
    match tunnel::dial(way).await {
        Ok(remote) => {
            if let Err(error) = tunnel::carry(local, remote).await {
                tracing::warn!(coordinator = %way.coordinator, "{error}");
            }
        }
        Err(error) => {
            tracing::warn!(coordinator = %way.coordinator, "connection refused to the client: {error}");
            tunnel::close(&mut local).await;
        }
    }
}
