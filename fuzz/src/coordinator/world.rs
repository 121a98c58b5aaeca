//! One coordinator in this process with a small fleet. It is made anew after a while, so that what inputs leave in its
//! store stays small.
//!
//! Inputs name operations by placeholders of the same length, since ids are made of the time.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hostler_common::id::{HostName, OperationId};
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::agent::v1::agent_service_server::AgentServiceServer;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_server::EnrolServiceServer;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetServiceServer;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::hostler::site::v1::site_service_server::SiteServiceServer;
use hostler_common::rpc::operations::v1::operations_service_server::OperationsServiceServer;
use hostler_coordinator::api::authz::{Authz, AuthzLayer};
use hostler_coordinator::api::fleet::Fleet;
use hostler_coordinator::api::listener::Peer;
use hostler_coordinator::api::operations::Operations;
use hostler_coordinator::api::site::Site;
use hostler_coordinator::config::Config;
use hostler_coordinator::enroll;
use hostler_coordinator::identity::Identities;
use hostler_coordinator::identity::connections::Life;
use hostler_coordinator::identity::enrolment::{Caller, Enrolment};
use hostler_coordinator::registry::Registry;
use hostler_coordinator::session::service::SessionService;
use hostler_coordinator::store::Store;
use hostler_coordinator::wiring::{self, Assembly};
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
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

/// Stands for a token with which h1 may enrol, and has its length.
pub const TOKEN_PLACEHOLDER: &[u8] = &[b'1'; 134];

/// Stands for the id of that token.
pub const TOKEN_ID_PLACEHOLDER: &[u8] = b"0000000000000001";

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
    operations: Authz<OperationsServiceServer<Operations>>,
    fleet: Authz<FleetServiceServer<Fleet>>,
    site: Authz<SiteServiceServer<Site>>,
    enrol: EnrolServiceServer<Enrolment>,
    sessions: Authz<AgentServiceServer<SessionService>>,
    /// A token of h1, and its id.
    token: (String, String),
    inputs: u32,
    /// Somebody was allowed to take a hypervisor off the list.
    expunged: bool,
    _background: JoinSet<()>,
    _dir: TempDir,
}

/// How much of an answer is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Its head: what follows a log may never say anything.
    Head,
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
        if world.as_ref().is_some_and(World::is_over) {
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
        let config = config(dir.path());
        let store = Store::open(&config.data_dir).expect("a store");
        let connections = TaskTracker::new();
        let shutdown = CancellationToken::new();
        let (assembly, identities) = runtime.block_on(async {
            let assembly = wiring::assemble(&config, store.clone(), &connections, &shutdown).await;
            let mut assembly = assembly.expect("an empty store is loaded");
            let identities = Identities::start(&config, &store, &mut assembly.background).await;
            (assembly, identities.expect("certificates"))
        });
        let Assembly {
            mut services,
            registry,
            background,
        } = assembly;
        services.site.identities = identities.clone();
        let mut world = Self {
            runtime,
            store,
            registry,
            operations: AuthzLayer.layer(OperationsServiceServer::new(services.operations)),
            fleet: AuthzLayer.layer(FleetServiceServer::new(services.fleet)),
            site: AuthzLayer.layer(SiteServiceServer::new(services.site)),
            enrol: EnrolServiceServer::new(Enrolment::new(identities, Vec::new())),
            sessions: AuthzLayer.layer(AgentServiceServer::new(services.sessions)),
            token: Default::default(),
            inputs: 0,
            expunged: false,
            _background: background,
            _dir: dir,
        };
        world.enrol();
        world.invite();
        world
    }

    /// Whether it has read enough.
    fn is_over(&self) -> bool {
        self.inputs >= INPUTS || self.expunged
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
            let body = frame(&request.encode_to_vec());
            let answer = self.call(path, "client/operator/test", HeaderMap::new(), body, Until::First);
            assert!(!answer.messages.is_empty(), "a create is scheduled: {answer:?}");
        }
    }

    /// A token for h1.
    fn invite(&mut self) {
        let path = "/hostler.site.v1.SiteService/CreateToken";
        let request = site::CreateTokenRequest {
            host: "h1".to_owned(),
            expires_seconds: 0,
        };
        let body = frame(&request.encode_to_vec());
        let answer = self.call(path, "client/admin/test", HeaderMap::new(), body, Until::End);
        let made = answer.messages.first().map(|made| made.as_slice());
        let made = made.unwrap_or_else(|| panic!("a token is made: {answer:?}"));
        let made = site::CreateTokenResponse::decode(made).expect("an answer");
        let id = made.kept.expect("what is kept of it").id;
        assert_eq!(made.token.len(), TOKEN_PLACEHOLDER.len());
        assert_eq!(id.len(), TOKEN_ID_PLACEHOLDER.len());
        self.token = (made.token, id);
    }

    /// The operations that have not ended, oldest first.
    pub(super) fn unended(&self) -> Vec<OperationId> {
        let mut ids: Vec<_> = self.registry.operations().iter().map(|one| one.id).collect();
        ids.sort_unstable();
        ids
    }

    /// `message` with what each placeholder stands for.
    pub(super) fn fill(&self, message: &[u8]) -> Vec<u8> {
        let mut filled = message.to_vec();
        let ids = self.unended();
        let length = PLACEHOLDER.len() + 1;
        let mut at = 0;
        while at < filled.len() {
            let found = &filled[at..];
            let digit = found
                .get(length - 1)
                .and_then(|last| char::from(*last).to_digit(10));
            if found.starts_with(PLACEHOLDER)
                && let Some(id) = digit.and_then(|digit| ids.get(digit as usize))
            {
                filled[at..at + length].copy_from_slice(id.to_string().as_bytes());
            }
            for (placeholder, meant) in [
                (TOKEN_PLACEHOLDER, &self.token.0),
                (TOKEN_ID_PLACEHOLDER, &self.token.1),
            ] {
                if filled[at..].starts_with(placeholder) {
                    filled[at..at + placeholder.len()].copy_from_slice(meant.as_bytes());
                }
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
            life: Life::unbounded(),
        };
        // Each comes from somewhere else: wrong tokens are counted for each address.
        let [_, high, middle, low] = self.inputs.to_be_bytes();
        let address = SocketAddr::from(([10, high, middle, low], 1));
        let mut request = Request::post(path)
            .header("content-type", "application/grpc")
            .extension(peer)
            .extension(Caller::at(address))
            .body(Body::new(Full::new(Bytes::from(body))))
            .expect("a request");
        request.headers_mut().extend(headers);
        let (operations, fleet, site) = (self.operations.clone(), self.fleet.clone(), self.site.clone());
        let (enrol, sessions) = (self.enrol.clone(), self.sessions.clone());
        let answered = async move {
            let response = match path.split('/').nth(1) {
                Some("operations.v1.OperationsService") => operations.oneshot(request).await,
                Some("hostler.fleet.v1.FleetService") => fleet.oneshot(request).await,
                Some("hostler.site.v1.SiteService") => site.oneshot(request).await,
                Some("hostler.enrol.v1.EnrolService") => enrol.oneshot(request).await,
                _ => sessions.oneshot(request).await,
            };
            read(response, until).await
        };
        let answered = async { tokio::time::timeout(PATIENCE, answered).await };
        let answer = self.runtime.block_on(answered);
        answer.unwrap_or_else(|_| panic!("{path} as {who} does not answer"))
    }

    /// Somebody was allowed to take a hypervisor off the list: the next input has another coordinator.
    pub(super) fn expunged(&mut self) {
        self.expunged = true;
    }

    /// Whatever was said, these hold.
    pub(super) fn check(&self) {
        for id in HYPERVISORS {
            let id = id.parse().expect("an id");
            let is_listed = self.registry.record(&id).is_some();
            assert!(is_listed || self.expunged, "{id} is no longer listed");
        }
    }
}

/// A coordinator's configuration in `dir`, with a CA and its certificate.
fn config(dir: &Path) -> Config {
    let domain = "fleet.test".parse().expect("a trust domain");
    let authority = Authority::init(dir, domain, DEFAULT_CA_LIFETIME).expect("a CA");
    let identity = "spiffe://fleet.test/coordinator/c1".parse().expect("an identity");
    let issued = authority.issue(&identity, &IssueOptions::default());
    let issued = issued.expect("a certificate");
    issued.write(dir, "c1", Existing::Keep).expect("its files");
    let of = |name: &str| format!("{:?}", dir.join(name));
    let text = format!(
        "data_dir = {}\n[tls]\nca = {}\ncertificate = {}\nkey = {}\n[enrolment]\nca_dir = {dir:?}\n",
        of("data"),
        of("ca.crt"),
        of("c1.crt"),
        of("c1.key"),
    );
    Config::parse(Path::new("fuzz.toml"), &text).expect("a configuration")
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
    if until == Until::Head {
        return answer;
    }
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
