//! A channel over real sockets: that it works, and that each way of failing has its own words.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hostler_common::rpc::operations::v1::ListHypervisorsRequest;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_pki::{
    About, ChannelOptions, CoordinatorAddress, Credentials, Revocations, TlsFiles, Trouble, channel,
    client_config, connect, explain, server_config,
};
use support::{ADMIN, AGENT, COORDINATOR, DEADLINE, Fleet, words};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::server::Connected;

/// A coordinator without any service: every call it lets in is UNIMPLEMENTED.
async fn serve(credentials: &Credentials) -> CoordinatorAddress {
    let acceptor = TlsAcceptor::from(server_config(credentials, Revocations::none()).unwrap());
    let (listener, address) = listen().await;
    let (accepted, incoming) = tokio::sync::mpsc::channel::<io::Result<Socket>>(8);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(tcp).await {
                let _ = accepted.send(Ok(Socket(stream))).await;
            }
        }
    });
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(Routes::default())
            .serve_with_incoming(incoming),
    );
    address
}

async fn listen() -> (TcpListener, CoordinatorAddress) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, address)
}

/// Answers one connection with `bytes` and closes it.
async fn answer(bytes: &'static [u8]) -> CoordinatorAddress {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await?;
        let _ = tcp.read(&mut [0; 1024]).await?;
        tcp.write_all(bytes).await?;
        tcp.shutdown().await
    });
    address
}

async fn refusal(address: &CoordinatorAddress, credentials: &Credentials) -> String {
    let config = client_config(credentials).unwrap();
    let connecting = connect(address, config, ChannelOptions::default());
    let result = tokio::time::timeout(DEADLINE, connecting)
        .await
        .expect("connect hangs");
    words(&result.expect_err("it connected"))
}

/// What is said of a call over a lazy channel.
async fn explained(address: &CoordinatorAddress, credentials: &Credentials) -> (Code, Option<Trouble>) {
    let lazy = channel(
        address,
        client_config(credentials).unwrap(),
        ChannelOptions::default(),
    );
    let mut client = OperationsServiceClient::new(lazy);
    let call = client.list_hypervisors(ListHypervisorsRequest {});
    let status = tokio::time::timeout(DEADLINE, call)
        .await
        .expect("the call hangs")
        .unwrap_err();
    (status.code(), explain(&status))
}

#[tokio::test]
async fn a_call_reaches_the_coordinator_over_either_channel() {
    let fleet = Fleet::new();
    let address = serve(&fleet.credentials(COORDINATOR)).await;
    let admin = fleet.credentials(ADMIN);
    let ready = connect(
        &address,
        client_config(&admin).unwrap(),
        ChannelOptions::default(),
    )
    .await
    .unwrap();
    let mut client = OperationsServiceClient::new(ready);
    for _ in 0..2 {
        let status = client
            .list_hypervisors(ListHypervisorsRequest {})
            .await
            .unwrap_err();
        assert_eq!((status.code(), explain(&status)), (Code::Unimplemented, None));
    }
    assert_eq!(explained(&address, &admin).await, (Code::Unimplemented, None));
}

#[tokio::test]
async fn a_refused_certificate_is_told_apart_from_a_broken_network() {
    let (ours, theirs) = (Fleet::new(), Fleet::new());
    let address = serve(&ours.credentials(COORDINATOR)).await;
    // A caller that trusts both CAs, with a certificate that the coordinator does not.
    let both = theirs.path().join("both.crt");
    let read = |fleet: &Fleet| std::fs::read_to_string(fleet.path().join("ca.crt")).unwrap();
    std::fs::write(&both, read(&ours) + &read(&theirs)).unwrap();
    let files = TlsFiles {
        ca: both,
        ..theirs.issue(AGENT)
    };
    let stranger = Credentials::load(&files).unwrap();
    let says = "the coordinator refused our certificate: it is not signed by the coordinator's CA";
    let refused = refusal(&address, &stranger).await;
    assert!(refused.starts_with(says), "{refused}");
    let (code, explained) = explained(&address, &stranger).await;
    assert_eq!(code, Code::Unavailable);
    let explained = explained.unwrap();
    assert!(explained.words.starts_with(says), "{explained:?}");
    assert_eq!(explained.about, About::Certificate);
}

#[tokio::test]
async fn a_server_that_is_not_our_coordinator_is_named_with_the_reason() {
    let fleet = Fleet::new();
    let admin = fleet.credentials(ADMIN);
    let elsewhere = serve(&Fleet::new().credentials(COORDINATOR)).await;
    let refused = refusal(&elsewhere, &admin).await;
    assert!(refused.contains(&elsewhere.to_string()), "{refused}");
    assert!(
        refused.contains("it is not signed by the CA that is trusted here"),
        "{refused}"
    );
    let (code, explained) = explained(&elsewhere, &admin).await;
    let explained = explained.unwrap();
    assert_eq!((code, explained.words), (Code::Unavailable, refused));
    assert_eq!(explained.about, About::Certificate);
}

#[tokio::test]
async fn each_trouble_on_the_way_has_its_own_words() {
    let fleet = Fleet::new();
    let admin = fleet.credentials(ADMIN);
    let (listener, closed) = listen().await;
    drop(listener);
    // No DNS label may have 64 characters, so no resolver is asked.
    let nowhere: CoordinatorAddress = format!("{}.example.org", "x".repeat(64)).parse().unwrap();
    for (address, says) in [
        (closed, "nothing listens on"),
        (nowhere, "cannot find"),
        (
            answer(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
            "TLS handshake with",
        ),
        (answer(b"").await, "closed the connection"),
    ] {
        let refused = refusal(&address, &admin).await;
        assert!(refused.contains(says) && refused.contains("check"), "{refused}");
        assert!(refused.contains(&address.to_string()), "{refused}");
    }
}

#[tokio::test]
async fn a_silent_peer_costs_the_connect_timeout_and_no_more() {
    let fleet = Fleet::new();
    let (listener, address) = listen().await;
    let options = ChannelOptions {
        connect_timeout: Duration::from_millis(100),
        ..ChannelOptions::default()
    };
    let config = client_config(&fleet.credentials(ADMIN)).unwrap();
    let error = tokio::time::timeout(DEADLINE, connect(&address, Arc::clone(&config), options))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        words(&error).contains("did not answer within 0.1 s"),
        "{}",
        words(&error)
    );
    let mut client = OperationsServiceClient::new(channel(&address, config, options));
    let call = client.list_hypervisors(ListHypervisorsRequest {});
    let status = tokio::time::timeout(DEADLINE, call).await.unwrap().unwrap_err();
    let explained = explain(&status).unwrap();
    assert!(explained.words.contains("did not answer"), "{explained:?}");
    assert_eq!(explained.about, About::Network);
    drop(listener);
}

#[tokio::test]
async fn a_lazy_channel_connects_once_the_coordinator_is_there() {
    let fleet = Fleet::new();
    let (listener, address) = listen().await;
    drop(listener);
    let lazy = channel(
        &address,
        client_config(&fleet.credentials(ADMIN)).unwrap(),
        ChannelOptions::default(),
    );
    let mut client = OperationsServiceClient::new(lazy);
    let status = client
        .list_hypervisors(ListHypervisorsRequest {})
        .await
        .unwrap_err();
    assert!(
        explain(&status).unwrap().words.contains("nothing listens"),
        "{status:?}"
    );

    let acceptor =
        TlsAcceptor::from(server_config(&fleet.credentials(COORDINATOR), Revocations::none()).unwrap());
    let listener = TcpListener::bind(address.to_string()).await.unwrap();
    let accepting = async {
        let (tcp, _) = listener.accept().await.unwrap();
        acceptor.accept(tcp).await.unwrap()
    };
    let call = client.list_hypervisors(ListHypervisorsRequest {});
    let (stream, status) = tokio::join!(
        async {
            let mut stream = accepting.await;
            // An empty SETTINGS frame, and then the end.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        },
        tokio::time::timeout(DEADLINE, call),
    );
    let status = status.expect("the call hangs").unwrap_err();
    let explained = explain(&status).unwrap();
    assert!(
        explained.words.contains("connection to the coordinator broke"),
        "{explained:?}"
    );
    assert_eq!(explained.about, About::Network);
    drop(stream);
}

#[test]
fn what_the_coordinator_itself_answered_needs_no_explanation() {
    for code in [Code::Unavailable, Code::Unknown, Code::PermissionDenied] {
        assert_eq!(explain(&tonic::Status::new(code, "no")), None);
    }
}

/// A TLS stream that tonic serves.
struct Socket(TlsStream<TcpStream>);

impl Connected for Socket {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
