//! Why the CA did not do it, in words for who asked.
//!
//! It holds sentences and decides nothing. The invariant: each names the thing and, where a person can do something,
//! what to do.

use std::path::PathBuf;
use std::time::Duration;

use hostler_common::units::UnixMillis;
use thiserror::Error;

use super::MAX_LIFETIME;
use crate::files::CredentialsError;
use crate::identity::{Identity, TrustDomain};
use crate::issued::WriteError;
use crate::request::RequestError;

const DAY: Duration = Duration::from_secs(86_400);

/// Why the CA did not do it.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// Nobody made one there.
    #[error("there is no CA in {}; hostler-pki init makes one", dir.display())]
    Absent {
        /// The directory.
        dir: PathBuf,
    },
    /// Its files cannot be loaded.
    #[error("cannot open the CA in {}", dir.display())]
    Load {
        /// The CA's directory.
        dir: PathBuf,
        /// Which file, and why.
        #[source]
        source: Box<CredentialsError>,
    },
    /// One of its two files is missing, as when it was cut off in the making.
    #[error("{} is there without {}; put that back from a copy of this CA, or remove the one if this CA never signed anything", there.display(), missing.display())]
    Half {
        /// The file.
        there: PathBuf,
        /// The other.
        missing: PathBuf,
    },
    /// The certificate is not a CA of ours.
    #[error("{} is not a CA certificate of Hostler: {problem}", path.display())]
    NotOurs {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nothing it signs would be accepted.
    #[error("the CA {} expired at {not_after}; nothing that it signs would be accepted; make a new one with hostler-pki init in another directory", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// Its last moment.
        not_after: UnixMillis,
    },
    /// A life of nothing, or of too much.
    #[error("a life of {} s is not possible; use 1 s to {} days", lifetime.as_secs(), MAX_LIFETIME.as_secs() / DAY.as_secs())]
    Lifetime {
        /// What was asked for.
        lifetime: Duration,
    },
    /// It would outlive its CA.
    #[error(
        "it would be valid until {wanted}, and its CA only until {not_after}; ask for fewer days, or renew the CA with hostler-pki rotate-ca"
    )]
    OutlivesCa {
        /// Its last moment.
        wanted: UnixMillis,
        /// The CA's last moment.
        not_after: UnixMillis,
    },
    /// It would begin in the future, and not by the rounding of a second.
    #[error("{identity} was revoked at {after}, which is later than now by this clock; compare the clocks")]
    RevokedInTheFuture {
        /// The identity.
        identity: Box<Identity>,
        /// What its life must begin after.
        after: UnixMillis,
    },
    /// What a host asks for cannot be signed.
    #[error("the certificate request for {subject} is refused")]
    Request {
        /// For whom.
        subject: String,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// Another fleet's identity.
    #[error("{identity} is not of this CA's trust domain {trust_domain}")]
    OtherTrustDomain {
        /// The identity.
        identity: Box<Identity>,
        /// The CA's.
        trust_domain: TrustDomain,
    },
    /// Host names for something that does not serve.
    #[error("{identity} does not serve, so it takes no DNS name or IP address")]
    NamesForCaller {
        /// The identity.
        identity: Box<Identity>,
    },
    /// Not a DNS name.
    #[error("{name:?} is not a DNS name")]
    DnsName {
        /// The text.
        name: String,
    },
    /// The cryptography failed.
    #[error("cannot make a certificate for {subject}")]
    Sign {
        /// For whom.
        subject: String,
        /// What rcgen says.
        #[source]
        source: rcgen::Error,
    },
    /// The kernel gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The files cannot be written.
    #[error("cannot keep the CA in {}", dir.display())]
    Write {
        /// The directory.
        dir: PathBuf,
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
}
