//! The TCP listener and its TLS: every connection that leaves here has a verified identity. rustls refuses
//! the others inside the handshake, before a byte of a request is read. A connection ends with the life of the
//! certificate that opened it, or of the newer one that its agent was given, and at once when that is revoked or its CA
//! is dropped.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hostler_common::retry::Waits;
use hostler_pki::{Identity, PeerError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::server::Connected;

use super::rejected::{Rejected, note, refused};
use super::watchman::Watchman;
use crate::audit::Audit;
use crate::identity::connections::{Connections, Life};
use crate::identity::guessing::neighbourhood;
use crate::identity::known::{CertificateRecord, Known};
use crate::identity::own::Own;
use crate::identity::places::{Place, Places, Room};
use crate::identity::revocation::RevocationList;

/// Handshakes at once, at some 20 KiB each. Two cores do thousands a second, so that this many are only there when a whole fleet
/// comes back, which may be behind one address, or when somebody opens connections and stays silent.
const HANDSHAKES: Room = Room {
    at_most: 1024,
    per_address: 1024,
    silent_for: Duration::from_secs(1),
    shakes_for: Duration::from_secs(4),
};

/// Connections that wait for one of these places, at some 2 KiB each. Without them, whoever waits would keep those of other
/// addresses out, for whom somebody gives way.
const WAITING_AT_MOST: usize = 4096;

/// How long a handshake may take: two round trips and 4 KiB, even at 64 kbit/s and with losses.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// Connections that wait for the server to take them; it takes them at once.
const READY_BOUND: usize = 64;

/// Questions whether the loop turns: one asks, and asks again when it gave up waiting.
const QUESTIONS_BOUND: usize = 2;

/// Who is at the other end of a connection. Every request carries it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// From its certificate.
    pub identity: Identity,
    /// Where it comes from.
    pub address: SocketAddr,
    /// How long its connection may last.
    pub life: Life,
}

impl Peer {
    /// The peer of a request.
    ///
    /// # Errors
    /// UNAUTHENTICATED when there is none, which the listener never lets happen.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        request
            .extensions()
            .get()
            .ok_or_else(|| Status::unauthenticated("no client certificate"))
    }
}

/// A connection with a verified identity, for as long as its certificate is valid.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    watchman: Watchman,
}

/// What every handshake needs of the coordinator.
#[derive(Debug, Clone)]
pub struct Port {
    /// The newest certificate and CAs.
    pub own: Own,
    /// Who is revoked.
    pub revocations: RevocationList,
    /// Where connections are noted.
    pub connections: Connections,
    /// Where certificates are noted.
    pub known: Known,
    /// Notes who is refused.
    pub audit: Audit,
}

/// Asks the loop that accepts connections whether it turns.
#[derive(Debug, Clone)]
pub struct Accepting(mpsc::Sender<oneshot::Sender<()>>);

impl Accepting {
    /// Returns once the loop has come round: it is not stuck. Never, when it has ended.
    pub async fn turned(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.send(answer).await.is_err() || answered.await.is_err() {
            std::future::pending().await
        }
    }
}

/// Accepts and shakes hands until `shutdown`; yields what passed, and a way to ask whether it still accepts.
pub fn spawn(
    listener: TcpListener,
    port: Port,
    tasks: &TaskTracker,
    shutdown: CancellationToken,
) -> (mpsc::Receiver<io::Result<Connection>>, Accepting) {
    let (ready, connections) = mpsc::channel(READY_BOUND);
    let (questions, asked) = mpsc::channel(QUESTIONS_BOUND);
    let accepting = accept(listener, asked, port, ready, tasks.clone(), shutdown.clone());
    tasks.spawn(shutdown.run_until_cancelled_owned(accepting));
    (connections, Accepting(questions))
}

async fn accept(
    listener: TcpListener,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
    port: Port,
    ready: mpsc::Sender<io::Result<Connection>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let places = Places::new(HANDSHAKES);
    let waiting = Arc::new(Semaphore::new(WAITING_AT_MOST));
    let mut waits = Waits::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        // Cancel-safe: a listener keeps who waits, a channel its questions.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(answer) = asked.recv() => {
                // Who asked may have stopped waiting.
                let _ = answer.send(());
                continue;
            }
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, say. Those that live go on; the kernel keeps who waits.
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(waits.next_wait()).await;
                continue;
            }
        };
        waits.reset();
        let of = neighbourhood(address.ip());
        let place = match (places.take(of), waiting.clone().try_acquire_owned()) {
            (Some(place), _) => Turn::Now(place),
            (None, Ok(permit)) => Turn::Waits(permit),
            (None, Err(_)) => {
                refused(address, &Rejected::Crowded);
                continue;
            }
        };
        let (port, ready, places) = (port.clone(), ready.clone(), places.clone());
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(async move {
            match enter(&port, tcp, address, place.come(&places, of)).await {
                Ok((connection, certificate, place)) => {
                    drop(ready.send(Ok(connection)).await);
                    drop(place);
                    // Nobody waits for the disk to be connected.
                    port.known.met(certificate).await;
                }
                Err(rejected) => {
                    note(&port.audit, address, &rejected);
                    refused(address, &rejected);
                }
            }
        }));
    }
}

/// Whether there is a place, or has to be waited for.
enum Turn {
    Now(Place),
    Waits(OwnedSemaphorePermit),
}

impl Turn {
    async fn come(self, places: &Places, of: IpAddr) -> Place {
        match self {
            Self::Now(place) => place,
            Self::Waits(_permit) => places.wait(of).await,
        }
    }
}

/// Shakes hands in the place that comes.
async fn enter(
    port: &Port,
    tcp: TcpStream,
    address: SocketAddr,
    coming: impl Future<Output = Place>,
) -> Result<(Connection, CertificateRecord, Place), Rejected> {
    let place = tokio::time::timeout(HANDSHAKE_PATIENCE, coming)
        .await
        .map_err(|_| Rejected::Crowded)?;
    let (connection, certificate) = shake_hands(port, tcp, address, &place).await?;
    Ok((connection, certificate, place))
}

async fn shake_hands(
    port: &Port,
    tcp: TcpStream,
    address: SocketAddr,
    place: &Place,
) -> Result<(Connection, CertificateRecord), Rejected> {
    // Small messages are answered at once.
    tcp.set_nodelay(true).map_err(Rejected::Socket)?;
    let own = port.own.now();
    let shaking = hostler_pki::accept(own.tls(), tcp, || place.shakes());
    // Cancel-safe: what is not chosen is a connection that ends.
    let stream = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_PATIENCE, shaking) => shaken
            .map_err(|_| Rejected::Late)?
            .map_err(Rejected::Handshake)?,
        () = place.gives_way() => return Err(Rejected::MadeWay),
    };
    let certificate =
        hostler_pki::peer_certificate(stream.get_ref().1, own.trusted()).map_err(Rejected::Certificate)?;
    let life = port.connections.enter(&certificate, address);
    // Whoever dropped its root, or revoked it, while the hands were shaken did not see this connection in the list.
    let revocations = &port.revocations;
    let identity = certificate.identity;
    if !port.own.now().trusts(certificate.root) {
        let identity = Box::new(identity);
        return Err(Rejected::Certificate(PeerError::NotTrusted { identity }));
    }
    if let Some(at) = revocations.revoked(&identity.subject, certificate.not_before) {
        let identity = Box::new(identity);
        return Err(Rejected::Revoked { identity, at });
    }
    let met = CertificateRecord {
        identity: identity.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        root: certificate.root,
    };
    let connection = Connection {
        stream,
        watchman: Watchman::over(life.clone()),
        peer: Peer {
            identity,
            address,
            life,
        },
    };
    Ok((connection, met))
}

impl Connection {
    /// An error once the certificate has expired or the connection was cut. Asked on every way in and out, since a peer that does not read
    /// keeps HTTP/2 from reading as well.
    fn check_life(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.watchman.poll_over(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_life(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_life(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_life(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that reads nothing keeps the last bytes from leaving.
        self.check_life(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
