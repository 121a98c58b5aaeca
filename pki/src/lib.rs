//! Who is who: Hostler's CA, the identities in certificates, and the TLS that both ends of every
//! connection use.
//!
//! It never decides what a peer may do; that is the coordinator's table. The invariant: a connection
//! that is up belongs to one valid identity of our own trust domain, checked inside the handshake.

pub mod address;
pub mod ca;
pub mod certificate;
pub mod channel;
pub mod client;
pub mod dial;
pub mod files;
pub mod identity;
pub mod issued;
pub mod refusal;
pub mod server;
pub mod verify;

pub use address::CoordinatorAddress;
pub use channel::{About, ChannelError, ChannelOptions, Trouble, channel, connect, explain};
pub use client::client_config;
pub use dial::dial;
pub use files::{Credentials, CredentialsError, TlsFiles};
pub use identity::{Identity, IdentityError, Role, Subject, TrustDomain};
pub use server::{explain_failed_handshake, peer_identity, peer_not_after, server_config};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use thiserror::Error;

/// The protocol inside the TLS: HTTP/2, as gRPC needs it.
pub(crate) const ALPN: &[u8] = b"h2";

/// The one cryptography that we use. It is passed explicitly everywhere, so that a second provider in the
/// process can never make rustls ask which one to take.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Why a TLS configuration could not be made.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// Every peer would refuse it.
    #[error("the certificate of {identity} cannot be used {wanted}")]
    WrongSubject {
        /// Whom it names.
        identity: Box<Identity>,
        /// What it was to be used for.
        wanted: verify::Usage,
    },
    /// The roots do not make a verifier.
    #[error("cannot verify clients with this CA")]
    Verifier {
        /// What rustls says.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    /// TLS 1.3 is not to be had.
    #[error("cannot set up TLS 1.3")]
    Protocol {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
}
