//! Why a command did not do what was asked: the exit code, the sentence and a way out.
//! The codes are documented in `--help` and scripts rely on them.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::{HypervisorId, PoolName, ResourceName};
use hostler_common::operation::BackupId;
use hostler_pki::{About, ChannelError, CoordinatorAddress, CredentialsError, TlsConfigError};
use thiserror::Error;
use tonic::{Code, Status};

use crate::command::proxy::ListenError;
use crate::connect::Call;
use crate::output::text::escape;
use crate::settings::SettingsError;

/// Everything that ends a command early.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The settings do not do.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// One hypervisor named more than once.
    #[error("{id} is named twice")]
    Twice { id: HypervisorId },
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
    #[error("{}", call_sentence(call.name, address, status))]
    Call {
        call: Call,
        address: CoordinatorAddress,
        status: Box<Status>,
    },
    /// `--timeout` passed, or its default.
    #[error("no answer from {address} within {}", humantime::format_duration(*after))]
    NoAnswer {
        address: CoordinatorAddress,
        after: Duration,
        /// Whether the answer is one of a pool's host.
        storage: bool,
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
        look: &'static str,
    },
    /// An operation that was to stop completed.
    #[error("the operation completed before it could be cancelled")]
    NotStopped { show: Vec<String> },
    /// The stream of a request broke too early.
    #[error("{why}; no operation had been named, and one may have begun or not")]
    Unnamed { why: String },
    /// The stream of a dry run broke.
    #[error("{why}; not all had been said, and nothing was changed")]
    Unsaid { why: String },
    /// Nobody holds the lock that was to end.
    #[error("nobody holds a lock on {resource}")]
    NotLocked { resource: ResourceName },
    /// A request that the coordinator would call malformed.
    #[error("{why}")]
    Senseless { why: String },
    /// No pool of that name.
    #[error("{}", match name { Some(name) => format!("no storage pool is called {name}"), None => "there is no default storage pool".into() })]
    NoPool {
        name: Option<PoolName>,
        known: Vec<String>,
    },
    /// No backup, or more than one, begins with that id.
    #[error("{}", match found { 0 => format!("pool {} has no backup {id}", escape(pool)), found => format!("{found} backups of pool {} begin with {id}", escape(pool)) })]
    WhichBackup {
        id: BackupId,
        pool: String,
        found: usize,
    },
    /// Nobody can be asked.
    #[error("what is deleted does not come back, and there is no terminal to ask on whether it is meant")]
    NobodyToAsk,
    /// The person said no.
    #[error("not confirmed; nothing was deleted")]
    NotConfirmed,
    /// What has to be typed cannot be.
    #[error("{name} has to be typed to be expunged, and there is no terminal to type it on")]
    NobodyToType { name: String },
    /// Something else was typed.
    #[error("that is not {name}; nothing was expunged")]
    Mistyped { name: String },
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
    /// The only copy of a token went nowhere.
    #[error("the token could not be written to standard output, so that nobody has it; token {} {}", escape(id), if *revoked { "was revoked" } else { "is still open" })]
    Unseen {
        /// The token's id.
        id: String,
        revoked: bool,
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
            Self::Settings(_)
            | Self::Twice { .. }
            | Self::Senseless { .. }
            | Self::NobodyToAsk
            | Self::NobodyToType { .. }
            | Self::Listen(ListenError::Refused { .. }) => 2,
            Self::Credentials(_) | Self::Tls(_) | Self::Connect(_) => 3,
            Self::NoAnswer { .. } | Self::NotEnded { .. } => 3,
            Self::Unnamed { .. } | Self::Unsaid { .. } => 3,
            Self::Call { status, .. } => call_code(status),
            Self::Operation { .. } | Self::NotStopped { .. } => 1,
            Self::NotConfirmed | Self::Mistyped { .. } => 1,
            Self::NoPool { .. } | Self::WhichBackup { .. } | Self::NotLocked { .. } => 1,
            Self::Listen(_) | Self::System { .. } => 1,
            Self::Interrupted { .. } => 130,
            // What a program gets that the kernel ends with SIGPIPE.
            Self::Print { source } if source.kind() == std::io::ErrorKind::BrokenPipe => 141,
            Self::Print { .. } | Self::Unseen { .. } => 1,
        }
    }

    /// What a person can do about it. There always is something.
    pub(crate) fn way_out(&self) -> String {
        match self {
            Self::Settings(error) => error.way_out().unwrap_or_else(|| "hostler --help".into()),
            Self::Twice { .. } => "the same command with each id once".into(),
            Self::Credentials(error) => credentials_way_out(error),
            Self::Tls(_) => CERTIFICATE.into(),
            Self::Connect(error) => connect_way_out(error),
            Self::Call {
                call,
                address,
                status,
            } => call_way_out(call, address, status),
            Self::NoAnswer { storage: true, .. } => {
                "--timeout 90s: the pool's host may have to wait for its devices or its repository, and says so after a minute".into()
            }
            Self::NoAnswer { storage: false, .. } => {
                format!("a longer --timeout, or {SERVICE} there")
            }
            Self::NotEnded { watch, .. } => watching(watch),
            Self::Interrupted { watch } if watch.is_empty() => {
                "hostler operations list --unended says whether it was".into()
            }
            Self::Interrupted { watch } => format!("{}\n     {}", watching(watch), cancelling(watch)),
            Self::Operation { show, look, .. } if show.is_empty() => (*look).into(),
            Self::Operation { show, .. } | Self::NotStopped { show } => show
                .iter()
                .map(|id| format!("hostler operations show {id}"))
                .collect::<Vec<_>>()
                .join("\n     "),
            Self::Unnamed { .. } => {
                "hostler operations list says whether it has; if not, the same command again".into()
            }
            Self::Unsaid { .. } => "the same command again".into(),
            Self::Senseless { .. } => "the same command with --help".into(),
            Self::NoPool { known, .. } if known.is_empty() => {
                "a [storage] section in the configuration of a host's agent; then hostler storage list".into()
            }
            Self::NoPool { known, .. } => format!("one of these: {}", escape(&known.join(", "))),
            Self::NotLocked { resource } => format!(
                "hostler locks shows those that are held; hostler operations list --unended --resource {resource} shows what runs"
            ),
            Self::WhichBackup { found: 0, .. } => "hostler backups list".into(),
            Self::WhichBackup { .. } => {
                "more digits of its id; hostler backups list --json has them all".into()
            }
            Self::NobodyToAsk => "--dry-run to see what it would do, --yes if it is meant".into(),
            Self::NotConfirmed => "y to delete it, or --yes".into(),
            Self::NobodyToType { name } | Self::Mistyped { name } => {
                format!("--yes-expunge {name}, if it is meant")
            }
            Self::Listen(error) => error.way_out(),
            Self::System { .. } => {
                "ulimit -a says what this shell may use; raise it, or end something".into()
            }
            Self::Unseen { id, revoked: false, .. } => format!("hostler tokens revoke {}", escape(id)),
            Self::Print { .. } | Self::Unseen { .. } => {
                "another place for standard output; df says which disk is full".into()
            }
        }
    }

    /// Prints the sentence and the way out on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        let code = self.code();
        // Nobody reads any more; that is how `hostler … | head` ends.
        if code != 141 {
            let text = format!("error: {}\ntry: {}\n", Chain(self), self.way_out());
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

fn cancelling(ids: &[String]) -> String {
    match ids {
        [only] => format!("hostler operations cancel {only}"),
        _ => "hostler operations cancel ID stops one".into(),
    }
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

fn credentials_way_out(error: &CredentialsError) -> String {
    match error {
        CredentialsError::Read { .. } | CredentialsError::NotAFile { .. } => {
            "--ca, --cert and --key, or HOSTLER_CA, HOSTLER_CERT and HOSTLER_KEY, with the right files; hostler-pki \
             issue client makes them"
                .into()
        }
        CredentialsError::LooseKey { path, .. } => format!("chmod 0600 {}", path.display()),
        CredentialsError::ForeignKey { path, .. } => format!("chown root {}", path.display()),
        CredentialsError::NotPem { .. }
        | CredentialsError::NoCertificate { .. }
        | CredentialsError::CaExpired { .. }
        | CredentialsError::BadRoot { .. }
        | CredentialsError::Unreadable { .. }
        | CredentialsError::KeyCount { .. }
        | CredentialsError::BadKey { .. }
        | CredentialsError::Mismatch { .. }
        | CredentialsError::NotAccepted { .. } => {
            "hostler-pki show FILE says what a certificate is; hostler-pki issue client makes one".into()
        }
    }
}

fn connect_way_out(error: &ChannelError) -> String {
    match error {
        ChannelError::CertificateRefused { .. } | ChannelError::Setup { .. } => CERTIFICATE.into(),
        ChannelError::ServerCertificate { .. } => {
            "hostler-pki show FILE says what is in your CA file; --coordinator may name another machine"
                .into()
        }
        // This program enrols nobody.
        ChannelError::NotPinned { address, .. }
        | ChannelError::NotForEnrolment { address }
        | ChannelError::Resolve { address, .. }
        | ChannelError::Refused { address, .. }
        | ChannelError::Unreachable { address, .. }
        | ChannelError::TimedOut { address, .. }
        | ChannelError::Handshake { address, .. }
        | ChannelError::Closed { address, .. }
        | ChannelError::Protocol { address, .. } => {
            format!(
                "--coordinator or HOSTLER_COORDINATOR with another address, if {address} is wrong; there: {SERVICE}"
            )
        }
    }
}

fn call_way_out(call: &Call, address: &CoordinatorAddress, status: &Status) -> String {
    if certificate_refused(status) {
        return CERTIFICATE.into();
    }
    let needs = call.needs;
    if connection_broke(status) {
        let mut way_out = format!("again in a moment; on the machine of {address}: {SERVICE}");
        // The coordinator said so itself: perhaps it is the agent that it cannot reach.
        if std::error::Error::source(status).is_none() && call.is_about_storage() {
            way_out.push_str("\n     hostler storage list says whether the pool's host is connected");
        }
        return way_out;
    }
    match status.code() {
        Code::PermissionDenied => format!(
            "a certificate with the role {needs}: hostler-pki issue client {needs} NAME, then --cert and --key, or \
             HOSTLER_CERT and HOSTLER_KEY"
        ),
        Code::Unauthenticated => CERTIFICATE.into(),
        Code::InvalidArgument | Code::OutOfRange => "the same command with --help".into(),
        Code::NotFound | Code::AlreadyExists => call.look().into(),
        Code::FailedPrecondition | Code::Aborted if call.shown_by().is_some() => call.look().into(),
        Code::FailedPrecondition | Code::Aborted => {
            "hostler operations list says where each operation stands".into()
        }
        Code::Unimplemented => "a coordinator of this client's version (hostler --version)".into(),
        Code::DeadlineExceeded => format!("a longer --timeout, or {SERVICE} there"),
        Code::ResourceExhausted | Code::Unavailable | Code::Cancelled => {
            format!("again in a moment; on the machine of {address}: {SERVICE}")
        }
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
            format!("journalctl -u hostler-coordinator on the machine of {address} says more")
        }
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
            call: Call::change("ListHypervisors"),
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
        let way_out = call(Code::PermissionDenied).way_out();
        assert!(way_out.contains("role operator"), "{way_out}");
        assert!(
            way_out.contains("hostler-pki issue client operator NAME"),
            "{way_out}"
        );
    }

    #[test]
    fn a_failed_call_always_has_a_way_out() {
        // Every code there is, from OK to UNAUTHENTICATED.
        for code in 0..=16 {
            let failure = call(Code::from(code));
            assert!(!failure.way_out().is_empty(), "{failure:?}");
        }
        assert!(
            call(Code::Internal)
                .way_out()
                .contains("journalctl -u hostler-coordinator")
        );
    }

    #[test]
    fn a_key_that_others_can_reach_is_cured_by_the_command_that_is_told() {
        let path = std::path::PathBuf::from("/k");
        let loose = CredentialsError::LooseKey {
            path: path.clone(),
            mode: 0o644,
        };
        assert_eq!(Failure::from(loose).way_out(), "chmod 0600 /k");
        let foreign = CredentialsError::ForeignKey { path, owner: 1000 };
        assert_eq!(Failure::from(foreign).way_out(), "chown root /k");
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
    fn what_goes_on_can_be_watched_and_cancelled() {
        let way_out = |watch: &[&str]| {
            let watch = watch.iter().map(|id| (*id).to_owned()).collect();
            Failure::Interrupted { watch }.way_out()
        };
        assert_eq!(
            way_out(&["a"]),
            "hostler operations watch a\n     hostler operations cancel a"
        );
        assert_eq!(
            way_out(&["a", "b"]),
            "hostler operations watch a\n     hostler operations watch b\n     hostler operations cancel ID stops one"
        );
    }
}
