//! The rpc that agents call: checks who opens a session, then hands it to its conversation. What carries the
//! messages is not known here: [`SessionService::open`] serves any stream of a host that is known for who it is.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use hostler_common::id::{Epoch, HostName, OperationId, ProcessToken};
use hostler_common::rpc::hostler::agent::v1::agent_service_server::AgentService;
use hostler_common::rpc::hostler::agent::v1::{
    FinishAnswer, Hello, Refused, SessionRequest, SessionResponse, Welcome, session_request, session_response,
};
use hostler_common::units::UnixMillis;
use hostler_pki::identity::Subject;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status, Streaming};

use super::asks::Asks;
use super::conversation::Conversation;
use super::registry::{Newcomer, Sessions};
use super::version;
use crate::api::listener::Peer;
use crate::audit::{Audit, Entry, Event};
use crate::identity::Identities;
use crate::identity::connections::Life;
use crate::operation::engine::{Engine, EngineError};
use crate::operation::sentences;
use crate::registry::Registry;
use crate::store::Store;

/// The protocol of this version (`Hello.protocol`).
pub const PROTOCOL: u32 = 1;

/// How long an agent may take for its Hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Messages to one agent that wait for the network: an offer for each of its 256 hypervisors and 8 pools at the very
/// most, answers and cancels for the 32 operations that it runs at once, 16 questions, and heartbeats. Offers and
/// cancels beyond it are repeated.
const OUTBOUND_BOUND: usize = 384;

/// Journaled operations that a Hello may name: each is looked up. An agent holds at most 1024.
const JOURNALED_AT_MOST: usize = 1024;

/// The longest version that is kept, in bytes.
const VERSION_AT_MOST: usize = 64;

/// What a session needs of the coordinator.
#[derive(Debug, Clone)]
pub struct SessionContext {
    /// Decides about proposals and ends.
    pub engine: Engine,
    /// Where reports are stored.
    pub store: Store,
    /// Where liveness is told.
    pub registry: Registry,
    /// Every live session.
    pub sessions: Sessions,
    /// Questions to agents.
    pub asks: Asks,
    /// How often an agent is asked for a sign of life.
    pub heartbeat: Duration,
    /// The lock that agents propose.
    pub lease: Duration,
    /// Certificates for agents, and the CAs that they trust.
    pub identities: Identities,
    /// Notes who is refused.
    pub audit: Audit,
    /// Ends every session.
    pub shutdown: CancellationToken,
    /// Waited for at the end of the process.
    pub tasks: TaskTracker,
}

/// Serves [`AgentService`].
#[derive(Debug, Clone)]
pub struct SessionService {
    context: SessionContext,
}

impl SessionService {
    /// Serves sessions with `context`.
    pub fn new(context: SessionContext) -> Self {
        Self { context }
    }

    /// Serves the stream of an agent whose certificate names `host`, coming from `from` on a connection with `life`.
    /// Answers with what goes to the agent, which ends with the session, and with the future that serves it.
    pub fn open<S>(
        &self,
        host: HostName,
        from: String,
        life: Life,
        inbound: S,
    ) -> (
        ReceiverStream<SessionResponse>,
        impl Future<Output = ()> + Send + use<S>,
    )
    where
        S: Stream<Item = Result<SessionRequest, Status>> + Send + Unpin + 'static,
    {
        let (outbound, responses) = mpsc::channel(OUTBOUND_BOUND);
        let context = self.context.clone();
        let opening = Opening {
            context,
            host,
            from,
            life,
        };
        (ReceiverStream::new(responses), opening.serve(inbound, outbound))
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for SessionService {
    type SessionStream = Responses;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let peer = Peer::of(&request)?.clone();
        let Subject::Agent { host } = peer.identity.subject.clone() else {
            // The role table has refused others already.
            return Err(Status::permission_denied("only agents open sessions"));
        };
        let (responses, serving) = self.open(host, peer.address.to_string(), peer.life, request.into_inner());
        self.context.tasks.spawn(serving);
        Ok(Response::new(Box::pin(responses.map(Ok))))
    }
}

/// A stream that has not said Hello.
struct Opening {
    context: SessionContext,
    host: HostName,
    from: String,
    life: Life,
}

impl Opening {
    async fn serve<S>(self, mut inbound: S, outbound: mpsc::Sender<SessionResponse>)
    where
        S: Stream<Item = Result<SessionRequest, Status>> + Unpin,
    {
        let shutdown = self.context.shutdown.clone();
        // Cancel-safe: at shutdown, or when the certificate is revoked, nothing of an unopened session is kept.
        let hello = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = self.life.cut().cancelled() => return,
            hello = tokio::time::timeout(HELLO_PATIENCE, inbound.next()) => hello,
        };
        let hello = match hello {
            Ok(Some(Ok(SessionRequest {
                message: Some(session_request::Message::Hello(hello)),
            }))) => hello,
            Ok(None | Some(Err(_))) => return,
            Ok(Some(Ok(_))) => {
                return self
                    .refuse(&outbound, "the first message must be Hello".into())
                    .await;
            }
            Err(_late) => {
                let sentence = format!("no Hello within {} s", HELLO_PATIENCE.as_secs());
                return self.refuse(&outbound, sentence).await;
            }
        };
        let token = match self.check(&hello) {
            Ok(token) => token,
            Err(reason) => return self.refuse(&outbound, reason).await,
        };
        let ended = match self.ended(&hello.journaled_operation_ids).await {
            Ok(ended) => ended,
            Err(error) => {
                let reason = hostler_common::error::Chain(&error).to_string();
                return self.refuse(&outbound, reason).await;
            }
        };
        let journaled = hello.journaled_operation_ids;
        let told: BTreeSet<String> = ended.iter().cloned().collect();
        let (heard, heard_watch) = watch::channel(0);
        let end = shutdown.child_token();
        let newcomer = Newcomer {
            token,
            from: self.from.clone(),
            outbound: outbound.clone(),
            heard: heard_watch,
            end,
            life_end: self.life.end(),
        };
        let context = &self.context;
        let welcome = |epoch: Epoch| {
            // As it is when the session counts: what changes later is told to it.
            let own = context.identities.own();
            let message = Some(session_response::Message::Welcome(Welcome {
                epoch: epoch.0,
                heartbeat_interval_ms: millis(context.heartbeat),
                lease_seconds: u32::try_from(context.lease.as_secs()).unwrap_or(u32::MAX),
                ended_operation_ids: ended,
                now_unix_ms: UnixMillis::now().0,
                ca_pem: own
                    .as_ref()
                    .map(|own| own.ca_pem().to_owned())
                    .unwrap_or_default(),
                signing_root: own
                    .as_ref()
                    .map(|own| own.signing_root_text())
                    .unwrap_or_default(),
            }));
            SessionResponse { message }
        };
        let handle = match context.sessions.enter(&self.host, newcomer, welcome).await {
            Ok(handle) => handle,
            Err(reason) => return self.refuse(&outbound, reason).await,
        };
        // Only now is every end told to this session: what ended while it opened was told to the one before, or to nobody.
        match self.ended(&journaled).await {
            Ok(over) => {
                for operation_id in over.into_iter().filter(|id| !told.contains(id)) {
                    let message = Some(session_response::Message::FinishAnswer(FinishAnswer {
                        operation_id,
                        accepted: false,
                        reason: "it ended while the session opened".to_owned(),
                    }));
                    // It may be lost: the agent hears of it when it next speaks of the operation.
                    let _ = outbound.try_send(SessionResponse { message });
                }
            }
            Err(error) => {
                tracing::warn!(host = %self.host, error = %hostler_common::error::Chain(&error), "session given up: its journal cannot be compared");
                self.context.sessions.leave(&self.host, handle.epoch);
                return;
            }
        }
        drop(outbound);
        let version = sentences::bounded(&hello.agent_version, VERSION_AT_MOST);
        Conversation::new(self.context, self.host, version, handle, heard, self.life)
            .run(inbound)
            .await;
    }

    fn check(&self, hello: &Hello) -> Result<ProcessToken, String> {
        if hello.protocol != PROTOCOL {
            return Err(format!(
                "the agent speaks protocol {}, this coordinator {} speaks {PROTOCOL}: install the same version on both",
                hello.protocol,
                hostler_common::VERSION
            ));
        }
        version::check(&hello.agent_version)?;
        if hello.host != self.host.as_str() {
            return Err(format!(
                "the agent says it is host {:?}, its certificate says {:?}: an agent speaks for the host of its certificate",
                hello.host.chars().take(128).collect::<String>(),
                self.host.as_str()
            ));
        }
        if hello.journaled_operation_ids.len() > JOURNALED_AT_MOST {
            return Err(format!(
                "the journal names {} operations; at most {JOURNALED_AT_MOST} are taken: clear the agent's state directory of old ones",
                hello.journaled_operation_ids.len()
            ));
        }
        hello.process_token.parse().map_err(|error| format!("{error}"))
    }

    /// Which of the agent's journaled operations are over for the coordinator.
    async fn ended(&self, journaled: &[String]) -> Result<Vec<String>, EngineError> {
        let mut ended = Vec::new();
        for text in journaled {
            let Ok(id) = text.parse::<OperationId>() else {
                ended.push(text.clone());
                continue;
            };
            match self.context.engine.get(id).await {
                Ok(record) if record.end().is_none() => {}
                Ok(_) | Err(EngineError::NoSuchOperation { .. }) => ended.push(text.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(ended)
    }

    async fn refuse(&self, outbound: &mpsc::Sender<SessionResponse>, reason: String) {
        tracing::warn!(host = %self.host, from = %self.from, reason, "session refused");
        let entry = Entry::refused(
            Event::Session,
            format_args!("agent/{}", self.host),
            &self.from,
            Code::FailedPrecondition,
            &reason,
        );
        self.context.audit.note(&entry);
        let message = Some(session_response::Message::Refused(Refused { reason }));
        // An error means that the agent has hung up.
        let _ = outbound.send(SessionResponse { message }).await;
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
