//! The question inside the handshake: was this certificate revoked?
//!
//! It keeps no list; the coordinator does. The invariant: a revocation covers every certificate of its subject whose
//! life began no later than it, and none that the CA signed with [`crate::ca::IssueOptions::after`] set to it.

use std::fmt;
use std::sync::Arc;

use hostler_common::units::UnixMillis;

use crate::identity::Subject;

type Asked = dyn Fn(&Subject, UnixMillis) -> Option<UnixMillis> + Send + Sync;

/// What [`crate::server_config`] asks about each caller, synchronously and inside its handshake: so the answer comes
/// from memory, and at once.
#[derive(Clone)]
pub struct Revocations(Arc<Asked>);

impl Revocations {
    /// `asked` is given the subject and the first moment of its certificate, and answers when that was revoked, or
    /// `None`. [`covers`] is the rule.
    pub fn new(asked: impl Fn(&Subject, UnixMillis) -> Option<UnixMillis> + Send + Sync + 'static) -> Self {
        Self(Arc::new(asked))
    }

    /// Nothing is revoked.
    pub fn none() -> Self {
        Self::new(|_, _| None)
    }

    /// When a certificate of `subject` that is valid from `not_before` was revoked.
    pub fn revoked(&self, subject: &Subject, not_before: UnixMillis) -> Option<UnixMillis> {
        (self.0)(subject, not_before)
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revocations")
    }
}

/// Whether what was revoked at `at` covers a certificate that is valid from `not_before`. Certificates count whole
/// seconds: one of the revocation's own second counts as older.
pub fn covers(at: UnixMillis, not_before: UnixMillis) -> bool {
    not_before <= at
}

/// What somebody who was revoked can do. Reads on after "was revoked".
pub(crate) fn way_out(subject: &Subject) -> &'static str {
    match subject {
        Subject::Agent { .. } => {
            "if the host is to come back, enrol it again with a new token from hostler tokens create"
        }
        Subject::Client { .. } => {
            "if it is to come back, issue a new certificate with hostler-pki issue client --from-now"
        }
        Subject::Coordinator { .. } => {
            "issue a new certificate with hostler-pki issue coordinator --from-now"
        }
    }
}
