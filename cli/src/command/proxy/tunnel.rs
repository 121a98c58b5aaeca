//! One connection of the proxy: bytes from a local client to the coordinator and back. It understands none of
//! them. When one side is done, the other is told, and both are closed soon.

use std::io;
use std::pin::pin;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_pki::{ChannelError, ChannelOptions, Credentials, CredentialsError, TlsConfigError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Way;

/// How long the other direction may go on after one has ended: an HTTP/2 peer that has said goodbye has
/// little left to say.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What a client may still send while we hang up. Closing with unread bytes would reset the connection, and
/// the client would see an error of the network instead of an end.
const UNREAD: u64 = 1 << 20;

/// A local client's connection.
pub(super) trait Local: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Local for T {}

/// Why a tunnel did not come to be, or broke. One line each; sources are in it, since it is logged as it is.
#[derive(Debug, Error)]
pub(super) enum TunnelError {
    #[error("{}", Chain(.0))]
    Credentials(#[from] CredentialsError),
    #[error("{}", Chain(.0))]
    Tls(#[from] TlsConfigError),
    #[error("{}", Chain(.0))]
    Connect(#[from] ChannelError),
    #[error("the connection to the coordinator broke: {0}")]
    Broke(io::Error),
}

/// Connects to the coordinator, until it has accepted us.
pub(super) async fn dial(way: &Way) -> Result<TlsStream<TcpStream>, TunnelError> {
    // Read anew each time, so that a renewed certificate serves from the next connection on. These are a few
    // kilobytes of local files; block_in_place keeps even that off the runtime.
    let config = tokio::task::block_in_place(|| {
        let credentials = Credentials::load(&way.tls)?;
        Ok::<_, TunnelError>(hostler_pki::client_config(&credentials)?)
    })?;
    let mut options = ChannelOptions::default();
    if let Some(patience) = way.patience {
        options.connect_timeout = options.connect_timeout.min(patience);
    }
    Ok(hostler_pki::dial(&way.coordinator, config, options).await?)
}

/// Copies both ways until both are done.
pub(super) async fn carry(
    local: impl AsyncRead + AsyncWrite + Unpin,
    remote: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), TunnelError> {
    let (mut from_local, mut to_local) = tokio::io::split(local);
    let (mut from_remote, mut to_remote) = tokio::io::split(remote);
    let mut up = pin!(async {
        let copied = tokio::io::copy(&mut from_local, &mut to_remote).await;
        // The end is passed on; a side that is gone needs no goodbye.
        let _ = to_remote.shutdown().await;
        copied
    });
    let mut down = pin!(async {
        let copied = tokio::io::copy(&mut from_remote, &mut to_local).await;
        let _ = to_local.shutdown().await;
        copied
    });
    let broke = tokio::select! {
        // Not cancelled: the one that is not ready goes on below.
        _ = &mut up => tokio::time::timeout(LAST_WORDS, down).await.ok().and_then(Result::err),
        ended = &mut down => {
            // An HTTP/2 client hangs up when its server has.
            let _ = tokio::time::timeout(LAST_WORDS, up).await;
            ended.err()
        }
    };
    match broke {
        // A client that is gone is no news, and servers end without TLS goodbyes.
        Some(error) if is_an_end(&error) => Ok(()),
        Some(error) => Err(TunnelError::Broke(error)),
        None => Ok(()),
    }
}

fn is_an_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof
    )
}

/// Hangs up on a client that gets no tunnel, so that it sees an end and not a reset.
pub(super) async fn close(local: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized)) {
    if local.shutdown().await.is_err() {
        return;
    }
    let mut rest = local.take(UNREAD);
    // Whether it ends, errs or takes too long: then we are rid of it.
    let _ = tokio::time::timeout(
        Duration::from_secs(1),
        tokio::io::copy(&mut rest, &mut tokio::io::sink()),
    )
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_an_end_passes_on() {
        let (mut client, local) = duplex(16);
        let (remote, mut server) = duplex(16);
        let carrying = tokio::spawn(carry(local, remote));
        client
            .write_all(b"a question longer than the buffer")
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"a question longer than the buffer");
        // The client has ended its half; the answer still arrives.
        server.write_all(b"an answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"an answer");
        carrying.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_coordinator_that_never_answers_an_end_is_left_after_a_while() {
        let (client, local) = duplex(16);
        let (remote, server) = duplex(16);
        let carrying = tokio::spawn(carry(local, remote));
        drop(client);
        carrying.await.unwrap().unwrap();
        drop(server);
    }

    #[tokio::test]
    async fn a_client_without_a_tunnel_sees_an_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut local, _) = listener.accept().await.unwrap();
        client
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let closing = tokio::spawn(async move { close(&mut local).await });
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert!(heard.is_empty());
        drop(client);
        closing.await.unwrap();
    }
}
