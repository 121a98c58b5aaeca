//! `hostler-pki issue`: one certificate and its key, for a coordinator, an agent or a client.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use hostler_common::id::HostName;
use hostler_common::units::UnixMillis;
use hostler_pki::ca::{Authority, IssueOptions};
use hostler_pki::certificate::CertificateFacts;
use hostler_pki::issued::{Existing, WriteError};
use hostler_pki::{Identity, Role, Subject, files};

use super::{Outcome, days, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// For a coordinator: it may serve
    Coordinator {
        /// The coordinator's name
        name: HostName,
        /// A DNS name to put in beside the identity, for tools that check it; again for more
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,
        /// An IP address to put in, likewise
        #[arg(long, value_name = "ADDRESS")]
        ip: Vec<IpAddr>,
        #[command(flatten)]
        common: Common,
    },
    /// For the agent of a host: it may speak for that host
    Agent {
        /// The host's name
        host: HostName,
        #[command(flatten)]
        common: Common,
    },
    /// For a person or a program that calls
    Client {
        /// What it may do: viewer, operator or admin
        role: Role,
        /// Its name, for the records
        name: HostName,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// Where the CA is
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How long the certificate is valid
    #[arg(long, value_name = "DAYS", default_value = "90", value_parser = days)]
    days: Duration,
    /// Where the files go, if not beside the CA
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The files' name without its ending, if not the subject's name
    #[arg(long, value_name = "STEM")]
    out_name: Option<String>,
    /// Replace files that are there, with a new key
    #[arg(long)]
    force: bool,
    /// Let its life begin now and not five minutes ago: for somebody whose certificate was revoked just before
    #[arg(long)]
    from_now: bool,
}

pub(super) fn run(command: &Command) -> anyhow::Result<Outcome> {
    let mut options = IssueOptions::default();
    let (subject, common) = match command {
        Command::Coordinator {
            name,
            dns,
            ip,
            common,
        } => {
            options.dns_names.clone_from(dns);
            options.ip_addresses.clone_from(ip);
            (Subject::Coordinator { name: name.clone() }, common)
        }
        Command::Agent { host, common } => (Subject::Agent { host: host.clone() }, common),
        Command::Client { role, name, common } => {
            let (role, name) = (*role, name.clone());
            (Subject::Client { role, name }, common)
        }
    };
    options.lifetime = common.days;
    if common.from_now {
        // Whole seconds: the first after the last one is the one that runs now.
        options.after = Some(UnixMillis(UnixMillis::now().0.saturating_sub(1000)));
    }
    let authority = Authority::open(&common.dir)?;
    let identity = Identity {
        trust_domain: authority.trust_domain().clone(),
        subject,
    };
    let existing = if common.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let dir = common.out.as_ref().unwrap_or(&common.dir);
    let stem = common
        .out_name
        .as_deref()
        .unwrap_or_else(|| identity.subject.name().as_str());
    let issued = authority.issue(&identity, &options)?;
    let written = issued.write(dir, stem, existing).map_err(|error| match error {
        WriteError::Exists { path } => anyhow::anyhow!("{}", exists(&path)),
        other => other.into(),
    })?;
    output::line(&format!(
        "issued {identity}, valid until {}\n  {}\n  {}",
        issued.not_after,
        written.certificate.display(),
        written.key.display(),
    ));
    Ok(Outcome::Good)
}

/// Why nothing was written, with what is known of the certificate that is in the way.
fn exists(path: &Path) -> String {
    let there = WriteError::Exists {
        path: path.to_owned(),
    };
    let now = UnixMillis::now();
    let facts = files::read_certificates(path)
        .ok()
        .and_then(|chain| CertificateFacts::read(&chain[0]).ok());
    let about = match facts {
        Some(facts) if facts.not_after < now => format!(" (it expired at {})", facts.not_after),
        Some(facts) if facts.expires_soon(now) => format!(" (it ends soon, at {})", facts.not_after),
        _ => String::new(),
    };
    format!("{there}, or replace it with --force{about}")
}
