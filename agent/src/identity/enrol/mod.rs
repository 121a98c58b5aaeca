//! `hostler-agent enrol`: a token becomes this host's certificate, its configuration names the coordinator, and the service starts.
//!
//! What is wrong with the token, the configuration or the host is said before anything is sent. The invariant: the key never leaves this
//! host and is durable before anybody hears of it, so that a lost answer, or a death at any moment, is cured by the
//! same command; and no text here holds the token.

mod call;
mod configuration;
mod service;
mod token;

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use hostler_common::DEFAULT_ENROL_PORT;
use hostler_common::id::HostName;
use hostler_common::units::UnixMillis;
use hostler_pki::address::AddressError;
use hostler_pki::issued::WriteError;
use hostler_pki::request::{KeyRequest, KeyRequestError};
use hostler_pki::{CoordinatorAddress, EnrolToken, Identity, Subject, TlsFiles, TrustBundle, TrustError};
use thiserror::Error;

pub use self::call::CallError;
use self::configuration::Configuration;
pub use self::configuration::ConfigurationError;
pub use self::service::ServiceError;
pub use self::token::{TokenFrom, TokenReadError, read as read_token};
use super::files::{self, Own, PutError};
use super::words::left;

/// The key that no certificate has been taken for yet, beside the certificate.
const PENDING: &str = "enrol.key";

/// What a person asked for.
#[derive(Debug)]
pub struct Enrolment {
    /// The token.
    pub token: EnrolToken,
    /// The coordinator's enrolment port; when it is not given, that of the configured coordinator.
    pub coordinator: Option<CoordinatorAddress>,
    /// The agent's configuration, which need not exist.
    pub config: PathBuf,
    /// What to do with the service.
    pub service: Service,
}

/// What becomes of the service at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// It is started, and with the machine from now on, where systemd runs.
    Start,
    /// A person does.
    Leave,
}

/// Why the host is not enrolled. What was done before is kept, and the same command goes on from there.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// Nobody knows where to call.
    #[error(
        "nothing says where the coordinator is; give it as --coordinator HOST:PORT (its enrolment port, {DEFAULT_ENROL_PORT} unless its configuration says otherwise)"
    )]
    NoCoordinator,
    /// The configuration is not one.
    #[error("the agent's configuration stands in the way")]
    Configuration {
        /// How.
        #[from]
        source: ConfigurationError,
    },
    /// The host is somebody else.
    #[error(
        "this host is {found} until {until}, and the token is for {wanted}; make a token for {wanted} on its own host, or move {} away to make this host {wanted}",
        path.display()
    )]
    OtherHost {
        /// Whom the certificate names.
        found: Box<Identity>,
        /// Its last moment.
        until: UnixMillis,
        /// Whom the token names.
        wanted: HostName,
        /// The certificate.
        path: PathBuf,
    },
    /// No place for the identity.
    #[error("cannot make the directory {}; run this as root", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No key, or no certificate for it.
    #[error("cannot get a certificate for a key of this host")]
    Key {
        /// Why.
        #[from]
        source: KeyRequestError,
    },
    /// The coordinator was not reached, or refused.
    #[error("the coordinator gave no certificate")]
    Call {
        /// Why.
        #[from]
        source: CallError,
    },
    /// The answer is for somebody else.
    #[error(
        "the certificate in the answer names {found}, and the token is for {wanted}; nothing was changed"
    )]
    WrongCertificate {
        /// Whom it names.
        found: Box<Identity>,
        /// Whom the token names.
        wanted: HostName,
    },
    /// The CAs in the answer are no use.
    #[error("the CA certificates in the answer are not taken; nothing was changed")]
    Cas {
        /// Why.
        #[source]
        source: TrustError,
    },
    /// The CA that the token pins is not among those in the answer.
    #[error("the CA that the token names is not among those in the answer; nothing was changed")]
    NotPinned,
    /// The CAs cannot be kept.
    #[error("the CA certificates cannot be kept; run the same command again when that is cured")]
    Keep {
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
    /// The certificate cannot be kept or used.
    #[error("the certificate came and is not in its place; run the same command again when that is cured")]
    Put {
        /// Why.
        #[from]
        source: PutError,
    },
    /// The service did not start.
    #[error("this host is enrolled, but its agent does not run")]
    Service {
        /// Why.
        #[from]
        source: ServiceError,
    },
    /// Nobody reads what is told.
    #[error("cannot tell what was done")]
    Tell {
        /// Why.
        #[from]
        source: io::Error,
    },
}

impl Enrolment {
    /// Enrols this host and tells each step to `out`, a line for each. Blocks on small files; the network is awaited.
    ///
    /// # Errors
    /// Why the host is not enrolled, or its agent does not run.
    pub async fn run(&self, out: &mut impl Write) -> Result<(), EnrolError> {
        let host = self.token.host();
        writeln!(out, "token          {} is for {host}", self.token.id())?;
        let configuration = Configuration::read(&self.config)?;
        let address = self.address(&configuration)?;
        let files = &configuration.tls;
        if let Some(before) = before(files, host)? {
            writeln!(out, "before         {before}")?;
        }
        make_directory(directory_of(&files.certificate))?;
        let pending = directory_of(&files.certificate).join(PENDING);
        let begun = if pending.exists() { "goes on with" } else { "made" };
        let request = KeyRequest::pending(&pending)?;
        writeln!(out, "key            {begun} in {}", pending.display())?;

        let answer = call::call(&address, &self.token, request.csr_der()).await?;
        writeln!(
            out,
            "coordinator    {address} proved itself by the CA of the token"
        )?;
        let issued = request.complete(&answer.certificate_pem)?;
        if issued.identity.subject != (Subject::Agent { host: host.clone() }) {
            return Err(EnrolError::WrongCertificate {
                found: Box::new(issued.identity),
                wanted: host.clone(),
            });
        }
        let cas = TrustBundle::parse(&answer.ca_pem).map_err(|source| EnrolError::Cas { source })?;
        if !cas.contains(self.token.ca()) {
            return Err(EnrolError::NotPinned);
        }
        make_directory(directory_of(&files.ca))?;
        cas.write(&files.ca)
            .map_err(|source| EnrolError::Keep { source })?;
        let count = cas.roots().len();
        writeln!(out, "CA             {count} in {}", files.ca.display())?;
        match files::try_out(files, &issued) {
            Err(error) if error.begins_at().is_none() => return Err(error.into()),
            Err(_) => writeln!(
                out,
                "clock          this host's is late: the certificate begins at {}, and the agent waits for that",
                issued.not_before
            )?,
            Ok(()) => {}
        }
        files::write(files, &issued)?;
        writeln!(
            out,
            "certificate    {} until {} ({}) in {}",
            issued.identity,
            issued.not_after,
            left(UnixMillis::now(), issued.not_after),
            files.certificate.display()
        )?;
        let changed = configuration.name(&call::coordinators(&answer.coordinators, &address), out)?;
        service::bring_up(self.service, &self.config, changed, out)?;
        // Last: until here the same command goes on with the same key, for which the token is still good.
        let _ = std::fs::remove_file(&pending);
        Ok(())
    }

    fn address(&self, configuration: &Configuration) -> Result<CoordinatorAddress, EnrolError> {
        match (&self.coordinator, &configuration.coordinator) {
            (Some(given), _) => Ok(given.clone()),
            (None, Some(configured)) => {
                with_port(configured.host(), DEFAULT_ENROL_PORT).map_err(|_| EnrolError::NoCoordinator)
            }
            (None, None) => Err(EnrolError::NoCoordinator),
        }
    }
}

/// The address of an enrolment port as a person writes it: without a port it is the usual one, and not that of agents.
///
/// # Errors
/// When it is no address.
pub fn enrolment_address(text: &str) -> Result<CoordinatorAddress, AddressError> {
    let address: CoordinatorAddress = text.parse()?;
    let rest = text.rsplit("://").next().unwrap_or(text);
    let names_port = match rest.rsplit_once(']') {
        Some((_, after)) => after.starts_with(':'),
        None => rest.contains(':'),
    };
    match names_port {
        true => Ok(address),
        false => with_port(address.host(), DEFAULT_ENROL_PORT),
    }
}

/// `host` on another port.
fn with_port(host: &str, port: u16) -> Result<CoordinatorAddress, AddressError> {
    match host.contains(':') {
        true => format!("[{host}]:{port}").parse(),
        false => format!("{host}:{port}").parse(),
    }
}

/// What certificate this host has, in words; a good one of another host stands in the way.
fn before(files: &TlsFiles, wanted: &HostName) -> Result<Option<String>, EnrolError> {
    let Ok(own) = Own::read(files) else {
        // None, or one that is worth nothing.
        return Ok(None);
    };
    let now = UnixMillis::now();
    if own.is_expired(now) {
        return Ok(Some(format!(
            "the certificate of {} expired at {}",
            own.identity, own.not_after
        )));
    }
    if own.identity.subject.name().as_str() != wanted.as_str() {
        return Err(EnrolError::OtherHost {
            found: Box::new(own.identity),
            until: own.not_after,
            wanted: wanted.clone(),
            path: files.certificate.clone(),
        });
    }
    Ok(Some(format!(
        "{} has a certificate until {}, which is replaced",
        own.identity, own.not_after
    )))
}

/// For keys: nobody else looks in. One that is there keeps its mode.
fn make_directory(path: &Path) -> Result<(), EnrolError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| EnrolError::Directory {
        path: path.to_owned(),
        source,
    })
}

fn directory_of(path: &Path) -> &Path {
    // The paths of a configuration begin at the root.
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_means_the_enrolment_port() {
        for (text, expected) in [
            ("c.example.org", "c.example.org:1313"),
            ("https://c.example.org/", "c.example.org:1313"),
            ("c.example.org:1312", "c.example.org:1312"),
            ("[::1]", "[::1]:1313"),
            ("[::1]:5", "[::1]:5"),
            ("10.0.0.1:7", "10.0.0.1:7"),
        ] {
            let address = enrolment_address(text).map(|address| address.to_string());
            assert_eq!(address.as_deref(), Ok(expected), "{text}");
        }
        assert!(enrolment_address("c:port").is_err());
    }
}
