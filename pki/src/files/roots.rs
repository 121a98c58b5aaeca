//! The roots of a file that count now: those whose time is not over.
//!
//! TLS does not look at it: a root is trusted as it is, and one whose key was lost long ago would vouch for ever. The
//! invariant: whoever holds roots can tell when the file would give others, also when a clock is set back.

use std::path::Path;
use std::sync::Arc;

use hostler_common::units::UnixMillis;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

use super::{CredentialsError, read_certificates};
use crate::certificate::CertificateFacts;

/// Roots of a file.
#[derive(Debug)]
pub(super) struct Roots {
    /// In the file's order. Never empty.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// While they are what the file gives.
    pub(super) stand: Span,
}

/// A time, its last moment included, its first not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    after: UnixMillis,
    until: UnixMillis,
}

impl Span {
    pub(crate) fn holds(self, now: UnixMillis) -> bool {
        self.after < now && now <= self.until
    }
}

/// Reads the CA certificates in `path` that have not ended.
///
/// # Errors
/// When there is none, or one cannot be a root.
pub fn read_roots(path: &Path) -> Result<Arc<RootCertStore>, CredentialsError> {
    store_of(&read(path)?.certificates, path)
}

pub(super) fn read(path: &Path) -> Result<Roots, CredentialsError> {
    let (certificates, stand) = valid(read_certificates(path)?, end_of, UnixMillis::now());
    match certificates.is_empty() {
        false => Ok(Roots { certificates, stand }),
        true => Err(CredentialsError::CaExpired {
            path: path.to_owned(),
            not_after: stand.after,
        }),
    }
}

fn end_of(certificate: &CertificateDer<'_>) -> UnixMillis {
    // What cannot be read is refused as a root.
    CertificateFacts::read(certificate).map_or(UnixMillis(i64::MAX), |facts| facts.not_after)
}

/// Those of `all` that have not ended, and while that stays so.
fn valid<T>(all: Vec<T>, end: impl Fn(&T) -> UnixMillis, now: UnixMillis) -> (Vec<T>, Span) {
    let (valid, ended): (Vec<_>, Vec<_>) = all.into_iter().partition(|root| end(root) >= now);
    let after = ended.iter().map(&end).max();
    let until = valid.iter().map(&end).min();
    let stand = Span {
        after: after.unwrap_or(UnixMillis(i64::MIN)),
        until: until.unwrap_or(UnixMillis(i64::MAX)),
    };
    (valid, stand)
}

pub(super) fn store_of(
    certificates: &[CertificateDer<'static>],
    path: &Path,
) -> Result<Arc<RootCertStore>, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate.clone())
            .map_err(|source| CredentialsError::BadRoot {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_ended_by_a_clock_ahead_counts_again_when_the_clock_goes_back() {
        let valid_at = |now| valid(vec![10, 20, 30], |end| UnixMillis(*end), UnixMillis(now));
        let (all, stand) = valid_at(5);
        assert_eq!(all, [10, 20, 30]);
        assert!(stand.holds(UnixMillis(10)) && !stand.holds(UnixMillis(11)));
        let (some, stand) = valid_at(15);
        assert_eq!(some, [20, 30]);
        assert!(stand.holds(UnixMillis(11)) && stand.holds(UnixMillis(20)));
        assert!(!stand.holds(UnixMillis(10)), "the clock went back");
        assert!(!stand.holds(UnixMillis(21)));
        assert_eq!(valid_at(31).0, [0; 0]);
    }
}
