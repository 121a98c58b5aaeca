//! A gRPC channel to a coordinator, and in words why there is none.
//!
//! It opens connections and never retries (tonic reconnects a channel by itself, agents back off on their own).
//! The invariant: an error tells apart what a person would treat differently: the name, the port, their
//! certificate, ours, the network.
//!
//! In TLS 1.3 the client is done with its handshake before the server has seen the client's certificate, so a
//! refusal arrives later, as the answer to the first read. We therefore count a connection as up only when the
//! server's first byte is there: an HTTP/2 server speaks without being asked (RFC 9113, 3.4), and ours can only
//! once it has accepted us. It costs one round trip a connection.

use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_common::error::Chain;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::address::CoordinatorAddress;
use crate::refusal::{self, tls_error};
use crate::verify::{Usage, VerifyError};

/// How a channel keeps its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelOptions {
    /// From the name to the coordinator's first byte.
    pub connect_timeout: Duration,
    /// Between two HTTP/2 pings, also while no call is open.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered before the connection counts as dead.
    pub keepalive_timeout: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The name means nothing here.
    #[error("cannot find {address}; check the name, or give an IP address")]
    Resolve {
        /// The address.
        address: CoordinatorAddress,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// Nobody listens.
    #[error("nothing listens on {address}; check the port, and that the coordinator runs")]
    Refused {
        /// The address.
        address: CoordinatorAddress,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The network does not reach it.
    #[error("cannot reach {address}; check the network and its firewalls")]
    Unreachable {
        /// The address.
        address: CoordinatorAddress,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// No answer.
    #[error("{address} did not answer within {} s; check the network, its firewalls and the coordinator", after.as_secs_f32())]
    TimedOut {
        /// The address.
        address: CoordinatorAddress,
        /// How long we waited.
        after: Duration,
    },
    /// The coordinator does not take our certificate.
    #[error("the coordinator refused our certificate: {}", refusal::about_certificate(*alert).unwrap_or("it did not say why"))]
    CertificateRefused {
        /// The address.
        address: CoordinatorAddress,
        /// What it sent.
        alert: AlertDescription,
    },
    /// We do not take the server's certificate.
    #[error(
        "the certificate of {address} is not accepted; check that this is our coordinator and ca is its CA"
    )]
    ServerCertificate {
        /// The address.
        address: CoordinatorAddress,
        /// Why.
        #[source]
        source: Box<VerifyError>,
    },
    /// TLS, but not as we do it, or no TLS at all.
    #[error("the TLS handshake with {address} failed; check that a coordinator listens there")]
    Handshake {
        /// The address.
        address: CoordinatorAddress,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// It hung up.
    #[error(
        "{address} closed the connection before it said anything; check that a coordinator listens there"
    )]
    Closed {
        /// The address.
        address: CoordinatorAddress,
        /// How, if not in order.
        #[source]
        source: Option<io::Error>,
    },
    /// TLS is up and gRPC is not.
    #[error("{address} does not speak gRPC; check that a coordinator listens there")]
    Protocol {
        /// The address.
        address: CoordinatorAddress,
        /// What tonic says.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A channel that connects at its first call, and again whenever the connection is lost. Errors come with the
/// calls; [`explain`] puts them in words.
///
/// # Panics
/// Outside a tokio runtime.
pub fn channel(address: &CoordinatorAddress, config: Arc<ClientConfig>, options: ChannelOptions) -> Channel {
    let connector = Connector {
        address: address.clone(),
        config,
        options,
        first: Arc::default(),
    };
    endpoint(address, options)
        .connect_with_connector_lazy(tower::service_fn(move |_| connector.clone().connection()))
}

/// A channel whose first connection is up: the coordinator has accepted us.
///
/// # Errors
/// Why it is not.
pub async fn connect(
    address: &CoordinatorAddress,
    config: Arc<ClientConfig>,
    options: ChannelOptions,
) -> Result<Channel, ChannelError> {
    let connector = Connector {
        address: address.clone(),
        config,
        options,
        first: Arc::default(),
    };
    // Opened here and not by tonic, which would wrap the error.
    let first = connector.dial().await?;
    *connector.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
    endpoint(address, options)
        .connect_with_connector(tower::service_fn(move |_| connector.clone().connection()))
        .await
        .map_err(|source| ChannelError::Protocol {
            address: address.clone(),
            source,
        })
}

/// A sentence about a call that failed because of its connection, with what to try; `None` when the connection was
/// not the trouble.
pub fn explain(status: &tonic::Status) -> Option<String> {
    let mut next = status.source();
    let mut innermost = None;
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<ChannelError>() {
            return Some(Chain(ours).to_string());
        }
        let alert = match tls_error(error) {
            Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
            _ => refusal::alert_in(&error.to_string()),
        };
        if let Some(words) = alert.and_then(refusal::about_certificate) {
            return Some(format!("the coordinator refused our certificate: {words}"));
        }
        // The caller's own deadline says nothing about the connection.
        if error.is::<tonic::TimeoutExpired>() {
            return None;
        }
        innermost = Some(error);
        next = error.source();
    }
    // A status that the coordinator sent has no source. One that was made here has, and it is the transport.
    innermost.map(|cause| format!("the connection to the coordinator broke; try again: {cause}"))
}

fn endpoint(address: &CoordinatorAddress, options: ChannelOptions) -> Endpoint {
    // tonic would start TLS of its own for https; requests still say https, by their origin.
    let uri = |scheme: &str| format!("{scheme}://{address}");
    let origin = uri("https").parse().expect("a checked address is a URI");
    Endpoint::from_shared(uri("http"))
        .expect("a checked address is a URI")
        .origin(origin)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
}

/// Opens connections for one channel.
#[derive(Clone)]
struct Connector {
    address: CoordinatorAddress,
    config: Arc<ClientConfig>,
    options: ChannelOptions,
    /// The connection that [`connect`] opened, until tonic asks for it.
    first: Arc<Mutex<Option<TlsStream<TcpStream>>>>,
}

impl Connector {
    async fn connection(self) -> Result<TokioIo<TlsStream<TcpStream>>, ChannelError> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(stream) => Ok(TokioIo::new(stream)),
            None => self.dial().await.map(TokioIo::new),
        }
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, ChannelError> {
        let after = self.options.connect_timeout;
        tokio::time::timeout(after, self.dial_unbounded())
            .await
            .unwrap_or_else(|_| {
                Err(ChannelError::TimedOut {
                    address: self.address.clone(),
                    after,
                })
            })
    }

    async fn dial_unbounded(&self) -> Result<TlsStream<TcpStream>, ChannelError> {
        let address = || self.address.clone();
        let tcp = self.dial_tcp().await?;
        // Only a hint for balancers on the way; the verifier does not look at it.
        let name = ServerName::try_from(self.address.host().to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
        let mut stream = TlsConnector::from(Arc::clone(&self.config))
            .connect(name, tcp)
            .await
            .map_err(|error| self.handshake_error(error))?;
        match stream.fill_buf().await {
            Ok([]) => Err(ChannelError::Closed {
                address: address(),
                source: None,
            }),
            Ok(_) => Ok(stream),
            Err(error) => Err(self.handshake_error(error)),
        }
    }

    async fn dial_tcp(&self) -> Result<TcpStream, ChannelError> {
        let address = || self.address.clone();
        let candidates = tokio::net::lookup_host((self.address.host(), self.address.port()))
            .await
            .map_err(|source| ChannelError::Resolve {
                address: address(),
                source,
            })?;
        let mut last = None;
        for candidate in candidates {
            match TcpStream::connect(candidate).await {
                Ok(tcp) => {
                    // Small messages back and forth; a socket that refuses the option still works.
                    if let Err(error) = tcp.set_nodelay(true) {
                        tracing::debug!(%error, "no TCP_NODELAY");
                    }
                    return Ok(tcp);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(source) if source.kind() == io::ErrorKind::ConnectionRefused => ChannelError::Refused {
                address: address(),
                source,
            },
            Some(source) => ChannelError::Unreachable {
                address: address(),
                source,
            },
            None => ChannelError::Resolve {
                address: address(),
                source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
            },
        })
    }

    fn handshake_error(&self, error: io::Error) -> ChannelError {
        let address = self.address.clone();
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
                source: Some(error),
            },
        }
    }
}
