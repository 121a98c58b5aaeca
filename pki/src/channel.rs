//! A gRPC channel to a coordinator, and in words why there is none.
//!
//! It never opens a connection itself (dial.rs does) and never retries (tonic reconnects a channel by itself,
//! agents back off on their own). The invariant: an error tells apart what a person would treat differently: the
//! name, the port, their certificate, ours, the network.

use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_common::error::Chain;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, ClientConfig};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::TlsConfigError;
use crate::address::CoordinatorAddress;
use crate::dial::dial;
use crate::refusal::{self, tls_error};
use crate::verify::VerifyError;

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
        "the certificate of {address} is not accepted; {}",
        refusal::about_server(source)
    )]
    ServerCertificate {
        /// The address.
        address: CoordinatorAddress,
        /// Why.
        #[source]
        source: Box<VerifyError>,
    },
    /// We have a token, and the server is not the coordinator that made it.
    #[error(
        "the certificate of {address} is not that of the coordinator which made the token; nothing was sent"
    )]
    NotPinned {
        /// The address.
        address: CoordinatorAddress,
        /// Why.
        #[source]
        source: Box<VerifyError>,
    },
    /// A port for those who have a certificate.
    #[error("{address} asks for a certificate, so it is not the port for enrolment; check the port")]
    NotForEnrolment {
        /// The address.
        address: CoordinatorAddress,
    },
    /// Not even a try.
    #[error("cannot set up the connection")]
    Setup {
        /// Why.
        #[source]
        source: TlsConfigError,
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

impl ChannelError {
    /// Where the trouble lies.
    pub fn about(&self) -> About {
        match self {
            Self::CertificateRefused { .. }
            | Self::ServerCertificate { .. }
            | Self::NotPinned { .. }
            | Self::Setup { .. } => About::Certificate,
            Self::Resolve { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::NotForEnrolment { .. }
            | Self::Handshake { .. }
            | Self::Closed { .. }
            | Self::Protocol { .. } => About::Network,
        }
    }
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
    // Opened here and not by tonic, which would wrap the error.
    let first = dial(address, Arc::clone(&config), options).await?;
    let connector = Connector {
        address: address.clone(),
        config,
        options,
        first: Arc::new(Mutex::new(Some(first))),
    };
    endpoint(address, options)
        .connect_with_connector(tower::service_fn(move |_| connector.clone().connection()))
        .await
        .map_err(|source| ChannelError::Protocol {
            address: address.clone(),
            source,
        })
}

/// A call that failed because of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A sentence about it, with what to try.
    pub words: String,
    /// Where the trouble lies.
    pub about: About,
}

/// Where the trouble with a connection lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A certificate, ours or the coordinator's: only a person cures it.
    Certificate,
    /// The way to the coordinator, or what answers there: the same call may succeed later by itself.
    Network,
}

/// Why a call failed, when its connection was the trouble; `None` when it was not.
pub fn explain(status: &tonic::Status) -> Option<Trouble> {
    let mut next = status.source();
    let mut innermost = None;
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<ChannelError>() {
            return Some(Trouble {
                words: Chain(ours).to_string(),
                about: ours.about(),
            });
        }
        let alert = match tls_error(error) {
            Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
            _ => refusal::alert_in(&error.to_string()),
        };
        if let Some(words) = alert.and_then(refusal::about_certificate) {
            return Some(Trouble {
                words: format!("the coordinator refused our certificate: {words}"),
                about: About::Certificate,
            });
        }
        // The caller's own deadline says nothing about the connection.
        if error.is::<tonic::TimeoutExpired>() {
            return None;
        }
        innermost = Some(error);
        next = error.source();
    }
    // A status that the coordinator sent has no source. One that was made here has, and it is the transport.
    innermost.map(|cause| Trouble {
        words: format!(
            "the connection to the coordinator broke; try again: {}",
            refusal::without_link(&cause.to_string())
        ),
        about: About::Network,
    })
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
            None => dial(&self.address, self.config, self.options)
                .await
                .map(TokioIo::new),
        }
    }
}
