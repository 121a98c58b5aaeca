//! Why a step of a rotation was not done, and which one comes first.
//!
//! It holds sentences and decides nothing. The invariant: each refusal names the command that leads on.

use std::path::PathBuf;

use thiserror::Error;

use crate::ca::AuthorityError;
use crate::files::CredentialsError;
use crate::issued::WriteError;

/// Why a step was not done.
#[derive(Debug, Error)]
pub enum RotationError {
    /// The CA cannot be used.
    #[error("cannot rotate the CA in {}", dir.display())]
    Ca {
        /// The CA's directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Box<AuthorityError>,
    },
    /// Not ours to judge.
    #[error("{} holds {count} certificates, and a rotation knows one or two; keep the old and the new one", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// Two fleets in one file.
    #[error("{} holds CAs of two trust domains, {one} and {other}; a rotation stays within one", path.display())]
    TwoDomains {
        /// The file.
        path: PathBuf,
        /// The first's.
        one: String,
        /// The second's.
        other: String,
    },
    /// A key that belongs to none of them.
    #[error("{} belongs to no certificate in ca.crt, or to the wrong one; put the right files back, or move it away", path.display())]
    StrayKey {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else is at it.
    #[error("another hostler-pki rotates the CA in {} now; look at it with hostler-pki rotate-ca status", dir.display())]
    Busy {
        /// The CA's directory.
        dir: PathBuf,
    },
    /// There is one under way.
    #[error(
        "the new root signs already; end this rotation with hostler-pki rotate-ca finish before you begin another"
    )]
    FinishFirst,
    /// There is none under way.
    #[error("no rotation is under way; the first step is hostler-pki rotate-ca begin")]
    BeginFirst,
    /// A step is missing, or was cut short.
    #[error(
        "the old root still signs, or the switch was cut short; the step before is hostler-pki rotate-ca switch"
    )]
    SwitchFirst,
    /// Nobody has said that the old root may go.
    #[error(
        "finish drops the root {old}: whoever has a certificate that it signed, or trusts nothing else, is cut off at once; \
         hostler status names the agents and clients that have one; when nobody is left, name it with --drop {old}"
    )]
    Consent {
        /// The old root's id.
        old: String,
    },
    /// Another one was named.
    #[error("{named} is not the root that would be dropped; that is {old}, and {new} stays")]
    OtherRoot {
        /// What was named.
        named: String,
        /// The one that goes.
        old: String,
        /// The one that stays.
        new: String,
    },
    /// The old key cannot be kept.
    #[error("cannot read the key that goes out of use")]
    Read {
        /// Which file, and why.
        #[source]
        source: CredentialsError,
    },
    /// The file system says no.
    #[error("the step was cut short; ask for it again once this is cured")]
    Write {
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
}
