//! A coordinator that plays fixed parts, over real mutual TLS, and the real program against it.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fleet;
pub(crate) mod locks;
pub(crate) mod site;
mod storage;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetServiceServer;
use hostler_common::rpc::hostler::site::v1::site_service_server::SiteServiceServer;
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;
use hostler_common::rpc::operations::v1::operations_service_server::{
    OperationsService, OperationsServiceServer,
};
use hostler_common::rpc::operations::v1::{self as operations, OperationState};
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, DEFAULT_LEAF_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use hostler_pki::{Credentials, TlsFiles, server_config};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// The operation of every single request.
pub(crate) const ID: &str = "019aa111-2222-7333-8444-555566667777";
/// The second operation of a bulk request.
pub(crate) const OTHER: &str = "019aa111-2222-7333-8444-888899990000";
/// Cancelled, it cannot be undone.
pub(crate) const HALF: &str = "019aa111-2222-7333-8444-aaaabbbbcccc";
/// It cannot be cancelled.
pub(crate) const FIRM: &str = "019aa111-2222-7333-8444-ddddeeeeffff";

/// A folder with certificates of one CA.
pub(crate) struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        let authority = Authority::init(dir.path(), domain, DEFAULT_CA_LIFETIME).unwrap();
        let subjects = [
            ("coordinator", "coordinator/main"),
            ("operator", "client/operator/alice"),
            ("agent", "agent/node1"),
        ];
        for (stem, path) in subjects {
            let identity = format!("spiffe://example.org/{path}").parse().unwrap();
            let options = IssueOptions {
                lifetime: DEFAULT_LEAF_LIFETIME,
                ..IssueOptions::default()
            };
            authority
                .issue(&identity, &options)
                .unwrap()
                .write(dir.path(), stem, Existing::Keep)
                .unwrap();
        }
        Self { dir }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn server(&self) -> TlsAcceptor {
        let files = TlsFiles {
            ca: self.file("ca.crt"),
            certificate: self.file("coordinator.crt"),
            key: self.file("coordinator.key"),
        };
        TlsAcceptor::from(
            server_config(
                &Credentials::load(&files).unwrap(),
                hostler_pki::Revocations::none(),
            )
            .unwrap(),
        )
    }

    /// The program, with the operator's certificate and nothing from this environment.
    #[allow(clippy::disallowed_methods, reason = "a test starts the program under test")]
    pub(crate) fn hostler(&self, coordinator: &str, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command
            .env("HOSTLER_COORDINATOR", coordinator)
            .env("HOSTLER_CA", self.file("ca.crt"))
            .env("HOSTLER_CERT", self.file("operator.crt"))
            .env("HOSTLER_KEY", self.file("operator.key"));
        command
    }
}

/// The program without any setting.
#[allow(clippy::disallowed_methods, reason = "a test starts the program under test")]
pub(crate) fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(std::process::Stdio::null());
    command
}

/// The same on a terminal of its own, made by util-linux' script(1); both streams come out as one.
#[allow(clippy::disallowed_methods, reason = "a test starts the program under test")]
pub(crate) fn on_a_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words
        .map(|word| word.to_str().unwrap())
        .collect::<Vec<_>>()
        .join(" ");
    let mut script = Command::new("/usr/bin/script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env_clear()
        .env("TERM", "xterm");
    script.env("SHELL", "/bin/sh").stdin(std::process::Stdio::null());
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap());
    }
    script
}

/// The same on a terminal on which a person types an answer.
pub(crate) fn answering(command: &Command, answer: &str) -> Command {
    let mut script = on_a_terminal(command);
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, answer.as_bytes()).unwrap();
    script.stdin(reader);
    script
}

/// What a run printed, with its exit code.
pub(crate) fn report(output: &Output) -> String {
    format!(
        "exit {}\n--- stdout\n{}--- stderr\n{}",
        output
            .status
            .code()
            .map_or("by signal".into(), |code| code.to_string()),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs it off the runtime's threads.
pub(crate) async fn run(mut command: Command) -> Output {
    tokio::task::block_in_place(move || command.output().unwrap())
}

/// What the coordinator was asked.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) creates: Vec<String>,
    pub(crate) reasons: Vec<String>,
    pub(crate) watches: usize,
    pub(crate) pages: Vec<u32>,
    /// Requests about pools and backups, as Debug prints them.
    pub(crate) of_pools: Vec<String>,
    /// Requests about the site that change something, and about the audit log, as Debug prints them.
    pub(crate) of_site: Vec<String>,
    /// Operations that were to stop, and why.
    pub(crate) cancels: Vec<(String, String)>,
    /// Whether what has not ended is locks.
    pub(crate) locks: bool,
    /// Proposals, and why.
    pub(crate) proposals: Vec<(ProposeOperationRequest, String)>,
}

/// Plays a coordinator on a free port; its address.
pub(crate) async fn play(pki: &Pki) -> (String, Arc<Mutex<Asked>>) {
    let asked = Arc::new(Mutex::new(Asked::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = pki.server();
    let (connections, incoming) = tokio::sync::mpsc::channel::<std::io::Result<DuplexStream>>(8);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, connections) = (acceptor.clone(), connections.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let (mut near, far) = tokio::io::duplex(64 << 10);
                if connections.send(Ok(far)).await.is_ok() {
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut near).await;
                }
            });
        }
    });
    let player = Player(Arc::clone(&asked));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(OperationsServiceServer::new(player.clone()))
            .add_service(FleetServiceServer::new(player.clone()))
            .add_service(SiteServiceServer::new(player))
            .serve_with_incoming(ReceiverStream::new(incoming)),
    );
    (address, asked)
}

#[derive(Clone)]
struct Player(Arc<Mutex<Asked>>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Line = Result<(OperationState, String), Status>;

fn say(state: OperationState, message: impl Into<String>) -> Line {
    Ok((state, message.into()))
}

/// The parts, by the hypervisor's name.
fn part(id: &str) -> Vec<Line> {
    use OperationState::{Active, Completed, Failed, Scheduled};
    let scheduled = || {
        say(
            Scheduled,
            format!("operation {ID}: create {id} on host node1: scheduled"),
        )
    };
    match id {
        "bad" => vec![
            scheduled(),
            say(Failed, "step 'start' failed: no disk\x1b[2J; undone: define"),
        ],
        "breaks" => vec![
            scheduled(),
            say(Active, "define domain"),
            Err(Status::unavailable("the coordinator is ending")),
        ],
        "waits" => vec![scheduled()],
        _ => vec![
            scheduled(),
            say(Active, "define domain"),
            say(Completed, "in service"),
        ],
    }
}

/// The lines, then the end; a part that has none goes on for ever.
fn stream<T: Send + 'static>(lines: Vec<Line>, make: fn(OperationState, String) -> T) -> Responses<T> {
    let ends = lines.iter().any(|line| {
        matches!(
            line,
            Err(_) | Ok((OperationState::Completed | OperationState::Failed, _))
        )
    });
    let lines = tokio_stream::iter(lines).map(move |line| line.map(|(state, message)| make(state, message)));
    if ends {
        Box::pin(lines)
    } else {
        Box::pin(lines.chain(tokio_stream::pending()))
    }
}

#[tonic::async_trait]
impl OperationsService for Player {
    type CreateHypervisorStream = Responses<operations::CreateHypervisorResponse>;
    type CreateHypervisorsStream = Responses<operations::CreateHypervisorsResponse>;
    type DestroyHypervisorStream = Responses<operations::DestroyHypervisorResponse>;
    type DestroyHypervisorsStream = Responses<operations::DestroyHypervisorsResponse>;
    type ExpandStorageStream = Responses<operations::ExpandStorageResponse>;
    type ShrinkStorageStream = Responses<operations::ShrinkStorageResponse>;
    type CreateBackupStream = Responses<operations::CreateBackupResponse>;

    async fn list_hypervisors(
        &self,
        _: Request<operations::ListHypervisorsRequest>,
    ) -> Result<Response<operations::ListHypervisorsResponse>, Status> {
        Ok(Response::new(operations::ListHypervisorsResponse::default()))
    }

    async fn create_hypervisor(
        &self,
        request: Request<operations::CreateHypervisorRequest>,
    ) -> Result<Response<Self::CreateHypervisorStream>, Status> {
        let reason = request
            .metadata()
            .get_bin("hostler-reason-bin")
            .map(|value| value.to_bytes().unwrap());
        let id = request.into_inner().id;
        let mut asked = self.0.lock().unwrap();
        asked.creates.push(id.clone());
        asked
            .reasons
            .extend(reason.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()));
        if id == "malformed" {
            return Err(Status::invalid_argument("the hypervisor id is ill-formed"));
        }
        let lines = part(&id);
        Ok(Response::new(stream(lines, |state, msg| {
            operations::CreateHypervisorResponse {
                state: state.into(),
                msg,
            }
        })))
    }

    async fn create_hypervisors(
        &self,
        request: Request<operations::CreateHypervisorsRequest>,
    ) -> Result<Response<Self::CreateHypervisorsStream>, Status> {
        use OperationState::{Active, Completed, Scheduled};
        let ids = request.into_inner().ids;
        self.0.lock().unwrap().creates.extend(ids.clone());
        let mut lines = vec![say(
            Scheduled,
            format!("create {} hypervisors: {}", ids.len(), ids.join(", ")),
        )];
        for (id, operation) in ids.iter().zip([ID, OTHER]) {
            lines.push(say(
                Scheduled,
                format!("{id}: operation {operation}: create {id} on host node1: scheduled"),
            ));
        }
        if ids.contains(&"breaks".to_owned()) {
            lines.push(say(Active, "breaks: define domain"));
            lines.push(Err(Status::unavailable("the coordinator is ending")));
        } else {
            lines.push(say(Completed, "create: all hypervisors done"));
        }
        Ok(Response::new(stream(lines, |state, msg| {
            operations::CreateHypervisorsResponse {
                state: state.into(),
                msg,
            }
        })))
    }

    async fn destroy_hypervisor(
        &self,
        _: Request<operations::DestroyHypervisorRequest>,
    ) -> Result<Response<Self::DestroyHypervisorStream>, Status> {
        Err(Status::permission_denied("the role operator is needed"))
    }

    async fn destroy_hypervisors(
        &self,
        _: Request<operations::DestroyHypervisorsRequest>,
    ) -> Result<Response<Self::DestroyHypervisorsStream>, Status> {
        Err(Status::permission_denied("the role operator is needed"))
    }

    async fn expand_storage(
        &self,
        _: Request<operations::ExpandStorageRequest>,
    ) -> Result<Response<Self::ExpandStorageStream>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn shrink_storage(
        &self,
        _: Request<operations::ShrinkStorageRequest>,
    ) -> Result<Response<Self::ShrinkStorageStream>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn create_backup(
        &self,
        _: Request<operations::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        Err(Status::unimplemented("not played"))
    }
}

/// Replaces what differs from run to run.
pub(crate) fn steady(text: &str, address: &str, folder: &Path) -> String {
    text.replace(address, "COORDINATOR")
        .replace(&folder.display().to_string(), "DIR")
}
