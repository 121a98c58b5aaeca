//! `hostler-pki issue`: one certificate and its key, for a coordinator, an agent or a client.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hostler_common::id::HostName;
use hostler_pki::ca::{Authority, IssueOptions};
use hostler_pki::issued::{Existing, WriteError};
use hostler_pki::{Identity, Role, Subject};

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
    /// Replace files that are there
    #[arg(long)]
    force: bool,
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
        WriteError::Exists { .. } => anyhow::anyhow!("{error}, or replace it with --force"),
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
