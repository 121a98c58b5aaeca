//! One coordinator in this process with a small fleet. It is made anew after a while, so that what inputs leave in its
//! store stays small.
//!
//! Inputs name operations by placeholders of the same length, since ids are made of the time.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use hostler_common::id::{HostName, OperationId};
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::agent::v1::agent_service_server::AgentServiceServer;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetServiceServer;
use hostler_common::rpc::operations::v1::operations_service_server::OperationsServiceServer;
use hostler_coordinator::api::authz::AuthzLayer;
use hostler_coordinator::api::fleet::Fleet;
use hostler_coordinator::api::listener::Peer;
use hostler_coordinator::api::operations::Operations;
use hostler_coordinator::operation::engine::Engine;
use hostler_coordinator::operation::state::Limits;
use hostler_coordinator::registry::{self, Registry};
use hostler_coordinator::session::asks::Asks;
use hostler_coordinator::session::registry::Sessions;
use hostler_coordinator::session::service::{SessionContext, SessionService};
use hostler_coordinator::store::Store;
use hostler_coordinator::{dispatch, enroll};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use prost::bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Layer as _, ServiceExt as _};

use crate::said;

/// Inputs that one coordinator reads.
const INPUTS: u32 = 400;

/// Nothing here waits for anybody: what has no answer by then hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The beginning of a placeholder; one digit follows: which of the operations that have not ended.
const PLACEHOLDER: &[u8] = b"00000000-0000-7000-8000-00000000000";

/// The longest message of a status, percent-encoded: three bytes for one at worst.
const STATUS_AT_MOST: usize = 3 * 8192;

/// The hypervisors of the fleet.
pub(super) const HYPERVISORS: [&str; 2] = ["hv1", "hv2"];

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// A coordinator.
pub(super) struct World {
    runtime: Runtime,
    store: Store,
    registry: Registry,
    operations: AsLayered<OperationsServiceServer<Operations>>,
    fleet: AsLayered<FleetServiceServer<Fleet>>,
    sessions: AsLayered<AgentServiceServer<SessionService>>,
    inputs: u32,
    _background: JoinSet<()>,
    _dir: TempDir,
}

type AsLayered<S> = hostler_coordinator::api::authz::Authz<S>;

/// How much of an answer is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Its first message: what follows an operation may never end.
    First,
    /// Its end.
    End,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// gRPC's code; none while the stream is open.
    pub(super) code: Option<i32>,
    /// The messages, each without its head.
    pub(super) messages: Vec<Vec<u8>>,
    /// What the status says, percent-encoded.
    pub(super) status: String,
}

/// Lets `act` use this thread's coordinator.
pub(super) fn with(act: impl FnOnce(&mut World)) {
    WORLD.with_borrow_mut(|world| {
        if world.as_ref().is_some_and(|world| world.inputs >= INPUTS) {
            *world = None;
        }
        let world = world.get_or_insert_with(World::new);
        world.inputs += 1;
        act(world);
    });
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let dir = TempDir::new().expect("a directory");
        let mut background = JoinSet::new();
        let store = Store::open(dir.path()).expect("a store");
        let (registry, asks, sessions) = runtime.block_on(async {
            let registry = registry::spawn(store.clone(), None, &mut background).await;
            let registry = registry.expect("an empty store is loaded");
            let sessions = Sessions::default();
            dispatch::spawn(registry.clone(), sessions.clone(), &mut background);
            (registry, Asks::new(sessions.clone()), sessions)
        });
        let engine = Engine::new(store.clone(), registry.clone(), Limits { max_attempts: 3 });
        let shutdown = CancellationToken::new();
        let operations = Operations {
            engine: engine.clone(),
            registry: registry.clone(),
            shutdown: shutdown.clone(),
        };
        let fleet = Fleet {
            engine: engine.clone(),
            registry: registry.clone(),
            store: store.clone(),
            asks: asks.clone(),
            shutdown: shutdown.clone(),
        };
        let sessions = SessionService::new(SessionContext {
            engine,
            store: store.clone(),
            registry: registry.clone(),
            sessions,
            asks,
            heartbeat: Duration::from_secs(60),
            lease: Duration::from_secs(30),
            shutdown,
            tasks: TaskTracker::new(),
        });
        let mut world = Self {
            runtime,
            store,
            registry,
            operations: AuthzLayer.layer(OperationsServiceServer::new(operations)),
            fleet: AuthzLayer.layer(FleetServiceServer::new(fleet)),
            sessions: AuthzLayer.layer(AgentServiceServer::new(sessions)),
            inputs: 0,
            _background: background,
            _dir: dir,
        };
        world.enrol();
        world
    }

    /// Two hypervisors and a pool of host h1, and an operation that waits on each.
    fn enrol(&mut self) {
        let host: HostName = "h1".parse().expect("a name");
        let hypervisors = HYPERVISORS.map(|id| agent::HypervisorReport {
            id: id.to_owned(),
            kind: agent::HypervisorKind::Guest.into(),
            observed: agent::Observed::OutOfService.into(),
            ..Default::default()
        });
        let report = agent::HostReport {
            hypervisors: hypervisors.into(),
            pools: vec![agent::PoolReport {
                name: "default".to_owned(),
                size_bytes: 1 << 40,
                ..Default::default()
            }],
            ..Default::default()
        };
        let accepted = enroll::accept(&self.store, &self.registry, &host, report);
        self.runtime.block_on(accepted).expect("a report is stored");
        for id in HYPERVISORS {
            let path = "/operations.v1.OperationsService/CreateHypervisor";
            let request = hostler_common::rpc::operations::v1::CreateHypervisorRequest { id: id.to_owned() };
            let body = frame(&prost::Message::encode_to_vec(&request));
            let answer = self.call(path, "client/operator/test", HeaderMap::new(), body, Until::First);
            assert!(!answer.messages.is_empty(), "a create is scheduled: {answer:?}");
        }
    }

    /// The operations that have not ended, oldest first.
    pub(super) fn unended(&self) -> Vec<OperationId> {
        let mut ids: Vec<_> = self.registry.operations().iter().map(|one| one.id).collect();
        ids.sort_unstable();
        ids
    }

    /// `message` with an operation's id in place of each placeholder.
    pub(super) fn fill(&self, message: &[u8]) -> Vec<u8> {
        let mut filled = message.to_vec();
        let ids = self.unended();
        let length = PLACEHOLDER.len() + 1;
        let mut at = 0;
        while let Some(found) = filled.get(at..at + length) {
            let digit = char::from(found[length - 1]).to_digit(10);
            if found.starts_with(PLACEHOLDER)
                && let Some(id) = digit.and_then(|digit| ids.get(digit as usize))
            {
                filled[at..at + length].copy_from_slice(id.to_string().as_bytes());
            }
            at += 1;
        }
        filled
    }

    /// Calls the rpc at `path` as the peer whose certificate names `who`.
    pub(super) fn call(
        &mut self,
        path: &str,
        who: &str,
        headers: HeaderMap,
        body: Vec<u8>,
        until: Until,
    ) -> Answer {
        let peer = Peer {
            identity: format!("spiffe://fleet.test/{who}").parse().expect("an identity"),
            address: ([127, 0, 0, 1], 1).into(),
        };
        let mut request = Request::post(path)
            .header("content-type", "application/grpc")
            .extension(peer)
            .body(Body::new(Full::new(Bytes::from(body))))
            .expect("a request");
        request.headers_mut().extend(headers);
        let (operations, fleet, sessions) =
            (self.operations.clone(), self.fleet.clone(), self.sessions.clone());
        let answered = async move {
            let response = match path.split('/').nth(1) {
                Some("operations.v1.OperationsService") => operations.oneshot(request).await,
                Some("hostler.fleet.v1.FleetService") => fleet.oneshot(request).await,
                _ => sessions.oneshot(request).await,
            };
            read(response, until).await
        };
        let answered = async { tokio::time::timeout(PATIENCE, answered).await };
        let answer = self.runtime.block_on(answered);
        answer.unwrap_or_else(|_| panic!("{path} as {who} does not answer"))
    }

    /// Whatever was said, these hold.
    pub(super) fn check(&self) {
        for id in HYPERVISORS {
            let id = id.parse().expect("an id");
            assert!(self.registry.record(&id).is_some(), "{id} is no longer listed");
        }
    }
}

/// A message as gRPC frames it: uncompressed, its length, itself.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a message of a few bytes");
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

async fn read(response: Result<Response<Body>, Infallible>, until: Until) -> Answer {
    let (head, mut body) = response.unwrap_or_else(|never| match never {}).into_parts();
    let mut answer = Answer {
        code: None,
        messages: Vec::new(),
        status: String::new(),
    };
    answer.end(&head.headers);
    let mut bytes = Vec::new();
    while answer.code.is_none() {
        let Some(frame) = body.frame().await else { break };
        match frame.expect("a body in memory does not break").into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => frame
                .trailers_ref()
                .into_iter()
                .for_each(|trailers| answer.end(trailers)),
        }
        while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(message) = rest.get(..length) else { break };
            answer.messages.push(message.to_vec());
            bytes.drain(..5 + length);
        }
        if until == Until::First && !answer.messages.is_empty() {
            break;
        }
    }
    answer
}

impl Answer {
    fn end(&mut self, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        self.code = text("grpc-status").and_then(|code| code.parse().ok());
        self.status = text("grpc-message").unwrap_or_default().to_owned();
        let bytes = self.status.len();
        assert!(bytes <= STATUS_AT_MOST, "a status has a message of {bytes} bytes");
    }
}

/// Holds the words of an answer against the bound, as those of a sentence.
pub(super) fn bounded(text: &str) {
    said::bounded(text);
}
