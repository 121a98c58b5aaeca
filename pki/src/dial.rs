//! One connection to a coordinator: from the name to the coordinator's first byte.
//!
//! It knows no gRPC and never retries. The invariant: a connection that is up belongs to a coordinator that has
//! accepted us.
//!
//! In TLS 1.3 the client is done with its handshake before the server has seen the client's certificate, so a
//! refusal arrives later, as the answer to the first read. We therefore count a connection as up only when the
//! server's first byte is there: an HTTP/2 server speaks without being asked (RFC 9113, 3.4), and ours can only
//! once it has accepted us. It costs one round trip a connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::CoordinatorAddress;
use crate::channel::{ChannelError, ChannelOptions};
use crate::refusal::{self, tls_error};
use crate::verify::{Usage, VerifyError};

/// How long one address of a name has for itself before the next is tried beside it (RFC 8305, 8: the recommended
/// Connection Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens a connection on which the coordinator has accepted us. What it has said already waits in the stream's
/// buffer. Of `options` only the connect timeout matters here.
///
/// # Errors
/// Why there is none.
pub async fn dial(
    address: &CoordinatorAddress,
    config: Arc<ClientConfig>,
    options: ChannelOptions,
) -> Result<TlsStream<TcpStream>, ChannelError> {
    let after = options.connect_timeout;
    tokio::time::timeout(after, dial_unbounded(address, config))
        .await
        .unwrap_or_else(|_| {
            Err(ChannelError::TimedOut {
                address: address.clone(),
                after,
            })
        })
}

async fn dial_unbounded(
    address: &CoordinatorAddress,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ChannelError> {
    let tcp = dial_tcp(address).await?;
    // Only a hint for balancers on the way; the verifier does not look at it.
    let name = ServerName::try_from(address.host().to_owned())
        .unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
    let mut stream = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|error| handshake_error(address, error))?;
    match stream.fill_buf().await {
        Ok([]) => Err(ChannelError::Closed {
            address: address.clone(),
            source: None,
        }),
        Ok(_) => Ok(stream),
        Err(error) => Err(handshake_error(address, error)),
    }
}

async fn dial_tcp(address: &CoordinatorAddress) -> Result<TcpStream, ChannelError> {
    let unresolved = |source| ChannelError::Resolve {
        address: address.clone(),
        source,
    };
    let candidates: Vec<SocketAddr> = tokio::net::lookup_host((address.host(), address.port()))
        .await
        .map_err(unresolved)?
        .collect();
    match race(candidates, TcpStream::connect).await {
        Ok(tcp) => {
            // Small messages back and forth; a socket that refuses the option still works.
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            Ok(tcp)
        }
        Err(Some(source)) if source.kind() == io::ErrorKind::ConnectionRefused => {
            Err(ChannelError::Refused {
                address: address.clone(),
                source,
            })
        }
        Err(Some(source)) => Err(ChannelError::Unreachable {
            address: address.clone(),
            source,
        }),
        Err(None) => Err(unresolved(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ))),
    }
}

/// The first of `candidates` that connects. They begin in the resolver's order, each as soon as the one before it
/// has failed or had [`ATTEMPT_DELAY`] for itself, and go on beside each other: an address that swallows every
/// packet costs a moment and not the connection (RFC 8305, 5, without its re-ordering).
///
/// # Errors
/// The most telling of their errors; `None` when there is no candidate.
async fn race<T, F>(
    candidates: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Option<io::Error>>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut candidates = candidates.into_iter().peekable();
    // Dropped with this future, and with it every attempt that has not won.
    let mut attempts = JoinSet::new();
    let mut told: Option<io::Error> = None;
    loop {
        if let Some(candidate) = candidates.next() {
            attempts.spawn(connect(candidate));
        }
        let ended = match candidates.peek() {
            Some(_) => tokio::time::timeout(ATTEMPT_DELAY, attempts.join_next()).await,
            None => Ok(attempts.join_next().await),
        };
        match ended {
            // Slow; the next one begins beside it.
            Err(_) => {}
            Ok(Some(Ok(Ok(connected)))) => return Ok(connected),
            Ok(Some(Ok(Err(error)))) => {
                // A machine that refuses says more than a network that is not there, as IPv6 often is not.
                if told
                    .as_ref()
                    .is_none_or(|told| told.kind() != io::ErrorKind::ConnectionRefused)
                {
                    told = Some(error);
                }
            }
            Ok(Some(Err(broken))) => told = Some(io::Error::other(broken)),
            Ok(None) => return Err(told),
        }
    }
}

fn handshake_error(address: &CoordinatorAddress, error: io::Error) -> ChannelError {
    let address = address.clone();
    match tls_error(&error).cloned() {
        Some(rustls::Error::AlertReceived(alert)) if refusal::about_certificate(alert).is_some() => {
            ChannelError::CertificateRefused { address, alert }
        }
        Some(source @ rustls::Error::InvalidCertificate(_)) => ChannelError::ServerCertificate {
            address,
            source: Box::new(VerifyError::from_rustls(source, Usage::Server)),
        },
        Some(source) => ChannelError::Handshake { address, source },
        None => ChannelError::Closed {
            address,
            source: Some(io::Error::new(
                error.kind(),
                refusal::without_link(&error.to_string()).to_owned(),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// Ports stand for what the address does.
    const SWALLOWS: u16 = 1;
    const REFUSES: u16 = 2;
    const HAS_NO_ROUTE: u16 = 3;
    const ANSWERS: u16 = 4;

    async fn play(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            SWALLOWS => std::future::pending().await,
            REFUSES => Err(io::ErrorKind::ConnectionRefused.into()),
            HAS_NO_ROUTE => Err(io::ErrorKind::NetworkUnreachable.into()),
            port => Ok(port),
        }
    }

    async fn raced(ports: &[u16]) -> Result<u16, Option<io::ErrorKind>> {
        let candidates = ports.iter().map(|port| ([192, 0, 2, 1], *port).into()).collect();
        race(candidates, play)
            .await
            .map_err(|error| error.map(|error| error.kind()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_every_packet_does_not_hide_the_next() {
        let begun = Instant::now();
        assert_eq!(raced(&[SWALLOWS, SWALLOWS, ANSWERS]).await, Ok(ANSWERS));
        assert!(begun.elapsed() < ATTEMPT_DELAY * 3, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_at_once_costs_nothing() {
        let begun = Instant::now();
        assert_eq!(raced(&[HAS_NO_ROUTE, REFUSES, ANSWERS]).await, Ok(ANSWERS));
        assert!(begun.elapsed() < ATTEMPT_DELAY, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_failures_the_refusal_is_told() {
        let refused = Err(Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(raced(&[HAS_NO_ROUTE, REFUSES]).await, refused);
        assert_eq!(raced(&[REFUSES, HAS_NO_ROUTE]).await, refused);
        assert_eq!(
            raced(&[HAS_NO_ROUTE]).await,
            Err(Some(io::ErrorKind::NetworkUnreachable))
        );
        assert_eq!(raced(&[]).await, Err(None));
    }
}
