//! From the configuration to a link with the coordinator: credentials are read again for every attempt, so that a
//! renewed certificate is used without a restart.
//!
//! What carries the messages is known here alone: everybody else has a [`Link`]. The invariant: a link carries the
//! messages of each direction in their order, and its Hello is the first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::rpc::hostler::agent::v1::agent_service_client::AgentServiceClient;
use hostler_common::rpc::hostler::agent::v1::{SessionRequest, SessionResponse};
use hostler_pki::address::CoordinatorAddress;
use hostler_pki::channel::{ChannelError, ChannelOptions, connect};
use hostler_pki::client::client_config_noting;
use hostler_pki::files::TlsFiles;
use hostler_pki::{CredentialsError, PeerRoot};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::blocking::Blocking;
use crate::identity::files::{self, Own};
use crate::identity::words;

/// Three small files; a disk that takes longer is broken.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no session, in one line that says what to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Only a person cures it: a refusal, or bad credentials.
    Person(String),
    /// It may pass: the network, or a coordinator that is down.
    Passing(String),
}

/// From Hello to the coordinator's next sign.
pub(super) const WELCOME_DEADLINE: Duration = Duration::from_secs(15);

/// Messages handed to the transport and not yet on the wire. Small: what waits here cannot be reordered, and
/// HTTP/2 has a window of its own.
pub const OUT_BOUND: usize = 8;

/// What comes from the coordinator. It ends with the session, and after trouble.
pub type Answers = Pin<Box<dyn Stream<Item = Result<SessionResponse, Trouble>> + Send>>;

/// A stream of messages to and from the coordinator, on which Hello has been said.
pub struct Link {
    /// Where messages go.
    pub out: mpsc::Sender<SessionRequest>,
    /// Where answers come from.
    pub answers: Answers,
}

/// A link to the coordinator, or why there is none.
pub type Dialling = Pin<Box<dyn Future<Output = Result<Link, Trouble>> + Send>>;

/// Opens a link to the coordinator, of which the message is the first.
pub type Dial = Arc<dyn Fn(SessionRequest) -> Dialling + Send + Sync>;

/// Dials `address` over mutual TLS with the credentials in `files`.
pub fn over_tls(address: CoordinatorAddress, files: TlsFiles, blocking: Blocking) -> Dial {
    over_tls_noting(address, files, blocking, PeerRoot::default())
}

/// The same; the root that each coordinator proved itself by is left in `peer`.
pub fn over_tls_noting(
    address: CoordinatorAddress,
    files: TlsFiles,
    blocking: Blocking,
    peer: PeerRoot,
) -> Dial {
    Arc::new(move |hello| {
        let (address, files, blocking) = (address.clone(), files.clone(), blocking.clone());
        let peer = peer.clone();
        Box::pin(async move {
            let config = blocking
                .run("reading the credentials", READ_DEADLINE, move || {
                    let credentials = files::load(&files).map_err(|error| not_good(&error, &files))?;
                    client_config_noting(&credentials, &peer).map_err(|error| Chain(&error).to_string())
                })
                .await
                .map_err(|fault| Trouble::Passing(fault.to_string()))?
                .map_err(Trouble::Person)?;
            let channel = connect(&address, config, ChannelOptions::default())
                .await
                .map_err(|error| channel_trouble(&error))?;
            over_channel(channel, hello).await
        })
    })
}

/// What is wrong with the credentials. Nothing is dialled then, so an expired certificate costs the coordinator nothing.
fn not_good(error: &CredentialsError, files: &TlsFiles) -> String {
    match (error.expired_at(), Own::read(files)) {
        (Some(at), Ok(own)) => words::expired(&own.identity, at),
        _ => Chain(error).to_string(),
    }
}

/// Calls the session's rpc on `channel`, with `hello` as its first message.
///
/// # Errors
/// When the coordinator does not take the call.
pub async fn over_channel(channel: Channel, hello: SessionRequest) -> Result<Link, Trouble> {
    let (out, requests) = mpsc::channel(OUT_BOUND);
    // There is room: the channel is new.
    let _ = out.try_send(hello);
    let mut client = AgentServiceClient::new(channel);
    let called = tokio::time::timeout(WELCOME_DEADLINE, client.session(ReceiverStream::new(requests))).await;
    let answers = called
        .map_err(|_| unanswered())?
        .map_err(|status| trouble(&status))?
        .into_inner()
        .map(|answer| answer.map_err(|status| trouble(&status)));
    let answers = Box::pin(answers);
    Ok(Link { out, answers })
}

/// No sign within [`WELCOME_DEADLINE`].
pub(super) fn unanswered() -> Trouble {
    Trouble::Passing(format!(
        "the coordinator did not answer Hello within {} s",
        WELCOME_DEADLINE.as_secs()
    ))
}

fn trouble(status: &Status) -> Trouble {
    match hostler_pki::explain(status) {
        Some(explained) if explained.about == hostler_pki::About::Certificate => {
            return Trouble::Person(explained.words);
        }
        Some(explained) => return Trouble::Passing(explained.words),
        None => {}
    }
    let line = format!("the coordinator ended the session: {}", status.message());
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented => {
            Trouble::Person(line)
        }
        _ => Trouble::Passing(line),
    }
}

fn channel_trouble(error: &ChannelError) -> Trouble {
    let line = Chain(error).to_string();
    match error {
        ChannelError::CertificateRefused { .. }
        | ChannelError::ServerCertificate { .. }
        | ChannelError::NotPinned { .. }
        | ChannelError::NotForEnrolment { .. }
        | ChannelError::Setup { .. }
        | ChannelError::Handshake { .. }
        | ChannelError::Protocol { .. } => Trouble::Person(line),
        ChannelError::Resolve { .. }
        | ChannelError::Refused { .. }
        | ChannelError::Unreachable { .. }
        | ChannelError::TimedOut { .. }
        | ChannelError::Closed { .. } => Trouble::Passing(line),
    }
}
