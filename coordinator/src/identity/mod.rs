//! Who belongs to the fleet, and for how long: tokens, certificates for agents, revocations, and the coordinator's own
//! certificate.
//!
//! It never decides what somebody may do (`api/authz` does). The invariants: what is revoked is refused and cut off before
//! whoever revoked it is answered; a private key of an agent is never seen here; a token serves one key.

mod attempt;
pub mod connections;
pub mod enrol_port;
pub mod enrolment;
pub mod guessing;
pub mod keeper;
pub mod known;
pub mod own;
pub(crate) mod places;
pub mod recovery;
mod refusal;
pub mod renewal;
pub mod revocation;
pub mod roots;
pub mod tokens;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::id::HostName;
use hostler_common::rpc::hostler::site::v1::TrustedCa;
use hostler_common::units::UnixMillis;
use hostler_pki::ca::Signed;
use hostler_pki::{CoordinatorAddress, Identity, Subject};
use tokio::task::JoinSet;

use self::connections::Connections;
use self::guessing::Buckets;
use self::keeper::{Keeper, KeeperError, SignError};
use self::known::{CertificateRecord, Known};
use self::own::{Own, OwnState};
use self::revocation::RevocationList;
use self::tokens::Tokens;
use crate::config::Config;
use crate::store::Store;
use crate::store::json::RecordError;

/// How far ahead of the clock a certificate begins at most, the rounding to whole seconds included.
const BEGINS_WITHIN: Duration = Duration::from_secs(2);

/// Every part of it. Cheap to clone.
#[derive(Clone)]
pub struct Identities(Arc<Parts>);

/// The parts.
pub struct Parts {
    /// Live connections.
    pub connections: Connections,
    /// The newest certificates.
    pub known: Known,
    /// Who is revoked.
    pub revocations: RevocationList,
    /// Tokens.
    pub tokens: Tokens,
    /// How often hosts ask for certificates.
    renewals: Buckets<HostName>,
    certificates: Option<Certificates>,
}

/// The files, and where to enrol.
struct Certificates {
    keeper: Keeper,
    own: Own,
    enrolment: Option<EnrolmentPort>,
}

/// Where hosts enrol.
#[derive(Debug, Clone)]
pub struct EnrolmentPort {
    /// Where it is to listen.
    pub listen: SocketAddr,
    /// Where hosts reach this coordinator.
    pub advertise: Vec<CoordinatorAddress>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").finish_non_exhaustive()
    }
}

impl Deref for Identities {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificates.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The store.
    #[error("cannot load who is known, and who is revoked")]
    Record(#[from] RecordError),
}

impl Identities {
    /// Loads certificates and revocations; what follows the store runs in `tasks`.
    ///
    /// # Errors
    /// When something of it cannot be used: then nothing may be served.
    pub async fn start(config: &Config, store: &Store, tasks: &mut JoinSet<()>) -> Result<Self, StartError> {
        let connections = Connections::default();
        let known = Known::load(store.clone()).await?;
        let revocations =
            RevocationList::load(store.clone(), connections.clone(), known.clone(), tasks).await?;
        let enrolment = config.enrolment.as_ref();
        let (keeper, own) = Keeper::start(&config.tls, enrolment, revocations.asked(), connections.clone())?;
        let certificates = Certificates {
            keeper,
            own,
            enrolment: enrolment.map(|enrolment| EnrolmentPort {
                listen: enrolment.listen,
                advertise: enrolment.advertise.clone(),
            }),
        };
        Ok(Self::of(
            store,
            connections,
            known,
            revocations,
            Some(certificates),
        ))
    }

    /// Without certificates, for a coordinator that is simulated without connections.
    pub fn without_certificates(store: &Store) -> Self {
        let connections = Connections::default();
        let known = Known::empty(store.clone());
        let revocations = RevocationList::empty(store.clone(), connections.clone(), known.clone());
        Self::of(store, connections, known, revocations, None)
    }

    fn of(
        store: &Store,
        connections: Connections,
        known: Known,
        revocations: RevocationList,
        certificates: Option<Certificates>,
    ) -> Self {
        Self(Arc::new(Parts {
            connections,
            known,
            tokens: Tokens::new(store.clone(), revocations.clone()),
            revocations,
            renewals: Buckets::new(renewal::PER_HOST, renewal::HOSTS_AT_MOST),
            certificates,
        }))
    }
}

impl Parts {
    /// The coordinator's own certificate and the CAs, as they are now. None in a simulation.
    pub fn own(&self) -> Option<Arc<OwnState>> {
        Some(self.certificates.as_ref()?.own.now())
    }

    /// What a person should know before a CA is dropped that signs no more, and after it was: a sentence each.
    pub fn left_behind(&self) -> Vec<String> {
        let Some(own) = self.own() else {
            return Vec::new();
        };
        let holders = roots::holders(self);
        let (before, after) = (roots::left_behind(&holders, &own), roots::cut_off(&holders, &own));
        before.into_iter().chain(after).collect()
    }

    /// Every CA that is trusted, with how many have certificates of it.
    pub fn cas(&self) -> Vec<TrustedCa> {
        let holders = roots::holders(self);
        let count = |root| holders.iter().filter(|(_, other)| *other == root).count();
        self.own().map(|own| own.cas(count)).unwrap_or_default()
    }

    /// Follows the coordinator's files.
    pub(crate) fn keeping(&self) -> Option<(Keeper, Own)> {
        let certificates = self.certificates.as_ref()?;
        Some((certificates.keeper.clone(), certificates.own.clone()))
    }

    /// Where hosts enrol. None when they do not.
    pub fn enrolment(&self) -> Option<&EnrolmentPort> {
        self.certificates.as_ref()?.enrolment.as_ref()
    }

    /// When the newest certificate that is known of `host` was revoked. None when it may come back as it is.
    pub fn barred(&self, host: &HostName) -> Option<UnixMillis> {
        let subject = Subject::Agent { host: host.clone() };
        match self.known.newest(&subject) {
            Some(newest) => self.revocations.revoked(&subject, newest.not_before),
            None => self.revocations.last(&subject),
        }
    }

    /// A certificate for the key of a request (PKCS #10, DER), naming `subject`. It is valid when this returns.
    ///
    /// # Errors
    /// When there is none.
    pub async fn sign(&self, csr_der: Vec<u8>, subject: Subject) -> Result<Signed, SignError> {
        let certificates = self.certificates.as_ref().ok_or(SignError::NotConfigured)?;
        let after = self.revocations.last(&subject);
        let identity = Identity {
            trust_domain: certificates.own.now().identity().trust_domain.clone(),
            subject,
        };
        let signed = certificates.keeper.sign(csr_der, identity, after).await?;
        let made = CertificateRecord {
            identity: signed.identity.clone(),
            not_before: signed.not_before,
            not_after: signed.not_after,
            root: signed.root,
        };
        self.known.made(made).await.map_err(SignError::Unnoted)?;
        // One that follows a revocation begins with the next second. A clock that is set back meanwhile holds nobody up.
        let begins_in = UnixMillis::now().until(signed.not_before);
        tokio::time::sleep(begins_in.min(BEGINS_WITHIN)).await;
        Ok(signed)
    }
}
