//! `hostler-agent enrol`: a token becomes this host's certificate, its configuration names the coordinator, and the service starts.
//!
//! What is wrong with the token, the configuration or the host is said before anything is sent. The invariant: the key never leaves this
//! host and is durable before anybody hears of it, so that a lost answer, or a death at any moment, is cured by the
//! same command; a command that was repeated after its success does nothing; and no text here holds the token.

mod answer;
mod call;
mod configuration;
mod error;
pub mod failpoint;
mod past;
mod patience;
mod place;
mod service;
mod token;
mod told;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::DEFAULT_ENROL_PORT;
use hostler_common::units::UnixMillis;
use hostler_pki::address::AddressError;
use hostler_pki::{CoordinatorAddress, EnrolToken, KeyRequest};
use tokio_util::sync::CancellationToken;

use self::answer::Answer;
pub use self::call::CallError;
pub use self::configuration::ConfigurationError;
use self::configuration::{Change, Configuration};
pub use self::error::EnrolError;
use self::failpoint::Point;
use self::past::{Ended, Past, Standing};
use self::patience::Question;
pub use self::service::ServiceError;
pub use self::token::{TokenFrom, TokenReadError, read as read_token};
use self::told::Told;
use super::words::left;

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
    /// For how long a coordinator that is away or busy is tried again.
    pub wait: Duration,
    /// Ends it early.
    pub stop: CancellationToken,
}

/// What becomes of the service at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// It is started, and with the machine from now on, where systemd runs.
    Start,
    /// A person does.
    Leave,
}

impl Enrolment {
    /// Enrols this host and tells each step to `out`, a line for each, and what is waited for to `waits`. Blocks on small files; the
    /// network is awaited.
    ///
    /// # Errors
    /// Why the host is not enrolled, or its agent does not run.
    pub async fn run(&self, out: &mut impl Write, waits: &mut impl Write) -> Result<(), EnrolError> {
        let host = self.token.host();
        writeln!(out, "token          {} is for {host}", self.token.id())?;
        let configuration = Configuration::read(&self.config)?;
        let directory = directory_of(&configuration.tls.certificate);
        let address = self.address(&configuration);
        if address.is_none() && !directory.exists() {
            return Err(EnrolError::NoCoordinator);
        }
        place::make_directory(directory)?;
        let alone = place::take(directory)?;
        let past = Past::of(&configuration.tls);
        let (told, ended) = match past.standing(&self.token)? {
            Standing::Open(before) => {
                if let Some(before) = before {
                    writeln!(out, "before         {before}")?;
                }
                let address = address.ok_or(EnrolError::NoCoordinator)?;
                (self.trade(&address, &past, out, waits).await?, Ended::Orderly)
            }
            Standing::Done { own, told, ended } => {
                let (until, left) = (own.not_after, left(UnixMillis::now(), own.not_after));
                writeln!(
                    out,
                    "certificate    {} is already enrolled with this token, until {until} ({left}); a new token makes a new certificate",
                    own.identity
                )?;
                (told, ended)
            }
        };
        let named = configuration.name(&told, out)?;
        Point::Configuration.pass();
        let change = match ended {
            Ended::Orderly => named,
            // The run that died may have written it, and the agent not have read it.
            Ended::Early => Change::Written,
        };
        let served = service::bring_up(self.service, &self.config, change, out);
        Point::Service.pass();
        // Late: until here the same command goes on with the same key, for which the token is still good.
        past.forget_key_of(&self.token);
        Point::KeyGone.pass();
        drop(alone);
        Ok(served?)
    }

    /// Gets the certificate and puts it in its place.
    async fn trade(
        &self,
        address: &CoordinatorAddress,
        past: &Past<'_>,
        out: &mut impl Write,
        waits: &mut impl Write,
    ) -> Result<Told, EnrolError> {
        let goes_on = past.is_waited_for();
        let request = KeyRequest::pending(&past.pending)?;
        let begun = if goes_on { "goes on with the one" } else { "made" };
        writeln!(out, "key            {begun} in {}", past.pending.display())?;
        Point::Key.pass();
        let question = Question {
            address,
            token: &self.token,
            csr_der: request.csr_der(),
            wait: self.wait,
            stop: &self.stop,
        };
        let response = question.ask(waits).await.map_err(|unanswered| {
            if !goes_on && !unanswered.may_have_counted {
                // Nobody has heard of it.
                past.forget_key();
            }
            unanswered.error
        })?;
        writeln!(
            out,
            "coordinator    {address} proved itself by the CA of the token"
        )?;
        Point::Answer.pass();
        let told = Told::by(&response, address);
        Answer::check(&self.token, &request, &response)?.put(past, told.clone(), out)?;
        Ok(told)
    }

    fn address(&self, configuration: &Configuration) -> Option<CoordinatorAddress> {
        match (&self.coordinator, &configuration.coordinator) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(configured)) => with_port(configured.host(), DEFAULT_ENROL_PORT).ok(),
            (None, None) => None,
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
