//! A refusal, in words: a server's, of which TLS tells a refused client one number, and our own of a server. This says
//! what it means here and what to try.
//!
//! It finds such a number in an error and translates it; it never decides who is refused. The invariant: it agrees
//! with the alerts that server.rs causes, which tests/handshake.rs checks end to end.

use std::error::Error as StdError;
use std::io;

use rustls::AlertDescription;

use crate::verify::VerifyError;

/// What the alert says about us. Reads on after "the coordinator refused our certificate"; `None` when the alert
/// is not about a certificate.
pub fn about_certificate(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnknownCA => {
            "it is not signed by the coordinator's CA, or by one that was dropped since; a client uses a new certificate \
             from that CA, and an agent's host is enrolled again with a token from hostler tokens create"
        }
        AlertDescription::CertificateExpired => {
            "it has expired or is not valid yet; look at it with hostler-pki show, and compare the clocks"
        }
        AlertDescription::CertificateRevoked => {
            "it has been revoked; if that was not meant to last: an agent's host is enrolled again with a new token from \
             hostler tokens create, and a client is given a new certificate"
        }
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "none was shown; configure a certificate and its key"
        }
        AlertDescription::UnsupportedCertificate => {
            "it was not issued to call with; use one from hostler-pki issue agent or issue client"
        }
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            "it holds no identity that the coordinator accepts: one spiffe:// URI of its own trust domain, of an \
             agent or a client; look at it with hostler-pki show"
        }
        AlertDescription::BadCertificate => "it is malformed; look at it with hostler-pki show",
        AlertDescription::DecryptError => "its signature does not verify; look at it with hostler-pki verify",
        _ => return None,
    })
}

/// What to do about a server's certificate that we do not accept. Reads on after "the certificate is not accepted".
pub(crate) fn about_server(why: &VerifyError) -> &'static str {
    match why {
        VerifyError::Expired { .. } => {
            "whoever runs that coordinator issues another with hostler-pki issue coordinator"
        }
        VerifyError::NotYetValid { .. } => "compare the clocks of both machines",
        VerifyError::Purpose { .. } | VerifyError::WrongSubject { .. } => {
            "who answers there is no coordinator; check the address"
        }
        VerifyError::OtherTrustDomain { .. } => "who answers there is of another site; check the address",
        VerifyError::NotItsKey => "who answers there shows what is not his; check who has that address",
        VerifyError::UnknownIssuer
        | VerifyError::Invalid { .. }
        | VerifyError::Identity { .. }
        | VerifyError::Revoked { .. }
        | VerifyError::OtherRoot { .. }
        | VerifyError::RootWithoutDomain => "check that this is our coordinator, and that ca is its CA",
    }
}

/// The alert in a text that has lost its type, as h2 keeps only the words of an I/O error.
pub(crate) fn alert_in(text: &str) -> Option<AlertDescription> {
    const NAMED: [AlertDescription; 9] = [
        AlertDescription::UnknownCA,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateRequired,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateUnknown,
        AlertDescription::AccessDenied,
        AlertDescription::BadCertificate,
        AlertDescription::DecryptError,
    ];
    let (_, after) = text.split_once("received fatal alert: ")?;
    let word: String = after.chars().take_while(char::is_ascii_alphanumeric).collect();
    NAMED.into_iter().find(|alert| format!("{alert:?}") == word)
}

/// The text without the link into its documentation that rustls puts behind some of its errors: it is for
/// programmers, and no use to who reads our line.
pub(crate) fn without_link(text: &str) -> &str {
    text.split_once(": https://").map_or(text, |(words, _)| words)
}

/// The TLS error that an I/O error carries. `source()` would step over it.
pub(crate) fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(error);
    }
    error
        .downcast_ref::<io::Error>()?
        .get_ref()?
        .downcast_ref::<rustls::Error>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_found_again_in_the_words_that_rustls_prints() {
        for alert in [AlertDescription::UnknownCA, AlertDescription::CertificateRequired] {
            let words = format!("connection error: {}", rustls::Error::AlertReceived(alert));
            assert_eq!(alert_in(&words), Some(alert), "{words}");
            assert!(about_certificate(alert).is_some());
        }
        assert_eq!(alert_in("broken pipe"), None);
    }

    #[test]
    fn a_link_into_documentation_is_left_out() {
        let rustls_says =
            "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/x#y";
        assert_eq!(
            without_link(rustls_says),
            "peer closed connection without sending TLS close_notify"
        );
        assert_eq!(without_link("broken pipe: again"), "broken pipe: again");
    }
}
