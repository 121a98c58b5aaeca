//! The task that keeps this host's certificate alive, and its CAs up to date, while the agent runs.
//!
//! It never dials: it wishes for a certificate on its [`KeeperEnd`], and whichever session is up carries that. The invariant: a
//! new key is in the file only together with its certificate, and a refusal, a silence or a full disk changes nothing but
//! when it is tried again.

use std::collections::BTreeSet;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::retry::Waits;
use hostler_common::rpc::hostler::agent::v1::{Renew, RenewAnswer, Trust};
use hostler_common::units::UnixMillis;
use hostler_pki::issued::Issued;
use hostler_pki::request::KeyRequest;
use hostler_pki::{FilesStamp, Fingerprint, PeerRoot, TlsFiles};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::files::{self, Own};
use super::line::KeeperEnd;
use super::schedule::Schedule;
use super::trust::{self, Taken};
use super::words;
use crate::blocking::Blocking;

/// The longest between two looks at the clock and the files: the clock may have jumped, and a person may have enrolled
/// this host again.
const LOOK: Duration = Duration::from_secs(30);
/// The shortest, when something is overdue that only time cures.
const SOON: Duration = Duration::from_millis(200);
/// A few small files; a disk that takes longer is broken.
const DEADLINE: Duration = Duration::from_secs(30);
/// Distinct refusals that are remembered to be logged once.
const COMPLAINTS_BOUND: usize = 16;

/// A certificate that was asked for.
struct Asking {
    request: KeyRequest,
    /// Of the newest wish, and of the first for this key.
    newest: u64,
    first: u64,
    again_at: Instant,
    waits: Waits,
    /// It came, and its time has not.
    early: Option<Issued>,
}

/// Keeps the files of one identity.
pub struct Keeper {
    files: TlsFiles,
    end: KeeperEnd,
    /// Where the coordinator of the newest connection comes from.
    theirs: PeerRoot,
    blocking: Blocking,
    stop: CancellationToken,
    own: Option<Own>,
    stamp: Option<FilesStamp>,
    asking: Option<Asking>,
    next_wish: u64,
    /// The CA that certificates are renewed with, and since when that is known.
    signing: Option<(Fingerprint, UnixMillis)>,
    /// CAs that are not taken before we have a certificate of one of them.
    waiting_cas: Option<Trust>,
    /// When a person was last told that the certificate ends.
    told: Option<Instant>,
    told_expired: Option<UnixMillis>,
    complaints: BTreeSet<String>,
}

impl Keeper {
    /// Of `files`, with the session at the other end of `end`.
    pub fn new(
        files: TlsFiles,
        end: KeeperEnd,
        theirs: PeerRoot,
        blocking: Blocking,
        stop: CancellationToken,
    ) -> Self {
        Self {
            files,
            end,
            theirs,
            blocking,
            stop,
            own: None,
            stamp: None,
            asking: None,
            next_wish: 1,
            signing: None,
            waiting_cas: None,
            told: None,
            told_expired: None,
            complaints: BTreeSet::new(),
        }
    }

    /// Until `stop` is cancelled.
    pub async fn run(mut self) {
        let stop = self.stop.clone();
        // Cancel-safe: a file is replaced whole by a call that goes on by itself, or not at all.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        loop {
            self.look().await;
            let wait = self.turn().await;
            // Cancel-safe, each: a channel, a watch and a clock lose nothing when they are not the first.
            tokio::select! {
                biased;
                Some(answer) = self.end.answers.recv() => self.answered(answer).await,
                Ok(()) = self.end.cas.changed() => {
                    let trust = self.end.cas.borrow_and_update().clone();
                    self.hear(&trust.signing_root);
                    self.take(trust).await;
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads the files again when somebody has touched them.
    async fn look(&mut self) {
        let (files, before) = (self.files.clone(), self.stamp.clone());
        let looking = self
            .blocking
            .run("looking at the certificate", DEADLINE, move || {
                let stamp = files.stamp();
                let changed = before.as_ref() != Some(&stamp);
                (stamp, changed.then(|| Own::read(&files)))
            });
        let (stamp, read) = match looking.await {
            Ok((stamp, Some(read))) => (stamp, read),
            Ok((_, None)) => return,
            Err(fault) => return tracing::warn!(%fault, "the certificate cannot be looked at"),
        };
        self.stamp = Some(stamp);
        match read {
            Ok(own) => {
                let is_new = self.own.as_ref().is_none_or(|before| *before != own);
                if is_new && self.own.replace(own).is_some() {
                    // By a person, or by us.
                    self.settle();
                }
            }
            // The connection that is up goes on, and the next dial says it too.
            Err(error) => tracing::error!(error = %Chain(&error), "this host's certificate is not good"),
        }
    }

    /// Does what has become due, and says how long nothing will.
    async fn turn(&mut self) -> Duration {
        let Some(own) = self.own.clone() else {
            return LOOK;
        };
        let now = UnixMillis::now();
        let schedule = self.schedule(&own, now);
        if own.is_expired(now) {
            self.settle();
            if self.told_expired.replace(own.not_after) != Some(own.not_after) {
                tracing::error!("{}", words::expired(&own.identity, own.not_after));
            }
            return LOOK;
        }
        if now < schedule.renew_at && self.waiting_cas.is_none() {
            // The clock was put back, or the certificate is new.
            self.settle();
            return now.until(schedule.renew_at).clamp(SOON, LOOK);
        }
        if now >= schedule.tell_at {
            let is_time = self
                .told
                .is_none_or(|told| told.elapsed() >= schedule.between_words());
            if is_time {
                self.told = Some(Instant::now());
                tracing::error!("{}", words::ending(&own.identity, own.not_after));
            }
        }
        let asked = self.asking.as_mut();
        let ripe = asked.and_then(|asking| asking.early.take_if(|early| early.not_before <= now));
        if let Some(early) = ripe {
            self.put(early).await;
            return SOON;
        }
        self.wish(&schedule);
        let again = self.asking.as_ref().map_or(LOOK, |asking| {
            asking.again_at.saturating_duration_since(Instant::now())
        });
        let end = now.until(own.not_after);
        again.min(end).clamp(SOON, LOOK)
    }

    /// Since when another CA signs is remembered: who says it again has not begun again.
    fn hear(&mut self, signing_root: &str) {
        let root = signing_root.parse().ok();
        if root != self.signing.map(|(root, _)| root) {
            self.signing = root.map(|root| (root, UnixMillis::now()));
        }
    }

    fn schedule(&self, own: &Own, now: UnixMillis) -> Schedule {
        let schedule = Schedule::of(own, now);
        match self.signing {
            Some((signing, heard)) if own.root.is_some_and(|root| root != signing) => {
                schedule.of_old_root(own, heard.min(now))
            }
            _ => schedule,
        }
    }

    /// Wishes for a certificate, when none is wished for or the last wish is old.
    fn wish(&mut self, schedule: &Schedule) {
        let now = Instant::now();
        if self.asking.as_ref().is_some_and(|asking| now < asking.again_at) {
            return;
        }
        let id = self.next_wish;
        let asking = match &mut self.asking {
            Some(asking) => asking,
            none => match KeyRequest::new() {
                Ok(request) => none.insert(Asking {
                    request,
                    newest: id,
                    first: id,
                    again_at: now,
                    waits: schedule.waits(),
                    early: None,
                }),
                Err(error) => {
                    return tracing::error!(error = %Chain(&error), "no certificate can be asked for");
                }
            },
        };
        self.next_wish += 1;
        asking.newest = id;
        asking.again_at = now + asking.waits.next_wait();
        let wish = Renew {
            request_id: id,
            csr_der: asking.request.csr_der().to_vec(),
        };
        tracing::debug!(request = id, ends = %schedule.end, "a new certificate is asked for");
        self.end.wish.send_replace(Some(wish));
    }

    async fn answered(&mut self, answer: RenewAnswer) {
        let Some(asking) = &mut self.asking else {
            return tracing::debug!("an answer about a certificate that nobody waits for is ignored");
        };
        if !(asking.first..=asking.newest).contains(&answer.request_id) {
            return tracing::debug!("an answer to an older request for a certificate is ignored");
        }
        if answer.certificate_pem.is_empty() {
            let reason = answer.reason;
            return self.complain(format!(
                "the coordinator does not renew this host's certificate: {reason}"
            ));
        }
        match asking.request.complete(&answer.certificate_pem) {
            Ok(issued) => self.put(issued).await,
            Err(error) => self.complain(format!("the new certificate is not taken: {}", Chain(&error))),
        }
    }

    /// Puts a certificate in its place, if it is this host's and good.
    async fn put(&mut self, issued: Issued) {
        let Some(own) = &self.own else {
            return;
        };
        if issued.identity != own.identity {
            return self.complain(format!(
                "the new certificate is not taken: it names {}, and this host is {}",
                issued.identity, own.identity
            ));
        }
        let (files, putting) = (self.files.clone(), issued.clone());
        let put = self
            .blocking
            .run("keeping the new certificate", DEADLINE, move || {
                files::put(&files, &putting)
            });
        match put.await {
            Ok(Ok(())) => {
                tracing::info!(until = %issued.not_after, "this host's certificate is renewed; the session goes on");
                self.look().await;
                if let Some(trust) = self.waiting_cas.take() {
                    self.take(trust).await;
                }
            }
            Ok(Err(error)) if error.begins_at().is_some() => {
                if let Some(asking) = &mut self.asking {
                    asking.early = Some(issued);
                }
            }
            Ok(Err(error)) => self.complain(Chain(&error).to_string()),
            Err(fault) => self.complain(format!("the new certificate cannot be kept: {fault}")),
        }
    }

    /// Trusts what the coordinator trusts.
    async fn take(&mut self, trust: Trust) {
        let (files, theirs, told) = (self.files.clone(), self.theirs.clone(), trust.clone());
        let taken = self
            .blocking
            .run("keeping the CA certificates", DEADLINE, move || {
                trust::take(&told, &files, &theirs)
            });
        match taken.await {
            Ok(Ok(Taken::Same)) => self.waiting_cas = None,
            Ok(Ok(Taken::Changed { roots })) => {
                self.waiting_cas = None;
                tracing::info!(roots, "the CA certificates that are trusted have changed");
            }
            Ok(Err(error)) => {
                self.waiting_cas = error.wants_renewal().then_some(trust);
                match error.comes_again() || error.wants_renewal() {
                    // A rotation ends so: this connection, or our certificate, is of the CA that goes.
                    true => tracing::warn!("not yet: {}", Chain(&error)),
                    false => tracing::error!("{}", Chain(&error)),
                }
            }
            Err(fault) => tracing::error!(%fault, "the CA certificates cannot be kept"),
        }
    }

    /// Nothing is wished for any more.
    fn settle(&mut self) {
        self.asking = None;
        self.told = None;
        self.complaints.clear();
        self.end.wish.send_if_modified(|wish| wish.take().is_some());
    }

    /// Each trouble once, until it is over.
    fn complain(&mut self, line: String) {
        if self.complaints.len() >= COMPLAINTS_BOUND {
            self.complaints.clear();
        }
        match self.complaints.insert(line.clone()) {
            true => tracing::warn!("{line}"),
            false => tracing::debug!("{line}"),
        }
    }
}
