//! Certificates as a peer presents them.

use hostler_pki::certificate::CertificateFacts;
use hostler_pki::identity::Identity;
use rustls_pki_types::CertificateDer;

use crate::said;

/// # Panics
/// When an identity that was read does not read back, or a sentence is too long.
pub fn run(data: &[u8]) {
    let der = CertificateDer::from(data);
    match Identity::of_certificate(&der) {
        Ok(identity) => assert_eq!(identity.to_string().parse(), Ok(identity)),
        Err(error) => said::bounded(&hostler_common::error::Chain(&error).to_string()),
    }
    if let Err(error) = CertificateFacts::read(&der) {
        said::bounded(&hostler_common::error::Chain(&error).to_string());
    }
}
