//! Every live connection by the certificate that opened it: how long it may last, and how it is cut.
//!
//! It decides nothing about certificates. The invariant: a connection is in the list from before its first request is
//! read until nothing of it is left, so that who was told that it is gone never hears of it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use hostler_common::units::UnixMillis;
use hostler_pki::revocation::covers;
use hostler_pki::{Fingerprint, PeerCertificate, Subject};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Names one connection of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u64);

/// The list. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    live: Arc<Mutex<Live>>,
    /// Counts those that have gone.
    gone: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Live {
    newest: u64,
    entries: BTreeMap<Number, Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    subject: Subject,
    not_before: UnixMillis,
    /// Where the newest certificate begins that its peer was given over it.
    newest: UnixMillis,
    /// The root of that one.
    pub(super) root: Fingerprint,
    knife: Knife,
    from: SocketAddr,
    since: UnixMillis,
    workers: Weak<Inner>,
}

/// A connection that has not ended, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Where it comes from.
    pub from: SocketAddr,
    /// When its handshake was done.
    pub since: UnixMillis,
    /// How many work for it: itself, its calls, its session.
    pub workers: usize,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, since, workers } = self;
        write!(f, "from {from} since {since}, {workers} at work")
    }
}

/// Why a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Somebody revoked its certificate.
    Revoked,
    /// The root of its certificate is trusted no more.
    RootDropped,
}

impl Cut {
    /// For the log; reads on after "the peer".
    pub fn words(self) -> &'static str {
        match self {
            Self::Revoked => "its certificate was revoked",
            Self::RootDropped => "its certificate is of a CA that is trusted no more",
        }
    }
}

/// Cuts one connection, and remembers why.
#[derive(Debug, Clone, Default)]
struct Knife {
    token: CancellationToken,
    why: Arc<OnceLock<Cut>>,
}

impl Knife {
    fn cut(&self, why: Cut) {
        // The first reason stays.
        let _ = self.why.set(why);
        self.token.cancel();
    }
}

/// How long a connection may last. Whoever works for the connection holds one; with the last of them it is gone.
#[derive(Debug, Clone)]
pub struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    number: Number,
    not_before: UnixMillis,
    /// The first moment at which its certificate is over, in milliseconds since the Unix epoch.
    over_at: Arc<AtomicI64>,
    knife: Knife,
    list: Option<Connections>,
}

/// Tells when the certificate of a connection ends, for people.
#[derive(Debug, Clone)]
pub struct LifeEnd(Arc<AtomicI64>);

impl LifeEnd {
    /// Its last moment. None for a stream that no connection carries.
    pub fn not_after(&self) -> Option<UnixMillis> {
        match self.0.load(Ordering::Relaxed) {
            i64::MAX => None,
            over_at => Some(UnixMillis(over_at.saturating_sub(1000))),
        }
    }
}

impl Life {
    /// Of a stream that no connection carries.
    pub fn unbounded() -> Self {
        Self(Arc::new(Inner {
            number: Number(0),
            not_before: UnixMillis(i64::MAX),
            over_at: Arc::new(AtomicI64::new(i64::MAX)),
            knife: Knife::default(),
            list: None,
        }))
    }

    /// The first moment at which the certificate is over.
    pub fn over_at(&self) -> UnixMillis {
        UnixMillis(self.0.over_at.load(Ordering::Relaxed))
    }

    /// Tells when it ends, and keeps nothing of the connection.
    pub fn end(&self) -> LifeEnd {
        LifeEnd(Arc::clone(&self.0.over_at))
    }

    /// The first moment of the certificate that opened it.
    pub fn not_before(&self) -> UnixMillis {
        self.0.not_before
    }

    /// The peer has a newer certificate of `root`, whose first and last moment these are. Never makes it shorter.
    pub fn extend(&self, not_before: UnixMillis, not_after: UnixMillis, root: Fingerprint) {
        let Inner {
            number,
            over_at,
            list,
            ..
        } = &*self.0;
        over_at.fetch_max(first_moment_after(not_after).0, Ordering::Relaxed);
        if let Some(list) = list
            && let Some(entry) = list.lock().entries.get_mut(number)
        {
            entry.newest = entry.newest.max(not_before);
            entry.root = root;
        }
    }

    /// Cancelled when the certificate was revoked, or its root dropped.
    pub fn cut(&self) -> &CancellationToken {
        &self.0.knife.token
    }

    /// Why it was cut. None when it was not.
    pub fn why_cut(&self) -> Option<Cut> {
        self.0.knife.why.get().copied()
    }
}

/// The last second is valid itself (RFC 5280, 4.1.2.5), so that a handshake in it is not for nothing.
fn first_moment_after(not_after: UnixMillis) -> UnixMillis {
    not_after.plus(Duration::from_secs(1))
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(list) = &self.list {
            list.lock().entries.remove(&self.number);
            list.gone.send_modify(|count| *count += 1);
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            live: Arc::default(),
            gone: watch::channel(0).0,
        }
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection from `from` whose handshake is done.
    pub fn enter(&self, certificate: &PeerCertificate, from: SocketAddr) -> Life {
        let mut live = self.lock();
        live.newest += 1;
        let number = Number(live.newest);
        let life = Arc::new(Inner {
            number,
            not_before: certificate.not_before,
            over_at: Arc::new(AtomicI64::new(first_moment_after(certificate.not_after).0)),
            knife: Knife::default(),
            list: Some(self.clone()),
        });
        live.entries.insert(
            number,
            Entry {
                subject: certificate.identity.subject.clone(),
                not_before: certificate.not_before,
                newest: certificate.not_before,
                root: certificate.root,
                knife: life.knife.clone(),
                from,
                since: UnixMillis::now(),
                workers: Arc::downgrade(&life),
            },
        );
        Life(life)
    }

    /// Cuts every connection of `subject` that a revocation at `at` covers, and names them.
    pub fn cut(&self, subject: &Subject, at: UnixMillis) -> Vec<Number> {
        let live = self.lock();
        let covered = live
            .entries
            .iter()
            .filter(|(_, entry)| entry.subject == *subject && covers(at, entry.not_before));
        covered
            .map(|(number, entry)| {
                entry.knife.cut(Cut::Revoked);
                *number
            })
            .collect()
    }

    /// Cuts every connection that is `unwanted`; whose they were, and on which root they hung.
    pub(super) fn cut_where(
        &self,
        why: Cut,
        unwanted: impl Fn(&Entry) -> bool,
    ) -> BTreeSet<(Subject, Fingerprint)> {
        let live = self.lock();
        let cut = live.entries.values().filter(|entry| unwanted(entry));
        cut.map(|entry| {
            entry.knife.cut(why);
            (entry.subject.clone(), entry.root)
        })
        .collect()
    }

    /// Who is connected, each with the root of the newest certificate that is known of a connection.
    pub fn roots(&self) -> BTreeSet<(Subject, Fingerprint)> {
        let live = self.lock();
        let each = live.entries.values();
        each.map(|entry| (entry.subject.clone(), entry.root)).collect()
    }

    /// Where the newest certificate of `subject` begins, of those that are connected.
    pub fn newest(&self, subject: &Subject) -> Option<UnixMillis> {
        let live = self.lock();
        let own = live.entries.values().filter(|entry| entry.subject == *subject);
        own.map(|entry| entry.newest).max()
    }

    /// Those of `subject` that a revocation at `at` covers.
    pub fn covered(&self, subject: &Subject, at: UnixMillis) -> Vec<Number> {
        let live = self.lock();
        let covered = live
            .entries
            .iter()
            .filter(|(_, entry)| entry.subject == *subject && covers(at, entry.not_before));
        covered.map(|(number, _)| *number).collect()
    }

    /// Those of these that have not ended.
    pub fn left(&self, numbers: &[Number]) -> Vec<Left> {
        let live = self.lock();
        let entries = numbers.iter().filter_map(|number| live.entries.get(number));
        entries
            .map(|entry| Left {
                from: entry.from,
                since: entry.since,
                workers: entry.workers.strong_count(),
            })
            .collect()
    }

    /// Returns once nothing of these is left. Cancel-safe.
    pub async fn gone(&self, numbers: &[Number]) {
        let mut gone = self.gone.subscribe();
        loop {
            gone.mark_unchanged();
            if !numbers
                .iter()
                .any(|number| self.lock().entries.contains_key(number))
            {
                return;
            }
            // The sender is a part of `self`.
            if gone.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7);

    const ROOT: Fingerprint = Fingerprint::from_bytes([1; 32]);

    fn certificate(path: &str, not_before: i64) -> PeerCertificate {
        PeerCertificate {
            identity: format!("spiffe://fleet.test/{path}").parse().unwrap(),
            not_before: UnixMillis(not_before),
            not_after: UnixMillis(not_before + 10_000),
            fingerprint: Fingerprint::from_bytes([0; 32]),
            root: ROOT,
        }
    }

    #[tokio::test]
    async fn a_revocation_cuts_what_it_covers_and_waits_for_the_last_who_works_for_it() {
        let connections = Connections::default();
        let old = connections.enter(&certificate("agent/a", 1000), HERE);
        let new = connections.enter(&certificate("agent/a", 3000), HERE);
        let other = connections.enter(&certificate("agent/b", 1000), HERE);
        let subject = certificate("agent/a", 0).identity.subject;
        let cut = connections.cut(&subject, UnixMillis(2000));
        assert_eq!(cut.len(), 1);
        let cancelled = [&old, &new, &other].map(|life| life.cut().is_cancelled());
        assert_eq!(cancelled, [true, false, false]);
        let worker = old.clone();
        assert_eq!(connections.left(&cut)[0].workers, 2);
        drop(old);
        let left = connections.left(&cut);
        assert_eq!((left.len(), left[0].from, left[0].workers), (1, HERE, 1));
        let waiting = connections.clone();
        let mut gone = tokio::spawn(async move { waiting.gone(&cut).await });
        let early = tokio::time::timeout(Duration::from_millis(20), &mut gone).await;
        assert!(early.is_err(), "somebody works for it yet");
        drop(worker);
        gone.await.unwrap();
        assert!(connections.covered(&subject, UnixMillis(2000)).is_empty());
    }

    #[test]
    fn a_life_grows_with_a_newer_certificate_and_never_shrinks() {
        let life = Connections::default().enter(&certificate("agent/a", 0), HERE);
        assert_eq!(life.over_at(), UnixMillis(11_000));
        life.extend(UnixMillis(0), UnixMillis(20_000), ROOT);
        life.extend(UnixMillis(0), UnixMillis(15_000), ROOT);
        assert_eq!(life.over_at(), UnixMillis(21_000));
    }

    #[test]
    fn a_root_that_is_dropped_takes_the_connections_along_whose_newest_certificate_is_of_it() {
        let connections = Connections::default();
        let [old, renewed] =
            ["agent/a", "agent/b"].map(|path| connections.enter(&certificate(path, 0), HERE));
        let next = Fingerprint::from_bytes([2; 32]);
        renewed.extend(UnixMillis(1), UnixMillis(20_000), next);
        let subject = |path| certificate(path, 0).identity.subject;
        let both = BTreeSet::from([(subject("agent/a"), ROOT), (subject("agent/b"), next)]);
        assert_eq!(connections.roots(), both);
        let cut = connections.cut_where(Cut::RootDropped, |entry| entry.root == ROOT);
        assert_eq!(cut, BTreeSet::from([(subject("agent/a"), ROOT)]));
        assert!(old.cut().is_cancelled() && !renewed.cut().is_cancelled());
        assert_eq!((old.why_cut(), renewed.why_cut()), (Some(Cut::RootDropped), None));
    }
}
