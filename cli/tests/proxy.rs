//! The proxy as a process, in front of a coordinator that plays fixed parts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hostler_common::rpc::hostler::fleet::v1::ListOperationsRequest;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::rpc::operations::v1::CreateHypervisorRequest;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Pki, play, report, run};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What an HTTP/2 client says first: the preface and empty settings (RFC 9113, 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// A ping, and the beginning of its answer (RFC 9113, 6.7).
const PING: &[u8] = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00hostler!";
const PONG: &[u8] = b"\x00\x00\x08\x06\x01\x00\x00\x00\x00hostler!";

/// A running proxy. Ends with the test.
struct Proxy {
    child: Child,
    /// Its first line.
    ready: String,
}

impl Proxy {
    fn start(pki: &Pki, coordinator: &str, arguments: &[&str]) -> Self {
        let mut all = vec!["proxy"];
        all.extend(arguments);
        let mut command = pki.hostler(coordinator, &all);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut ready)
            .unwrap();
        Self { child, ready }
    }

    fn address(&self) -> String {
        let (_, rest) = self
            .ready
            .split_once("listening on ")
            .unwrap_or_else(|| panic!("{}", self.ready));
        rest.split_once(',').unwrap().0.to_owned()
    }

    /// Asks it to end and waits; how it ended, how long it took, what it logged.
    fn end(mut self) -> (ExitStatus, Duration, String) {
        let asked = Instant::now();
        kill(
            Pid::from_raw(self.child.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        let status = self.child.wait().unwrap();
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        (status, asked.elapsed(), log)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Already ended, in a test that went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_calls_and_streams_reach_the_coordinator() {
    let pki = Pki::new();
    let (coordinator, asked) = play(&pki).await;
    let proxy = Proxy::start(&pki, &coordinator, &["--listen", "127.0.0.1:0"]);
    assert!(
        proxy
            .ready
            .contains("as spiffe://example.org/client/operator/alice"),
        "{}",
        proxy.ready
    );
    let address = format!("http://{}", proxy.address());

    let mut fleet = FleetServiceClient::connect(address.clone()).await.unwrap();
    let page = fleet
        .list_operations(ListOperationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.operations.len(), 1);

    let mut operations = OperationsServiceClient::connect(address).await.unwrap();
    let request = CreateHypervisorRequest { id: "good".into() };
    let mut stream = operations.create_hypervisor(request).await.unwrap().into_inner();
    let mut messages = 0;
    while let Some(message) = stream.message().await.unwrap() {
        assert!(!message.msg.is_empty());
        messages += 1;
    }
    assert_eq!(messages, 3);
    assert_eq!(asked.lock().unwrap().creates, ["good"]);

    drop((fleet, operations, stream));
    let (status, _, log) = proxy.end();
    assert!(status.success(), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_file_serves_its_owner_and_pings_pass_from_end_to_end() {
    let pki = Pki::new();
    let (coordinator, _) = play(&pki).await;
    let path = pki.file("proxy.sock");
    let proxy = Proxy::start(
        &pki,
        &coordinator,
        &["--listen", &format!("unix:{}", path.display())],
    );
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    for _ in 0..2 {
        pinged(&mut client).await;
    }
    // A second proxy does not take the place of the first.
    let listen = format!("unix:{}", path.display());
    let second = run(pki.hostler(&coordinator, &["proxy", "--listen", &listen])).await;
    assert_eq!(second.status.code(), Some(1), "{}", report(&second));
    assert!(
        report(&second).contains("another process listens on"),
        "{}",
        report(&second)
    );

    // An open connection does not keep it.
    let (status, took, log) = tokio::task::block_in_place(|| proxy.end());
    assert!(
        status.success() && took < Duration::from_secs(8),
        "{took:?} {log}"
    );
    assert!(!path.exists(), "the socket file stayed");
}

/// Sends a ping and reads until its answer.
async fn pinged(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    client.write_all(PING).await.unwrap();
    let mut heard = Vec::new();
    let answered = async {
        while !heard.windows(PONG.len()).any(|window| window == PONG) {
            assert_ne!(
                client.read_buf(&mut heard).await.unwrap(),
                0,
                "closed after {heard:?}"
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_coordinator_the_client_sees_an_end_and_the_log_says_why() {
    let pki = Pki::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let proxy = Proxy::start(&pki, &free, &["--listen", "127.0.0.1:0"]);
    let mut client = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert!(heard.is_empty());
    drop(client);
    let (status, _, log) = proxy.end();
    assert!(status.success());
    let lines: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        lines.len() == 1 && lines[0].contains("refused") && lines[0].contains(&free),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn that_every_place_is_taken_is_logged_once() {
    let pki = Pki::new();
    // Takes connections and says nothing, so that every tunnel stays where it is.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let coordinator = silent.local_addr().unwrap().to_string();
    let mut proxy = Proxy::start(&pki, &coordinator, &["--listen", "127.0.0.1:0"]);
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(tokio::net::TcpStream::connect(proxy.address()).await.unwrap());
    }
    let mut log = BufReader::new(proxy.child.stderr.take().unwrap());
    let told = tokio::task::block_in_place(|| {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        line
    });
    assert!(
        told.contains("every place is taken") && told.contains("connections=256"),
        "{told}"
    );
    // The places go to those who wait, which takes every place again: no second line.
    drop(clients);
    kill(
        Pid::from_raw(proxy.child.id().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    let rest = tokio::task::block_in_place(|| {
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        rest
    });
    assert!(!rest.contains("every place is taken"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_serves_from_the_next_connection_on() {
    let pki = Pki::new();
    let (coordinator, _) = play(&pki).await;
    let proxy = Proxy::start(&pki, &coordinator, &["--listen", "127.0.0.1:0"]);
    let foreign = Pki::new();
    for name in ["ca.crt", "operator.crt", "operator.key"] {
        std::fs::copy(foreign.file(name), pki.file(name)).unwrap();
    }
    let mut client = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert!(heard.is_empty(), "the new certificates are of another CA");
    let (_, _, log) = proxy.end();
    assert!(log.contains("certificate"), "{log}");
}
