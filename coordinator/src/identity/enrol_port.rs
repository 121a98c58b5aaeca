//! The port at which hosts enrol: TLS without a client certificate, one rpc, and little of everything.
//!
//! Nothing else is served here, health and reflection included. The invariant: what strangers can make the coordinator
//! hold is bounded over all and for each address (`places.rs`), and each of them for seconds.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::retry::Waits;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_server::EnrolServiceServer;
use hostler_common::throttle::Throttle;
use hostler_pki::HandshakeError;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::Code;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::enrolment::{Caller, Enrolment};
use super::guessing::neighbourhood;
use super::own::Own;
use super::places::{Place, Places, Room};
use crate::audit::{Audit, Entry, Event};

/// How long a handshake may take, also at 64 kbit/s.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may last: one call takes well under a second.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(20);

/// How long a call may take: the store's disk may be slow.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// The largest message that is read, in bytes: a token, a request, and names.
const MESSAGE_AT_MOST: usize = 16 * 1024;

/// The largest headers that are read, in bytes.
const HEADERS_AT_MOST: u32 = 8 * 1024;

/// Calls at once on one connection. A host makes one.
const STREAMS_AT_MOST: u32 = 4;

/// Connections that wait for the server to take them; it takes them at once.
const READY_BOUND: usize = 16;

/// Connections at once, at some 60 KiB each; of one address, a rollout behind one router, ten hosts at a time, with room. Whoever
/// means it says hello with its first packet.
const ROOM: Room = Room {
    at_most: 256,
    per_address: 32,
    silent_for: Duration::ZERO,
    shakes_for: Duration::from_secs(1),
};

/// Refused connections that are logged; anybody can cause them.
static REFUSALS: Throttle = Throttle::new(20, Duration::from_secs(10));

/// A connection of somebody who is not known.
#[derive(Debug)]
struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    over: Pin<Box<Sleep>>,
    gives_way: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

/// Serves `enrolment` on `listener` until `shutdown`, then until the calls have ended.
///
/// # Errors
/// When the transport fails as a whole.
pub async fn run(
    listener: TcpListener,
    own: Own,
    enrolment: Enrolment,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (ready, connections) = mpsc::channel(READY_BOUND);
    let audit = enrolment.audit().clone();
    let accepting = accept(listener, own, audit, ready, tasks.clone(), shutdown.clone());
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(accepting));
    Server::builder()
        .timeout(CALL_PATIENCE)
        .max_concurrent_streams(STREAMS_AT_MOST)
        .http2_max_header_list_size(HEADERS_AT_MOST)
        .initial_connection_window_size(4 * MESSAGE_AT_MOST as u32)
        .initial_stream_window_size(MESSAGE_AT_MOST as u32)
        .add_service(EnrolServiceServer::new(enrolment).max_decoding_message_size(MESSAGE_AT_MOST))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), shutdown.cancelled_owned())
        .await?;
    Ok(())
}

async fn accept(
    listener: TcpListener,
    own: Own,
    audit: Audit,
    ready: mpsc::Sender<io::Result<Connection>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let places = Places::new(ROOM);
    let mut waits = Waits::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections of hosts that enrol");
                tokio::time::sleep(waits.next_wait()).await;
                continue;
            }
        };
        waits.reset();
        let Some(place) = places.take(neighbourhood(address.ip())) else {
            refused(&address, &Unshaken::Crowded);
            continue;
        };
        let (own, ready, audit) = (own.clone(), ready.clone(), audit.clone());
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(async move {
            match shake(tcp, address, &own, place).await {
                Ok(connection) => drop(ready.send(Ok(connection)).await),
                Err(why) => {
                    note(&audit, address, &why);
                    refused(&address, &why);
                }
            }
        }));
    }
}

/// Why a connection did not come to be.
#[derive(Debug, Error)]
enum Unshaken {
    #[error("too many connections at the port for enrolment")]
    Crowded,
    #[error("no complete TLS handshake within {} s", HANDSHAKE_PATIENCE.as_secs())]
    Late,
    #[error("it made way for others before its TLS handshake")]
    MadeWay,
    #[error("the TLS handshake at the port for enrolment failed")]
    Handshake(#[source] HandshakeError),
}

/// The connection, once it is one.
///
/// # Errors
/// Why it is none.
async fn shake(tcp: TcpStream, address: SocketAddr, own: &Own, place: Place) -> Result<Connection, Unshaken> {
    // Small messages are answered at once; without it they only are later.
    let _ = tcp.set_nodelay(true);
    let shaking = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        place.shakes();
        hello.into_stream(own.now().enrol_tls()).await
    };
    // Cancel-safe: what is not chosen is a connection that ends.
    let stream = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_PATIENCE, shaking) => shaken
            .map_err(|_| Unshaken::Late)?
            .map_err(|error: io::Error| Unshaken::Handshake(error.into()))?,
        () = place.gives_way() => return Err(Unshaken::MadeWay),
    };
    place.idles();
    Ok(Connection {
        stream,
        caller: Caller::with(address, place.seat()),
        over: Box::pin(tokio::time::sleep_until(Instant::now() + CONNECTION_PATIENCE)),
        gives_way: Box::pin(place.gives_way()),
        _place: place,
    })
}

/// Who is refused is in the audit log; who goes away or stays silent is not.
fn note(audit: &Audit, address: SocketAddr, why: &Unshaken) {
    if matches!(why, Unshaken::Handshake(error) if error.is_refusal()) {
        let why = Chain(why).to_string();
        let entry = Entry::refused(Event::Handshake, "", address, Code::Unauthenticated, &why);
        audit.note(&entry);
    }
}

fn refused(peer: &SocketAddr, why: &Unshaken) {
    if let Some(held_back) = REFUSALS.pass() {
        tracing::warn!(%peer, why = %Chain(why), held_back, "connection for enrolment refused");
    }
}

impl Connection {
    /// Asked on every way in and out: who neither reads nor writes is as silent as who does not come.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let ended = |why| Err(io::Error::new(io::ErrorKind::TimedOut, why));
        if self.over.as_mut().poll(cx).is_ready() {
            return ended("a connection for enrolment lasts seconds");
        }
        if self.gives_way.as_mut().poll(cx).is_ready() {
            return ended("a connection that asks for nothing makes way for others");
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A caller that reads nothing keeps the last bytes from leaving, and would keep its place.
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
