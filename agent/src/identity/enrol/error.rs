//! Why a host is not enrolled, each time with the way out. It decides nothing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hostler_common::DEFAULT_ENROL_PORT;
use hostler_common::id::HostName;
use hostler_common::units::UnixMillis;
use hostler_pki::issued::WriteError;
use hostler_pki::{Identity, KeyRequestError, TrustError};
use thiserror::Error;

use super::call::CallError;
use super::configuration::ConfigurationError;
use super::service::ServiceError;
use crate::identity::files::PutError;

/// Why the host is not enrolled. What was done before is kept, and the same command goes on from there.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// Nobody knows where to call.
    #[error(
        "nothing says where the coordinator is; give it as --coordinator HOST:PORT (its enrolment port, {DEFAULT_ENROL_PORT} unless its configuration says otherwise)"
    )]
    NoCoordinator,
    /// The configuration is not one.
    #[error("the agent's configuration stands in the way")]
    Configuration {
        /// How.
        #[from]
        source: ConfigurationError,
    },
    /// The host is somebody else.
    #[error(
        "this host is {found} until {until}, and the token is for {wanted}; make a token for {wanted} on its own host, or move {} away to make this host {wanted}",
        path.display()
    )]
    OtherHost {
        /// Whom the certificate names.
        found: Box<Identity>,
        /// Its last moment.
        until: UnixMillis,
        /// Whom the token names.
        wanted: HostName,
        /// The certificate.
        path: PathBuf,
    },
    /// No place for the identity.
    #[error("cannot make or open the directory {}; run this as root", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two at once would take each other's key.
    #[error("another hostler-agent enrol is at work in {}; wait for its end", path.display())]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// No key, or no certificate for it.
    #[error("cannot get a certificate for a key of this host")]
    Key {
        /// Why.
        #[from]
        source: KeyRequestError,
    },
    /// The coordinator refused, or is not one.
    #[error("the coordinator gave no certificate")]
    Call {
        /// Why.
        #[from]
        source: CallError,
    },
    /// The coordinator was away or busy for all the time that there was.
    #[error(
        "the coordinator gave no certificate within {} s; --wait 10m waits longer",
        waited.as_secs()
    )]
    Away {
        /// For how long it was tried.
        waited: Duration,
        /// Why the last try failed.
        #[source]
        source: CallError,
    },
    /// Ctrl-C, or SIGTERM.
    #[error("interrupted; this host is not enrolled, and the same command begins where this one ended")]
    Interrupted,
    /// The answer is for somebody else.
    #[error(
        "the certificate in the answer names {found}, and the token is for {wanted}; nothing was changed"
    )]
    WrongCertificate {
        /// Whom it names.
        found: Box<Identity>,
        /// Whom the token names.
        wanted: HostName,
    },
    /// The CAs in the answer are no use.
    #[error("the CA certificates in the answer are not taken; nothing was changed")]
    Cas {
        /// Why.
        #[source]
        source: TrustError,
    },
    /// The CA that the token pins is not among those in the answer.
    #[error("the CA that the token names is not among those in the answer; nothing was changed")]
    NotPinned,
    /// The CAs cannot be kept.
    #[error("the CA certificates cannot be kept; run the same command again when that is cured")]
    Keep {
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
    /// It cannot be noted which token it was.
    #[error("{} cannot be written; run the same command again when that is cured", path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be kept or used.
    #[error("the certificate came and is not in its place; run the same command again when that is cured")]
    Put {
        /// Why.
        #[from]
        source: PutError,
    },
    /// The service did not start.
    #[error("this host is enrolled, but its agent does not run")]
    Service {
        /// Why.
        #[from]
        source: ServiceError,
    },
    /// Nobody reads what is told.
    #[error("cannot tell what was done")]
    Tell {
        /// Why.
        #[from]
        source: io::Error,
    },
}
