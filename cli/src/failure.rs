//! Why a command did not do what was asked: the exit code, the sentence and a way out.
//! The codes are documented in `--help` and scripts rely on them.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_pki::{About, ChannelError, CoordinatorAddress, CredentialsError, Role, TlsConfigError};
use thiserror::Error;
use tonic::{Code, Status};

use crate::command::proxy::ListenError;
use crate::output::text::escape;
use crate::settings::SettingsError;

/// Everything that ends a command early.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The settings do not do.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The certificate files do not do.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificates make no TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// No connection.
    #[error(transparent)]
    Connect(Box<ChannelError>),
    /// The coordinator answered a call with an error, or the connection broke.
    #[error("{}", call_sentence(call, address, status))]
    Call {
        call: &'static str,
        needs: Role,
        address: CoordinatorAddress,
        status: Box<Status>,
    },
    /// `--timeout` passed, or its default.
    #[error("no answer from {address} within {}", humantime::format_duration(*after))]
    NoAnswer {
        address: CoordinatorAddress,
        after: Duration,
    },
    /// `--timeout` passed while an operation went on.
    #[error("the operation had not ended within {}; it goes on without this client", humantime::format_duration(*after))]
    NotEnded { after: Duration, watch: Vec<String> },
    /// An operation ended without success.
    #[error("{what} failed: {}", escape(message))]
    Operation {
        what: String,
        message: String,
        show: Vec<String>,
    },
    /// Ctrl-C while an operation was asked for or watched.
    #[error("interrupted; {}", if watch.is_empty() { "nothing was said to be accepted yet" } else { "the operation goes on without this client" })]
    Interrupted { watch: Vec<String> },
    /// The proxy cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Signals or threads were refused by the system.
    #[error("cannot {what}")]
    System {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// Standard output does not take more.
    #[error("cannot write to standard output")]
    Print {
        #[source]
        source: std::io::Error,
    },
}

/// What the coordinator said speaks for itself; about a connection, people need to know which one.
fn call_sentence(call: &str, address: &CoordinatorAddress, status: &Status) -> String {
    match connection_broke(status) || status.message().is_empty() {
        true => format!("{call} at {address}: {}", sentence(status)),
        false => sentence(status),
    }
}

/// The status in words. A broken connection has no useful message of its own, only causes.
fn sentence(status: &Status) -> String {
    if let Some(explained) = hostler_pki::explain(status) {
        return escape(&explained.words);
    }
    let message = match std::error::Error::source(status) {
        Some(source) => format!("{}: {}", status.message(), Chain(source)),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    };
    escape(&message)
}

impl Failure {
    /// The documented exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Listen(ListenError::Refused { .. }) => 2,
            Self::Credentials(_) | Self::Tls(_) | Self::Connect(_) => 3,
            Self::NoAnswer { .. } | Self::NotEnded { .. } => 3,
            Self::Call { status, .. } => call_code(status),
            Self::Operation { .. } | Self::Listen(_) | Self::System { .. } => 1,
            Self::Interrupted { .. } => 130,
            // What a program gets that the kernel ends with SIGPIPE.
            Self::Print { source } if source.kind() == std::io::ErrorKind::BrokenPipe => 141,
            Self::Print { .. } => 1,
        }
    }

    /// What a person can do about it.
    pub(crate) fn way_out(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.way_out().or_else(|| Some("hostler --help".into())),
            Self::Credentials(_) | Self::Tls(_) => Some(
                "hostler-pki show FILE says what a certificate is; hostler-pki issue client makes one".into(),
            ),
            Self::Connect(error) => Some(connect_way_out(error)),
            Self::Call {
                needs,
                address,
                status,
                ..
            } => call_way_out(*needs, address, status),
            Self::NoAnswer { .. } => {
                Some("a longer --timeout, or systemctl status hostler-coordinator there".into())
            }
            Self::NotEnded { watch, .. } => Some(watching(watch)),
            Self::Interrupted { watch } if watch.is_empty() => {
                Some("the same command again: it attaches".into())
            }
            Self::Interrupted { watch } => Some(watching(watch)),
            Self::Operation { show, .. } if show.is_empty() => Some("hostler hypervisors list".into()),
            Self::Operation { show, .. } => Some(
                show.iter()
                    .map(|id| format!("hostler operations show {id}"))
                    .collect::<Vec<_>>()
                    .join("\n     "),
            ),
            Self::Listen(error) => error.way_out(),
            Self::System { .. } | Self::Print { .. } => None,
        }
    }

    /// Prints the sentence and the way out on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        let code = self.code();
        // Nobody reads any more; that is how `hostler … | head` ends.
        if code != 141 {
            let mut text = format!("error: {}\n", Chain(self));
            if let Some(way_out) = self.way_out() {
                text.push_str(&format!("try: {way_out}\n"));
            }
            // When standard error is gone too, the exit code still tells.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        }
        ExitCode::from(code)
    }
}

fn watching(ids: &[String]) -> String {
    if ids.is_empty() {
        return "hostler operations list --unended".into();
    }
    ids.iter()
        .map(|id| format!("hostler operations watch {id}"))
        .collect::<Vec<_>>()
        .join("\n     ")
}

/// Whether the connection broke, rather than the coordinator refused. What a coordinator says has no source.
fn connection_broke(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

/// Whether the same call may succeed later by itself. A refused certificate does not get better.
pub(crate) fn passes_by_itself(status: &Status) -> bool {
    connection_broke(status) && !certificate_refused(status)
}

/// Why a stream broke, for a person. The causes below a connection's end are of no use to one.
pub(crate) fn why_it_broke(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(_) => "the connection to the coordinator broke".into(),
        None => escape(status.message()),
    }
}

fn call_code(status: &Status) -> u8 {
    match status.code() {
        Code::InvalidArgument => 2,
        Code::Unauthenticated | Code::PermissionDenied | Code::DeadlineExceeded => 3,
        _ if connection_broke(status) => 3,
        _ => 1,
    }
}

const SERVICE: &str = "systemctl status hostler-coordinator";
const CERTIFICATE: &str =
    "hostler-pki show FILE says what your certificate is; hostler-pki issue client makes another";

fn connect_way_out(error: &ChannelError) -> String {
    match error {
        ChannelError::CertificateRefused { .. } => CERTIFICATE.into(),
        ChannelError::ServerCertificate { .. } => {
            "hostler-pki show FILE says what is in your CA file; --coordinator may name another machine"
                .into()
        }
        ChannelError::Resolve { address, .. }
        | ChannelError::Refused { address, .. }
        | ChannelError::Unreachable { address, .. }
        | ChannelError::TimedOut { address, .. }
        | ChannelError::Handshake { address, .. }
        | ChannelError::Closed { address, .. }
        | ChannelError::Protocol { address, .. } => {
            format!("--coordinator with another address, if {address} is wrong; there: {SERVICE}")
        }
    }
}

fn call_way_out(needs: Role, address: &CoordinatorAddress, status: &Status) -> Option<String> {
    match status.code() {
        Code::PermissionDenied => Some(format!(
            "a certificate with the role {needs}: hostler-pki issue client {needs} NAME, then --cert and --key"
        )),
        Code::Unauthenticated => Some(CERTIFICATE.into()),
        Code::InvalidArgument => Some("the same command with --help".into()),
        Code::NotFound if needs == Role::Viewer => {
            Some("hostler hypervisors list, or hostler operations list".into())
        }
        Code::Unimplemented => Some("a coordinator of this client's version (hostler --version)".into()),
        _ if certificate_refused(status) => Some(CERTIFICATE.into()),
        _ if connection_broke(status) => Some(format!(
            "again in a moment; on the machine of {address}: {SERVICE}"
        )),
        _ => None,
    }
}

/// Whether there is no connection because of a certificate, ours or the coordinator's.
fn certificate_refused(status: &Status) -> bool {
    hostler_pki::explain(status).is_some_and(|trouble| trouble.about == About::Certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(code: Code) -> Failure {
        Failure::Call {
            call: "ListHypervisors",
            needs: Role::Operator,
            address: "c.example.org:1312".parse().unwrap(),
            status: Box::new(Status::new(code, "words\x1b[2J")),
        }
    }

    #[test]
    fn exit_codes_are_as_documented() {
        for (code, exit) in [
            (Code::InvalidArgument, 2),
            (Code::Unauthenticated, 3),
            (Code::PermissionDenied, 3),
            (Code::Unavailable, 3),
            (Code::DeadlineExceeded, 3),
            (Code::NotFound, 1),
            (Code::FailedPrecondition, 1),
            (Code::Internal, 1),
        ] {
            assert_eq!(call(code).code(), exit, "{code:?}");
        }
        let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::Print { source: closed }.code(), 141);
        assert_eq!(Failure::Interrupted { watch: vec![] }.code(), 130);
    }

    #[test]
    fn a_refusal_names_the_role_that_is_needed() {
        let way_out = call(Code::PermissionDenied).way_out().unwrap();
        assert!(way_out.contains("role operator"), "{way_out}");
        assert!(
            way_out.contains("hostler-pki issue client operator NAME"),
            "{way_out}"
        );
    }

    #[test]
    fn words_of_the_coordinator_are_escaped() {
        assert_eq!(call(Code::Internal).to_string(), "words\\u{1b}[2J");
    }

    #[test]
    fn only_a_broken_connection_is_named_by_its_address() {
        assert!(
            call(Code::Unavailable)
                .to_string()
                .starts_with("ListHypervisors at c.example.org:1312: ")
        );
    }

    #[test]
    fn a_broken_connection_passes_by_itself_and_a_refused_certificate_does_not() {
        let status = |words: &str| Status::from_error(Box::new(std::io::Error::other(words.to_owned())));
        assert!(passes_by_itself(&status("connection reset")));
        assert!(!passes_by_itself(&status(
            "received fatal alert: CertificateExpired"
        )));
        assert!(!passes_by_itself(&Status::not_found("no such operation")));
    }

    #[test]
    fn what_goes_on_can_be_watched() {
        let failure = Failure::Interrupted {
            watch: vec!["a".into(), "b".into()],
        };
        assert_eq!(
            failure.way_out().unwrap(),
            "hostler operations watch a\n     hostler operations watch b"
        );
    }
}
