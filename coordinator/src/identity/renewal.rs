//! A new certificate for an agent over its session, before the one that opened the session ends.
//!
//! It starts nothing: the agent asks. The invariant: the certificate names the host of the session and no other, is of no
//! use when the host was revoked meanwhile, and lets the connection last as long as itself.

use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::HostName;
use hostler_common::rpc::hostler::agent::v1::{Renew, RenewAnswer};
use hostler_pki::Subject;

use super::Identities;
use super::connections::Life;
use super::guessing::{Pace, TooOften};

/// Certificates of one host. A healthy one asks once in two thirds of a life.
pub(super) const PER_HOST: Pace = Pace {
    burst: 6,
    every: Duration::from_secs(1),
};

/// Hosts that are remembered. More are, one by one, taken for new.
pub(super) const HOSTS_AT_MOST: usize = 16_384;

/// Answers an agent on a connection with `life`.
pub async fn renew(identities: &Identities, host: &HostName, life: &Life, renew: Renew) -> RenewAnswer {
    let request_id = renew.request_id;
    let signed = sign(identities, host, life, renew).await;
    let (certificate_pem, reason) = match signed {
        Ok(certificate_pem) => (certificate_pem, String::new()),
        Err(reason) => {
            tracing::warn!(%host, reason, "no new certificate");
            (String::new(), reason)
        }
    };
    RenewAnswer {
        request_id,
        certificate_pem,
        reason,
    }
}

async fn sign(identities: &Identities, host: &HostName, life: &Life, renew: Renew) -> Result<String, String> {
    if let Err(TooOften { wait }) = identities.renewals.take(host) {
        return Err(format!(
            "host {host} asked for too many certificates; ask again in {} s",
            wait.as_secs() + 1
        ));
    }
    let subject = Subject::Agent { host: host.clone() };
    let signed = identities
        .sign(renew.csr_der, subject.clone())
        .await
        .map_err(|error| Chain(&error).to_string())?;
    if let Some(at) = identities.revocations.revoked(&subject, life.not_before()) {
        return Err(format!("the certificate of this connection was revoked at {at}"));
    }
    life.extend(signed.not_before, signed.not_after, signed.root);
    tracing::info!(%host, valid_until = %signed.not_after, "certificate renewed");
    Ok(signed.certificate_pem)
}
