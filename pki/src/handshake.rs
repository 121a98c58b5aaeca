//! Shaking hands as a server, and in words why it failed: what is wrong with the peer's certificate or its TLS, and whom
//! the certificate names.
//!
//! It refuses nobody itself (server.rs does). The invariant: a name that our CA has not signed is told as the peer's own
//! word, since anybody can write a certificate.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;

use hostler_common::error::Chain;
use rustls::server::Acceptor;
use rustls::{PeerIncompatible, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity::Identity;
use crate::refusal::{tls_error, without_link};
use crate::verify::{Usage, VerifyError};

tokio::task_local! {
    /// Of the handshake that this task is in. rustls has an alert for each refusal and, unlike for some of its errors, no
    /// place for our words.
    static SEEN: RefCell<Seen>;
}

/// What a verifier knows of a certificate that it refuses.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whom it names, by its own word.
    pub(crate) says: Option<Identity>,
    /// Why it is refused, when rustls has no place for it.
    pub(crate) why: Option<VerifyError>,
}

/// Leaves what is seen for [`accept`]. Outside of it nobody waits for it; the alert says the rest.
pub(crate) fn saw(seen: Seen) {
    let _ = SEEN.try_with(|before| before.replace(seen));
}

/// A handshake that failed. Reads on after "the TLS handshake failed".
#[derive(Debug)]
pub struct HandshakeError {
    error: io::Error,
    seen: Seen,
}

impl HandshakeError {
    /// Whom the refused certificate names, when our CA has signed it. That the peer has its key is not known.
    pub fn identity(&self) -> Option<&Identity> {
        match self.why()? {
            VerifyError::Revoked { found, .. }
            | VerifyError::WrongSubject { found, .. }
            | VerifyError::OtherTrustDomain { found, .. } => Some(found),
            _ => None,
        }
    }

    /// Whether the peer was refused, and did not just go away.
    pub fn is_refusal(&self) -> bool {
        tls_error(&self.error).is_some()
    }

    fn why(&self) -> Option<&VerifyError> {
        let of_rustls = || VerifyError::in_rustls(tls_error(&self.error)?);
        self.seen.why.as_ref().or_else(of_rustls)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seen.why {
            Some(why) => f.write_str(&not_accepted(why))?,
            None => f.write_str(&explain_failed_handshake(&self.error))?,
        }
        match &self.seen.says {
            Some(says) => write!(f, "; by its own word it is that of {says}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for HandshakeError {}

/// What a handshake without [`accept`] returned: it asked for no certificate, so there is no more to know.
impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            seen: Seen::default(),
        }
    }
}

/// Shakes hands as [`tokio_rustls::TlsAcceptor`] does, calls `greeted` when the peer has said hello, and knows more when it fails.
///
/// # Errors
/// Why it failed.
pub async fn accept<IO>(
    config: Arc<ServerConfig>,
    io: IO,
    greeted: impl FnOnce(),
) -> Result<TlsStream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let shaking = async {
        let shaken = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
            greeted();
            hello.into_stream(config).await
        };
        shaken.await.map_err(|error| HandshakeError {
            error,
            seen: SEEN.try_with(RefCell::take).unwrap_or_default(),
        })
    };
    SEEN.scope(RefCell::default(), shaking).await
}

/// Why a handshake failed, for the log. `error` is what `tokio_rustls::TlsAcceptor` returned.
pub fn explain_failed_handshake(error: &io::Error) -> String {
    match tls_error(error) {
        Some(rustls::Error::NoCertificatesPresented) => "the peer showed no certificate".to_owned(),
        Some(rustls::Error::AlertReceived(alert)) => format!("the peer did not accept us: alert {alert:?}"),
        Some(invalid @ rustls::Error::InvalidCertificate(_)) => {
            not_accepted(&VerifyError::from_rustls(invalid.clone(), Usage::Client))
        }
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired | PeerIncompatible::Tls12NotOfferedOrEnabled,
        )) => "the peer does not speak TLS 1.3, and nothing older is spoken here".to_owned(),
        Some(other) => format!("the peer does not speak TLS as we do: {other}"),
        None => format!("the peer went away: {}", without_link(&error.to_string())),
    }
}

fn not_accepted(why: &VerifyError) -> String {
    format!("the peer's certificate is not accepted: {}", Chain(why))
}
