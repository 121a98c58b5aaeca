//! Who is who: Hostler's CA, the identities in certificates, and the TLS that both ends of every
//! connection use.
//!
//! It never decides what a peer may do; that is the coordinator's table. The invariant: a connection
//! that is up belongs to one valid identity of our own trust domain, checked inside the handshake.

pub mod address;
mod atomic;
pub mod ca;
pub mod certificate;
pub mod channel;
pub mod client;
mod demand;
pub mod dial;
pub mod enrol;
pub mod files;
pub mod fingerprint;
pub mod handshake;
pub mod identity;
pub mod issued;
pub mod refusal;
pub mod reload;
pub mod request;
pub mod revocation;
pub mod server;
pub mod token;
pub mod trust;
pub mod verify;

pub use address::CoordinatorAddress;
pub use channel::{About, ChannelError, ChannelOptions, Trouble, channel, connect, explain};
pub use client::{client_config, client_config_noting};
pub use dial::dial;
pub use enrol::{connect_to_enrol, enrol_client_config, enrol_server_config};
pub use files::{Credentials, CredentialsError, TlsFiles};
pub use fingerprint::Fingerprint;
pub use handshake::{HandshakeError, accept, explain_failed_handshake};
pub use identity::{Identity, IdentityError, Role, Subject, TrustDomain};
pub use reload::{FilesStamp, Reloaded};
pub use request::{KeyRequest, KeyRequestError};
pub use revocation::Revocations;
pub use server::{PeerCertificate, PeerError, peer_certificate, peer_identity, server_config};
pub use token::{EnrolToken, SecretHash, TokenError, TokenId};
pub use trust::{PeerRoot, Theirs, TrustBundle, TrustError};

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
