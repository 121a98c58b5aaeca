//! `hostler-pki show`: what certificates say, for people and, with `--output json`, for programs. It does not
//! say whether that is true; `verify` does.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hostler_common::error::Chain;
use hostler_common::units::UnixMillis;
use hostler_pki::certificate::CertificateFacts;
use hostler_pki::files;
use serde::Serialize;

use super::{Outcome, output};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Certificates, PEM
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// One certificate as JSON. Times are RFC 3339 in UTC.
#[derive(Serialize)]
struct Shown {
    file: String,
    identity: Option<String>,
    identity_problem: Option<String>,
    ca: bool,
    trust_domain: Option<String>,
    subject: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
    days_left: i64,
    /// Whether it is time for a new one.
    expires_soon: bool,
    key_type: String,
    usages: Vec<String>,
    names: Vec<String>,
    fingerprint_sha256: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let now = UnixMillis::now();
    let mut outcome = Outcome::Good;
    let mut shown = Vec::new();
    for path in &arguments.files {
        match read(path, now) {
            Ok(certificates) => shown.extend(certificates),
            Err(error) => {
                // The other files are shown all the same.
                output::error(&format!("hostler-pki: {error:#}"));
                outcome = Outcome::Bad;
            }
        }
    }
    match arguments.output {
        Format::Json => output::line(&serde_json::to_string_pretty(&shown)?),
        Format::Text => shown.iter().for_each(|one| output::line(&text(one))),
    }
    Ok(outcome)
}

fn read(path: &Path, now: UnixMillis) -> anyhow::Result<Vec<Shown>> {
    let mut shown = Vec::new();
    for certificate in files::read_certificates(path)? {
        let facts = CertificateFacts::read(&certificate)
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), Chain(&error)))?;
        shown.push(Shown {
            file: path.display().to_string(),
            identity: facts.identity.as_ref().ok().map(ToString::to_string),
            // A CA names a trust domain and nobody in it.
            identity_problem: facts
                .identity
                .as_ref()
                .err()
                .filter(|_| !facts.is_ca)
                .map(|error| Chain(error).to_string()),
            days_left: facts.days_left(now),
            expires_soon: facts.expires_soon(now),
            ca: facts.is_ca,
            trust_domain: facts.trust_domain.map(String::from),
            subject: facts.subject,
            issuer: facts.issuer,
            serial: facts.serial,
            not_before: facts.not_before.to_string(),
            not_after: facts.not_after.to_string(),
            key_type: facts.key_type,
            usages: facts.usages,
            names: facts.names,
            fingerprint_sha256: facts.fingerprint,
        });
    }
    Ok(shown)
}

fn text(one: &Shown) -> String {
    let identity = match (&one.identity, &one.identity_problem, &one.trust_domain) {
        (Some(identity), ..) => identity.clone(),
        (None, _, Some(domain)) => format!("the CA of {domain}"),
        (None, Some(problem), None) => format!("none: {problem}"),
        (None, None, None) => "none".to_owned(),
    };
    let left = match one.days_left {
        ..=-1 => "expired; get a new one".to_owned(),
        0 => "less than a day left".to_owned(),
        1 => "1 day left".to_owned(),
        days => format!("{days} days left"),
    };
    let soon = match (one.expires_soon && one.days_left >= 0, one.ca) {
        (false, _) => "",
        (true, false) => "; time for a new one",
        (true, true) => "; time for hostler-pki rotate-ca",
    };
    let usages = if one.usages.is_empty() && one.ca {
        "signing certificates".to_owned()
    } else {
        one.usages.join(", ")
    };
    let rows = [
        ("identity", identity),
        ("subject", one.subject.clone()),
        ("issuer", one.issuer.clone()),
        ("serial", one.serial.clone()),
        (
            "valid",
            format!("{} to {} ({left}{soon})", one.not_before, one.not_after),
        ),
        ("key", one.key_type.clone()),
        ("for", usages),
        ("names", one.names.join(", ")),
        ("sha256", one.fingerprint_sha256.clone()),
    ];
    let rows: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("  {name:<9} {value}"))
        .collect();
    format!("{}\n{}", one.file, rows.join("\n"))
}
