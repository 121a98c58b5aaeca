//! One attempt to enrol, as it is told: a line in the audit log, and one in the coordinator's own.
//!
//! It decides nothing. The invariants: each attempt has its line, also when whoever made it was gone before the answer; and no secret is
//! in it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::HostName;
use hostler_common::throttle::Throttle;
use hostler_common::units::UnixMillis;
use hostler_pki::{EnrolToken, Identity, TokenId};
use tonic::Code;

use super::enrolment::EnrolError;
use crate::audit::{Audit, Entry, Event};

/// Refused attempts in the coordinator's log.
static REFUSALS: Throttle = Throttle::new(20, Duration::from_secs(10));

const GONE: &str = "the caller went away before the answer; its token may be used up";

/// An attempt that goes on. Dropped before its end it is noted as one whose caller has gone.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    audit: &'a Audit,
    from: SocketAddr,
    /// What the token says, when it could be read. Whoever wrote it may have made both up.
    named: Option<(TokenId, HostName)>,
    has_secret: AtomicBool,
    told: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn begun(audit: &'a Audit, from: SocketAddr, token: Option<&EnrolToken>) -> Self {
        Self {
            audit,
            from,
            named: token.map(|token| (token.id(), token.host().clone())),
            has_secret: AtomicBool::new(false),
            told: false,
        }
    }

    /// Whoever makes it has shown the secret of a token that was made here.
    pub(super) fn has_secret(&self) {
        self.has_secret.store(true, Ordering::Relaxed);
    }

    /// It has ended: with a certificate for somebody until a moment, or without.
    pub(super) fn ended(mut self, outcome: Result<(&Identity, UnixMillis), &EnrolError>) {
        self.told = true;
        let (peer, token) = (self.from, self.id());
        match outcome {
            Ok((identity, valid_until)) => {
                let words = self.words(&format!("certificate until {valid_until}"));
                let entry = Entry::done(Event::Enrolment, identity, peer);
                self.audit.note(&entry.answered(Code::Ok, &words));
                tracing::info!(%peer, token, %identity, %valid_until, "a host enrolled");
            }
            Err(error) => {
                self.refused(error.code(), &Chain(error).to_string());
                let is_ours = matches!(error, EnrolError::Sign(_) | EnrolError::Tokens(_));
                if is_ours {
                    tracing::error!(%peer, token, error = %Chain(error), "a host could not enrol");
                } else if let Some(held_back) = REFUSALS.pass() {
                    tracing::warn!(%peer, token, error = %Chain(error), held_back, "an enrolment was refused");
                }
            }
        }
    }

    fn id(&self) -> String {
        self.named
            .as_ref()
            .map(|(id, _)| id.to_string())
            .unwrap_or_default()
    }

    fn words(&self, what: &str) -> String {
        match &self.named {
            Some((id, host)) => format!("token {id} for {host}: {what}"),
            None => what.to_owned(),
        }
    }

    fn refused(&self, code: Code, why: &str) {
        let entry = Entry::refused(Event::Enrolment, "", self.from, code, &self.words(why));
        self.audit.note(&match self.has_secret.load(Ordering::Relaxed) {
            true => entry.of_a_holder(),
            false => entry,
        });
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.refused(Code::Cancelled, GONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use hostler_pki::Fingerprint;

    use super::*;

    #[tokio::test]
    async fn a_caller_that_is_gone_before_the_answer_is_noted_with_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::start(dir.path()).unwrap();
        let token = EnrolToken::new("h1".parse().unwrap(), Fingerprint::from_bytes([1; 32])).unwrap();
        drop(Attempt::begun(
            &audit,
            ([192, 0, 2, 7], 40_000).into(),
            Some(&token),
        ));
        audit.end().await;
        let log = std::fs::read_to_string(dir.path().join("audit/audit.jsonl")).unwrap();
        let gone = format!("token {} for h1: the caller went away", token.id());
        assert_eq!(log.lines().count(), 1, "{log}");
        for told in ["CANCELLED", "192.0.2.7", &gone] {
            assert!(log.contains(told), "{log}");
        }
    }
}
