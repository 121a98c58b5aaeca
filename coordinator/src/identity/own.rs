//! The coordinator's own certificate and the CAs that it trusts, as they are now; who is told when they change, and when
//! a person is.
//!
//! It reads no file (keeper.rs does). The invariant: every handshake and every answer uses the newest good state, and a
//! change drops no connection.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::rpc::hostler::agent::v1::{SessionResponse, Trust, session_response};
use hostler_common::rpc::hostler::site::v1::TrustedCa;
use hostler_common::units::UnixMillis;
use hostler_pki::certificate::CertificateFacts;
use hostler_pki::{Credentials, Fingerprint, Identity, Revocations, TlsConfigError, TrustBundle};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Identities;
use crate::session::registry::{SessionHandle, Sessions};

/// How often the files are looked at: a few system calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often what ends soon is said again.
const WARN_EVERY: Duration = Duration::from_secs(86_400);

const DAY: i64 = 86_400_000;

/// When the end of the own certificate is near, in milliseconds.
const SOON: i64 = 30 * DAY;

/// The certificate and the CAs at one time.
#[derive(Debug, Clone)]
pub struct OwnState {
    identity: Identity,
    not_before: UnixMillis,
    not_after: UnixMillis,
    root: Fingerprint,
    chain_pem: String,
    ca_pem: String,
    trusted: TrustBundle,
    cas: Vec<Ca>,
    signs: Option<Fingerprint>,
    tls: Arc<rustls::ServerConfig>,
    enrol_tls: Arc<rustls::ServerConfig>,
    troubles: Vec<String>,
}

#[derive(Debug, Clone)]
struct Ca {
    fingerprint: Fingerprint,
    facts: CertificateFacts,
}

impl OwnState {
    /// What follows from credentials, whose CAs are `trusted`, and from the root that signs for agents.
    ///
    /// # Errors
    /// When TLS does not take them.
    pub(super) fn of(
        credentials: &Credentials,
        trusted: TrustBundle,
        signs: Option<Fingerprint>,
        revocations: &Revocations,
    ) -> Result<Self, TlsConfigError> {
        let cas = trusted.certificates().iter().filter_map(|certificate| {
            Some(Ca {
                fingerprint: Fingerprint::of(certificate),
                facts: CertificateFacts::read(certificate).ok()?,
            })
        });
        Ok(Self {
            identity: credentials.identity().clone(),
            not_before: credentials.not_before(),
            not_after: credentials.not_after(),
            root: credentials.root(),
            chain_pem: credentials.chain_pem(),
            ca_pem: trusted.pem(),
            cas: cas.collect(),
            trusted,
            signs,
            troubles: Vec::new(),
            tls: hostler_pki::server_config(credentials, revocations.clone())?,
            enrol_tls: hostler_pki::enrol_server_config(credentials)?,
        })
    }

    /// Whom the certificate names.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its last moment.
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// The root that it leads to: what a token pins.
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// Every CA that is trusted, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Its certificate and any intermediate, PEM: what who connects from now on is shown.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// Every CA that is trusted, to tell by which of them a peer came.
    pub fn trusted(&self) -> &TrustBundle {
        &self.trusted
    }

    /// Whether a root is trusted.
    pub fn trusts(&self, root: Fingerprint) -> bool {
        self.cas.iter().any(|ca| ca.fingerprint == root)
    }

    /// The root that new certificates are of: the one that signs here, or else that of the own certificate.
    pub fn signing_root(&self) -> Fingerprint {
        self.signs.unwrap_or(self.root)
    }

    /// The root that agents' certificates are renewed with, as agents are told it. Empty when none are, as while the root that
    /// signs is not trusted here.
    pub fn signing_root_text(&self) -> String {
        let signs = self.signs.filter(|root| self.trusts(*root));
        signs.map(|root| root.to_string()).unwrap_or_default()
    }

    /// What people call a root.
    pub fn ca_name(&self, root: Fingerprint) -> String {
        let known = self.cas.iter().find(|ca| ca.fingerprint == root);
        known.map_or_else(|| root.to_string(), |ca| ca.facts.subject.clone())
    }

    /// The root that signs for agents. None when none does.
    pub(super) fn signs(&self) -> Option<Fingerprint> {
        self.signs
    }

    /// The same when `signs` signs for agents.
    pub(super) fn signed_by(self, signs: Option<Fingerprint>) -> Self {
        Self { signs, ..self }
    }

    /// The same, with files beside it that are of no use; a sentence about each.
    pub(super) fn despite(self, troubles: Vec<String>) -> Self {
        Self { troubles, ..self }
    }

    /// Every CA that is trusted; `held` tells how many have certificates of one.
    pub fn cas(&self, held: impl Fn(Fingerprint) -> usize) -> Vec<TrustedCa> {
        let listed = self.cas.iter().map(|ca| TrustedCa {
            name: ca.facts.subject.clone(),
            fingerprint: ca.fingerprint.to_string(),
            not_after: Some(ca.facts.not_after.into()),
            signs: self.signs == Some(ca.fingerprint),
            certificates: u32::try_from(held(ca.fingerprint)).unwrap_or(u32::MAX),
        });
        listed.collect()
    }

    /// For the port.
    pub fn tls(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.tls)
    }

    /// For the port at which hosts enrol.
    pub fn enrol_tls(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.enrol_tls)
    }

    /// What a person should do about certificates, a sentence each: files that are of no use, then what ends, the
    /// nearest end first.
    pub fn warnings(&self, now: UnixMillis) -> Vec<String> {
        let mut ends = Vec::new();
        let left = self.not_after.0.saturating_sub(now.0);
        let life = self.not_after.0.saturating_sub(self.not_before.0);
        if left < SOON.min(life / 3) {
            ends.push((
                self.not_after,
                format!(
                    "the certificate of this coordinator ends at {} ({}): issue another with hostler-pki issue coordinator {} \
                     and put it in the place of the files; nothing has to be restarted",
                    self.not_after,
                    days(left),
                    self.identity.subject.name()
                ),
            ));
        }
        for ca in self.cas.iter().filter(|ca| ca.facts.expires_soon(now)) {
            let end = ca.facts.not_after;
            let left = end.0.saturating_sub(now.0);
            ends.push((
                end,
                format!(
                    "the CA {} ends at {end} ({}): renew it with hostler-pki rotate-ca, and give every host the time to follow",
                    ca.facts.subject,
                    days(left)
                ),
            ));
        }
        ends.sort();
        let ends = ends.into_iter().map(|(_, sentence)| sentence);
        self.troubles.iter().cloned().chain(ends).collect()
    }
}

fn days(left: i64) -> String {
    match left.div_euclid(DAY) {
        ..0 => "it is over".to_owned(),
        0 => "less than a day is left".to_owned(),
        1 => "1 day is left".to_owned(),
        many => format!("{many} days are left"),
    }
}

/// The newest state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Own(watch::Receiver<Arc<OwnState>>);

impl Own {
    pub(super) fn new(followed: watch::Receiver<Arc<OwnState>>) -> Self {
        Self(followed)
    }

    /// The newest good state.
    pub fn now(&self) -> Arc<OwnState> {
        Arc::clone(&self.0.borrow())
    }
}

/// Has the files looked at each second, and at each SIGHUP; tells every session when the CAs change or another of them signs,
/// and the log then and each day what ends soon and who is left behind. Nothing, in a simulation without certificates.
///
/// # Errors
/// When the kernel refuses the signal handler.
pub fn spawn(identities: Identities, sessions: Sessions, tasks: &mut JoinSet<()>) -> std::io::Result<()> {
    let Some((keeper, mut own)) = identities.keeping() else {
        return Ok(());
    };
    let mut hang_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    tasks.spawn(async move {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let of = |state: &OwnState| (state.ca_pem().to_owned(), state.signing_root_text());
        let mut told = of(&own.now());
        let mut untold: Vec<SessionHandle> = Vec::new();
        let mut warn_at = Instant::now();
        loop {
            // Cancel-safe: a tick, a signal or a change that is not taken comes again.
            tokio::select! {
                _ = tick.tick() => keeper.look(),
                _ = hang_up.recv() => {
                    tracing::info!("SIGHUP: looking at the certificates");
                    keeper.look();
                }
                Ok(()) = own.0.changed() => {}
            }
            let state = own.now();
            if of(&state) != told {
                told = of(&state);
                untold = sessions.all();
                warn_at = Instant::now();
                tracing::info!(
                    sessions = untold.len(),
                    "every agent is told of the CAs that are trusted now, and which of them signs"
                );
            }
            // A session whose network is stuck takes it later, or hears it in its next Welcome.
            untold.retain(|session| !session.end.is_cancelled() && !tell(session, &state));
            if Instant::now() >= warn_at {
                warn_at = Instant::now() + WARN_EVERY;
                let warnings = state.warnings(UnixMillis::now()).into_iter();
                for warning in warnings.chain(identities.left_behind()) {
                    tracing::warn!("{warning}");
                }
            }
        }
    });
    Ok(())
}

/// Whether it need not be told again.
fn tell(session: &SessionHandle, state: &OwnState) -> bool {
    use tokio::sync::mpsc::error::TrySendError;
    let message = Some(session_response::Message::Trust(Trust {
        ca_pem: state.ca_pem().to_owned(),
        coordinator_pem: state.chain_pem().to_owned(),
        signing_root: state.signing_root_text(),
    }));
    !matches!(
        session.outbound.try_send(SessionResponse { message }),
        Err(TrySendError::Full(_))
    )
}
