//! The port at which hosts enrol: TLS without a client certificate, one rpc, and little of everything.
//!
//! Nothing else is served here, health and reflection included. The invariant: what strangers can make the coordinator
//! hold is bounded over all and for each address, so that a silent or slow one keeps nobody else out for long.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hostler_common::retry::Waits;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_server::EnrolServiceServer;
use hostler_common::throttle::Throttle;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::enrolment::{Caller, Enrolment};
use super::guessing::neighbourhood;
use super::own::Own;

/// Connections at once, at some 60 KiB each.
const CONNECTIONS_AT_MOST: usize = 256;

/// Connections at once of one address: a rollout behind one router, ten hosts at a time, with room.
const PER_ADDRESS_AT_MOST: usize = 32;

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

/// Refused connections that are logged; anybody can cause them.
static REFUSALS: Throttle = Throttle::new(20, Duration::from_secs(10));

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One place, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    of: IpAddr,
}

impl Places {
    fn take(&self, of: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.entry(of).or_default();
        if all >= CONNECTIONS_AT_MOST || *own >= PER_ADDRESS_AT_MOST {
            if *own == 0 {
                taken.remove(&of);
            }
            return None;
        }
        *own += 1;
        Some(Place {
            places: self.clone(),
            of,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

/// A connection of somebody who is not known.
#[derive(Debug)]
struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    over: Pin<Box<Sleep>>,
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
    let accepting = accept(listener, own, ready, tasks.clone(), shutdown.clone());
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
    ready: mpsc::Sender<io::Result<Connection>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let places = Places::default();
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
            refused(&address, "too many connections at the port for enrolment");
            continue;
        };
        let (acceptor, ready) = (TlsAcceptor::from(own.now().enrol_tls()), ready.clone());
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(async move {
            // Small messages are answered at once; without it they only are later.
            let _ = tcp.set_nodelay(true);
            let shaking = tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(tcp));
            match shaking.await {
                Ok(Ok(stream)) => {
                    let connection = Connection {
                        stream,
                        caller: Caller { address },
                        over: Box::pin(tokio::time::sleep_until(Instant::now() + CONNECTION_PATIENCE)),
                        _place: place,
                    };
                    drop(ready.send(Ok(connection)).await);
                }
                Ok(Err(error)) => refused(&address, &hostler_pki::explain_failed_handshake(&error)),
                Err(_late) => refused(&address, "no complete TLS handshake in time"),
            }
        }));
    }
}

fn refused(peer: &std::net::SocketAddr, why: &str) {
    if let Some(held_back) = REFUSALS.pass() {
        tracing::warn!(%peer, why, held_back, "connection for enrolment refused");
    }
}

impl Connection {
    /// Asked on every way in and out: who neither reads nor writes is as silent as who does not come.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.over.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a connection for enrolment lasts seconds",
            )),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_its_places_and_no_more_and_all_together_take_all() {
        let places = Places::default();
        let of = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mine: Vec<_> = (0..100).filter_map(|_| places.take(of(1))).collect();
        assert_eq!(mine.len(), PER_ADDRESS_AT_MOST);
        let theirs: Vec<_> = (2..200)
            .flat_map(|last| (0..3).map(move |_| last))
            .filter_map(|last| places.take(of(last)))
            .collect();
        assert_eq!(mine.len() + theirs.len(), CONNECTIONS_AT_MOST);
        drop(theirs);
        assert!(places.take(of(2)).is_some());
        drop(mine);
        assert!(
            places.0.lock().unwrap().is_empty(),
            "nothing is remembered of who has gone"
        );
    }
}
