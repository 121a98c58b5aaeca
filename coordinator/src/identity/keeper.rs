//! The one thread that reads certificates and keys: it follows the coordinator's own files, and signs for agents.
//!
//! The CA's key is read for each signature and wiped after it: a rotation needs no restart, and a memory dump of an idle
//! coordinator holds no key that signs. The invariant: nothing is signed that this coordinator itself would refuse.

mod error;
mod settling;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hostler_common::error::Chain;
use hostler_common::units::UnixMillis;
use hostler_pki::ca::{Authority, BeyondCa, IssueOptions, Signed};
use hostler_pki::{
    Credentials, FilesStamp, Fingerprint, Identity, Reloaded, Revocations, Subject, TlsFiles, TrustBundle,
};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::error::{KeeperError, SignError};
use self::settling::Settling;
use super::connections::Connections;
use super::own::{Own, OwnState};
use super::roots;
use crate::config::EnrolmentConfig;

/// Signatures that wait, each some 9 KiB at most; one takes less than a millisecond. Who finds it full waits.
const JOBS_BOUND: usize = 64;

enum Job {
    /// Look whether the files have changed.
    Look,
    Sign {
        csr_der: Vec<u8>,
        identity: Identity,
        after: Option<UnixMillis>,
        answer: oneshot::Sender<Result<Signed, SignError>>,
    },
}

/// Commands the thread. It ends with the last of these.
#[derive(Debug, Clone)]
pub struct Keeper {
    jobs: mpsc::Sender<Job>,
}

/// What signs, of the configuration.
#[derive(Debug, Clone)]
struct Ca {
    dir: PathBuf,
    life: Duration,
}

struct Thread {
    reloaded: Reloaded,
    ca: Option<Ca>,
    /// Of the CA's files when they were last looked at.
    ca_stamp: Option<FilesStamp>,
    /// Of the own files, when they have lost a root.
    settling: Settling,
    /// What is wrong with the own files, while the newest that can be loaded are older.
    refused: Option<String>,
    revocations: Revocations,
    connections: Connections,
    own: watch::Sender<Arc<OwnState>>,
}

impl Keeper {
    /// Loads the files, checks that the CA can sign if there is to be one, and begins to follow both. Of `connections` those
    /// are cut whose root is dropped.
    ///
    /// # Errors
    /// When something of it cannot be used.
    pub fn start(
        files: &TlsFiles,
        enrolment: Option<&EnrolmentConfig>,
        revocations: Revocations,
        connections: Connections,
    ) -> Result<(Self, Own), KeeperError> {
        let reloaded = Reloaded::load(files.clone())?;
        check_subject(reloaded.current(), files)?;
        let ca = enrolment.map(|enrolment| Ca {
            dir: enrolment.ca_dir.clone(),
            life: enrolment.agent_life,
        });
        // Before the files: a change in between is then seen the next time.
        let ca_stamp = ca.as_ref().map(|ca| Authority::stamp(&ca.dir));
        let signs = ca.as_ref().and_then(|ca| signing_root(&ca.dir));
        let credentials = reloaded.current();
        let state = OwnState::of(credentials, trusted(credentials, files)?, signs, &revocations)?;
        if let Some(ca) = &ca {
            open(ca, &state, files).map_err(KeeperError::Ca)?;
        }
        let (own, followed) = watch::channel(Arc::new(state));
        let (jobs, queue) = mpsc::channel(JOBS_BOUND);
        let thread = Thread {
            reloaded,
            ca,
            ca_stamp,
            settling: Settling::default(),
            refused: None,
            revocations,
            connections,
            own,
        };
        std::thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || thread.run(queue))
            .map_err(KeeperError::Thread)?;
        Ok((Self { jobs }, Own::new(followed)))
    }

    /// Looks at the coordinator's own files soon.
    pub fn look(&self) {
        // A full queue means that it is asked again later.
        let _ = self.jobs.try_send(Job::Look);
    }

    /// A certificate for the key of a request (PKCS #10, DER), naming `identity` and beginning later than `after`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn sign(
        &self,
        csr_der: Vec<u8>,
        identity: Identity,
        after: Option<UnixMillis>,
    ) -> Result<Signed, SignError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Sign {
            csr_der,
            identity,
            after,
            answer,
        };
        self.jobs.send(job).await.map_err(|_| SignError::Closed)?;
        answered.await.map_err(|_| SignError::Closed)?
    }
}

impl Thread {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            match job {
                Job::Look => self.look(),
                Job::Sign {
                    csr_der,
                    identity,
                    after,
                    answer,
                } => {
                    let signed = self.sign(&csr_der, &identity, after);
                    // Who hung up asks again.
                    let _ = answer.send(signed);
                }
            }
        }
    }

    fn sign(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        after: Option<UnixMillis>,
    ) -> Result<Signed, SignError> {
        let ca = self.ca.as_ref().ok_or(SignError::NotConfigured)?;
        let authority = open(ca, &self.own.borrow(), self.reloaded.files())?;
        let options = IssueOptions {
            lifetime: ca.life,
            after,
            beyond_ca: BeyondCa::Shorten,
            ..IssueOptions::default()
        };
        authority
            .sign_request(csr_der, identity, &options)
            .map_err(SignError::Authority)
    }

    fn look(&mut self) {
        let ca_stamp = self.ca.as_ref().map(|ca| Authority::stamp(&ca.dir));
        let is_other_ca = ca_stamp != self.ca_stamp;
        self.ca_stamp = ca_stamp;
        match self.reloaded.poll() {
            Ok(None) if !is_other_ca && !self.settling.is_waiting() => return,
            // They are what they were, good or bad.
            Ok(None) => {}
            Ok(Some(_)) => self.refused = None,
            Err(error) => self.refused = Some(not_taken(&error)),
        }
        let taken = match &self.refused {
            Some(trouble) => Err(trouble.clone()),
            None => self.take().map_err(|error| not_taken(&error)),
        };
        if taken.as_ref().is_ok_and(|state| self.has_to_settle(state)) {
            return;
        }
        self.settling.settle();
        let mut troubles = Vec::new();
        let state = match taken {
            Ok(state) => {
                tracing::info!(
                    identity = %state.identity(), valid_until = %state.not_after(), cas = state.trusted().roots().len(),
                    "the coordinator's certificates were read again"
                );
                state
            }
            Err(trouble) => {
                troubles.push(trouble);
                let before = OwnState::clone(&self.own.borrow());
                let signs = self.signs(&before);
                before.signed_by(signs)
            }
        };
        // Said now, and not first when an agent needs it.
        if let Some(ca) = &self.ca
            && let Err(error) = open(ca, &state, self.reloaded.files())
        {
            troubles.push(Chain(&error).to_string());
        }
        for trouble in &troubles {
            tracing::error!("{trouble}");
        }
        self.publish(state.despite(troubles));
    }

    /// Whether a root that `next` has lost may come back at once, since somebody writes the file.
    fn has_to_settle(&mut self, next: &OwnState) -> bool {
        let loses = |root| !next.trusts(root);
        let has_lost = self.own.borrow().trusted().roots().into_iter().any(loses);
        has_lost
            && self
                .settling
                .has_to_wait(self.reloaded.files().stamp(), Instant::now())
    }

    /// What is refused from now on is refused by handshakes first, so that nobody comes between them and the cut.
    fn publish(&self, state: OwnState) {
        let state = Arc::new(state);
        let before = self.own.send_replace(Arc::clone(&state));
        roots::cut_dropped(&self.connections, &before, &state);
    }

    fn take(&self) -> Result<OwnState, KeeperError> {
        let (credentials, files) = (self.reloaded.current(), self.reloaded.files());
        check_subject(credentials, files)?;
        let (found, before) = (&credentials.identity().trust_domain, self.own.borrow().clone());
        let expected = &before.identity().trust_domain;
        if found != expected {
            return Err(KeeperError::OtherTrustDomain {
                path: files.certificate.clone(),
                found: found.clone(),
                expected: expected.clone(),
            });
        }
        let (signs, trusted) = (self.signs(&before), trusted(credentials, files)?);
        Ok(OwnState::of(credentials, trusted, signs, &self.revocations)?)
    }

    /// The root that signs. A CA that is broken signs nothing, and still no other does.
    fn signs(&self, before: &OwnState) -> Option<Fingerprint> {
        let now = self.ca.as_ref().and_then(|ca| signing_root(&ca.dir));
        now.or(before.signs())
    }
}

fn not_taken(error: &(dyn std::error::Error + 'static)) -> String {
    format!(
        "the new certificates are not taken; those from before stay: {}",
        Chain(error)
    )
}

/// What agents are told to trust: only what they would take.
fn trusted(credentials: &Credentials, files: &TlsFiles) -> Result<TrustBundle, KeeperError> {
    TrustBundle::parse(&credentials.ca_pem()).map_err(|source| KeeperError::Cas {
        path: files.ca.clone(),
        source,
    })
}

fn check_subject(credentials: &Credentials, files: &TlsFiles) -> Result<(), KeeperError> {
    match credentials.identity().subject {
        Subject::Coordinator { .. } => Ok(()),
        _ => Err(KeeperError::NotACoordinator {
            path: files.certificate.clone(),
            identity: Box::new(credentials.identity().clone()),
        }),
    }
}

/// Opens the CA, if its certificates are good here.
fn open(ca: &Ca, own: &OwnState, files: &TlsFiles) -> Result<Authority, SignError> {
    let authority = Authority::open(&ca.dir).map_err(SignError::Ca)?;
    match authority.root() {
        root if own.trusts(root) => Ok(authority),
        root => Err(SignError::NotTrusted {
            dir: ca.dir.clone(),
            root,
            trusted: files.ca.clone(),
        }),
    }
}

/// The root that signs. None while the CA cannot be opened.
fn signing_root(dir: &Path) -> Option<Fingerprint> {
    Some(Authority::open(dir).ok()?.root())
}

#[cfg(test)]
mod tests {
    use hostler_pki::ca::{DEFAULT_CA_LIFETIME, rotation};
    use hostler_pki::issued::Existing;

    use super::*;

    /// A thread that is not one: it looks when it is told.
    fn thread(files: &TlsFiles) -> Thread {
        let reloaded = Reloaded::load(files.clone()).unwrap();
        let revocations = Revocations::none();
        let credentials = reloaded.current();
        let trusted = trusted(credentials, files).unwrap();
        let state = OwnState::of(credentials, trusted, None, &revocations).unwrap();
        Thread {
            reloaded,
            ca: None,
            ca_stamp: None,
            settling: Settling::default(),
            refused: None,
            revocations,
            connections: Connections::default(),
            own: watch::channel(Arc::new(state)).0,
        }
    }

    /// A CA with a coordinator's certificate, in which a rotation has begun.
    fn begun(dir: &Path) -> TlsFiles {
        let domain = "fleet.test".parse().unwrap();
        let authority = Authority::init(dir, domain, DEFAULT_CA_LIFETIME).unwrap();
        let own = "spiffe://fleet.test/coordinator/c1".parse().unwrap();
        let issued = authority.issue(&own, &IssueOptions::default()).unwrap();
        issued.write(dir, "c1", Existing::Keep).unwrap();
        rotation::begin(dir, DEFAULT_CA_LIFETIME).unwrap();
        TlsFiles {
            ca: dir.join("ca.crt"),
            certificate: dir.join("c1.crt"),
            key: dir.join("c1.key"),
        }
    }

    #[test]
    fn own_files_that_are_no_good_stay_a_warning_when_the_ca_changes_and_a_broken_ca_is_no_other_one() {
        let (dir, ca_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = begun(dir.path());
        for name in ["ca.crt", "ca.key", "next.key"] {
            std::fs::copy(dir.path().join(name), ca_dir.path().join(name)).unwrap();
        }
        let mut thread = thread(&files);
        thread.ca = Some(Ca {
            dir: ca_dir.path().to_owned(),
            life: Duration::from_secs(3600),
        });
        thread.look();
        let own = |thread: &Thread| OwnState::clone(&thread.own.borrow());
        let signs = own(&thread).signs();
        assert!(signs.is_some() && own(&thread).warnings(UnixMillis::now()).is_empty());
        std::fs::write(&files.ca, "").unwrap();
        thread.look();
        rotation::switch(ca_dir.path()).unwrap();
        thread.look();
        let (said, switched) = (own(&thread).warnings(UnixMillis::now()), own(&thread).signs());
        assert!(said[0].contains("holds no certificate"), "{said:?}");
        assert_ne!(switched, signs, "another root signs");

        let other = tempfile::tempdir().unwrap();
        begun(other.path());
        std::fs::copy(other.path().join("ca.crt"), ca_dir.path().join("ca.crt")).unwrap();
        thread.look();
        let said = own(&thread).warnings(UnixMillis::now());
        assert!(said[1].starts_with("no host can enrol"), "{said:?}");
        assert_eq!(own(&thread).signs(), switched);
    }

    #[test]
    fn a_ca_crt_that_is_written_in_pieces_drops_no_root_and_one_that_stays_so_does() {
        let dir = tempfile::tempdir().unwrap();
        let files = begun(dir.path());
        let mut thread = thread(&files);
        let roots = |thread: &Thread| thread.own.borrow().trusted().roots().len();
        assert_eq!(roots(&thread), 2);
        let whole = std::fs::read_to_string(&files.ca).unwrap();
        let first = whole
            .split_inclusive("-----END CERTIFICATE-----\n")
            .next()
            .unwrap();
        std::fs::write(&files.ca, first).unwrap();
        thread.look();
        assert_eq!(roots(&thread), 2, "it may be in the middle of being written");
        std::fs::write(&files.ca, &whole).unwrap();
        thread.look();
        assert_eq!(roots(&thread), 2);
        std::fs::write(&files.ca, first).unwrap();
        let began = Instant::now();
        while roots(&thread) == 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "it is never taken");
            thread.look();
            std::thread::yield_now();
        }
        assert_eq!(roots(&thread), 1);
    }
}
