//! Which CAs this host trusts: the coordinator tells, and the file follows.
//!
//! The invariant: the file is replaced only by CAs among which are the one of our own certificate and the one of the coordinator's,
//! as it shows it now. So it is never empty, and no coordinator can cut this host off by a mistake. The connection that they came over
//! goes on, also when it was opened under a CA that is dropped; no other is.

use std::path::Path;

use hostler_common::error::Chain;
use hostler_common::rpc::hostler::agent::v1::Trust;
use hostler_pki::{CredentialsError, Fingerprint, PeerRoot, Theirs, TlsFiles, TrustBundle, TrustError};
use thiserror::Error;

use super::files;

/// What became of CAs that were told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// They are trusted already.
    Same,
    /// The file holds them now.
    Changed {
        /// How many.
        roots: usize,
    },
}

/// Why CAs are not taken.
#[derive(Debug, Error)]
pub enum TakeError {
    /// They are not fit, or would cut us off.
    #[error("the new CA certificates are not taken")]
    Unfit {
        /// Why.
        #[source]
        source: TrustError,
    },
    /// What we have cannot be read, so nothing can be compared with it.
    #[error("the new CA certificates are not taken, since our own certificate is not good")]
    Own {
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// The file system says no.
    #[error("the new CA certificates cannot be kept")]
    Write {
        /// Which file, and why.
        #[source]
        source: hostler_pki::issued::WriteError,
    },
}

impl TakeError {
    /// Whether the next connection may cure it: the coordinator says its CAs at each welcome.
    pub fn comes_again(&self) -> bool {
        matches!(
            self,
            Self::Unfit {
                source: TrustError::WithoutTheirs { .. } | TrustError::TheirsRefused { .. }
            }
        )
    }

    /// Whether a new certificate of our own is what is missing.
    pub fn wants_renewal(&self) -> bool {
        matches!(
            self,
            Self::Unfit {
                source: TrustError::WithoutOurs { .. }
            }
        )
    }
}

/// Takes the CAs of `told` when they are fit. `theirs` is the root of the connection that they came over. Blocks.
///
/// # Errors
/// Why they are not taken; the file is then untouched.
pub fn take(told: &Trust, files: &TlsFiles, theirs: &PeerRoot) -> Result<Taken, TakeError> {
    let ours = files::load(files).map_err(|source| TakeError::Own { source })?;
    let theirs = Theirs {
        connected: theirs.get(),
        shows: &told.coordinator_pem,
    };
    let bundle =
        TrustBundle::admit(&told.ca_pem, &ours, theirs).map_err(|source| TakeError::Unfit { source })?;
    if sorted(bundle.roots()) == sorted(roots_in(&files.ca)) {
        return Ok(Taken::Same);
    }
    bundle
        .write(&files.ca)
        .map_err(|source| TakeError::Write { source })?;
    Ok(Taken::Changed {
        roots: bundle.roots().len(),
    })
}

/// None when the file cannot be read: whatever is fit is then another.
fn roots_in(path: &Path) -> Vec<Fingerprint> {
    let read = std::fs::read_to_string(path)
        .ok()
        .map(|pem| TrustBundle::parse(&pem));
    match read {
        Some(Ok(bundle)) => bundle.roots(),
        Some(Err(error)) => {
            tracing::warn!(path = %path.display(), error = %Chain(&error), "the CA certificates cannot be compared");
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn sorted(mut roots: Vec<Fingerprint>) -> Vec<Fingerprint> {
    roots.sort_unstable();
    roots
}
