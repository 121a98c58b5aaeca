//! `hostler-pki verify`: whether peers would accept certificates. It asks the same code as they do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use hostler_common::units::UnixMillis;
use hostler_pki::certificate::CertificateFacts;
use hostler_pki::verify::{self, Usage};
use hostler_pki::{TrustDomain, files};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Outcome, output};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The CA that must have signed them
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Certificates, PEM; each with its intermediates after it, if it has any
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What the certificates must come from.
struct Ca {
    roots: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
    trust_domains: Vec<TrustDomain>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let certificates = files::read_certificates(&arguments.ca)?;
    let facts = certificates
        .iter()
        .map(CertificateFacts::read)
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(leaf) = facts.iter().find(|facts| !facts.is_ca) {
        anyhow::bail!(
            "{} is no CA: {} may not sign others; name the ca.crt",
            arguments.ca.display(),
            leaf.subject
        );
    }
    let ca = Ca {
        roots: files::read_roots(&arguments.ca)?,
        trust_domains: facts.into_iter().filter_map(|facts| facts.trust_domain).collect(),
        certificates,
    };
    let mut outcome = Outcome::Good;
    for path in &arguments.files {
        match check(path, &ca) {
            Ok(sentence) => output::line(&format!("{}: good: {sentence}", path.display())),
            Err(error) => {
                output::line(&format!("{}: bad: {error:#}", path.display()));
                outcome = Outcome::Bad;
            }
        }
    }
    Ok(outcome)
}

fn check(path: &Path, ca: &Ca) -> anyhow::Result<String> {
    let chain = files::read_certificates(path)?;
    let leaf = &chain[0];
    let facts = CertificateFacts::read(leaf)?;
    let now = UnixMillis::now();
    // So that `verify --ca ca.crt *.crt` reads well.
    if ca.certificates.contains(leaf) {
        anyhow::ensure!(
            facts.not_after >= now,
            "the CA itself expired at {}",
            facts.not_after
        );
        let soon = if facts.expires_soon(now) {
            "; time for hostler-pki rotate-ca"
        } else {
            ""
        };
        return Ok(format!("the CA itself, until {}{soon}", facts.not_after));
    }
    let identity = verify::check_own(&ca.roots, leaf, &chain[1..], UnixTime::now())?;
    if let (Some(expected), false) = (
        ca.trust_domains.first(),
        ca.trust_domains.contains(&identity.trust_domain),
    ) {
        return Err(verify::VerifyError::OtherTrustDomain {
            found: Box::new(identity),
            expected: expected.clone(),
        }
        .into());
    }
    Ok(format!(
        "{identity}, {}, until {} ({} days left{})",
        Usage::of(&identity.subject),
        facts.not_after,
        facts.days_left(now),
        if facts.expires_soon(now) {
            "; time for a new one"
        } else {
            ""
        },
    ))
}
