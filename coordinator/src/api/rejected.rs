//! Why a connection did not come to be, and who is told: the log, a few of them; the audit log, whoever was refused.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::throttle::Throttle;
use hostler_common::units::UnixMillis;
use hostler_pki::{HandshakeError, Identity, PeerError};
use thiserror::Error;
use tonic::Code;

use super::listener::HANDSHAKE_PATIENCE;
use crate::audit::{Audit, Entry, Event};

/// Refused connections that are logged; anybody can cause them.
static REFUSALS: Throttle = Throttle::new(20, Duration::from_secs(10));

/// Why a connection did not come to be.
#[derive(Debug, Error)]
pub(super) enum Rejected {
    #[error("the connection broke at once")]
    Socket(#[source] io::Error),
    #[error("no complete TLS handshake within {} s", HANDSHAKE_PATIENCE.as_secs())]
    Late,
    #[error("too many connections that have not shown a certificate")]
    Crowded,
    #[error("it made way for others before its TLS handshake")]
    MadeWay,
    #[error("the TLS handshake failed")]
    Handshake(#[source] HandshakeError),
    #[error("the certificate does not count")]
    Certificate(#[source] PeerError),
    #[error("the certificate of {identity} was revoked at {at}")]
    Revoked { identity: Box<Identity>, at: UnixMillis },
}

impl Rejected {
    /// Whom a certificate of ours names that was refused.
    fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Handshake(error) => error.identity(),
            Self::Certificate(PeerError::NotTrusted { identity }) | Self::Revoked { identity, .. } => {
                Some(identity)
            }
            Self::Socket(_)
            | Self::Late
            | Self::Crowded
            | Self::MadeWay
            | Self::Certificate(PeerError::Identity(_)) => None,
        }
    }

    /// Whether somebody was refused, rather than gone or silent: what looks whether the port is open says nothing.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Handshake(error) => error.is_refusal(),
            Self::Certificate(_) | Self::Revoked { .. } => true,
            Self::Socket(_) | Self::Late | Self::Crowded | Self::MadeWay => false,
        }
    }
}

/// Puts a refusal into the audit log.
pub(super) fn note(audit: &Audit, address: SocketAddr, rejected: &Rejected) {
    if !rejected.is_refusal() {
        return;
    }
    let identity = rejected.identity().map(Identity::to_string).unwrap_or_default();
    let why = Chain(rejected).to_string();
    let entry = Entry::refused(Event::Handshake, identity, address, Code::Unauthenticated, &why);
    audit.note(&entry);
}

/// Tells the log, unless it has been told much.
pub(super) fn refused(peer: SocketAddr, rejected: &Rejected) {
    if let Some(held_back) = REFUSALS.pass() {
        tracing::warn!(%peer, error = %Chain(rejected), held_back, "connection refused");
    }
}
