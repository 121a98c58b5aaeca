//! The port for enrolment, pressed on by thousands of connections: a host with a token gets in all the same.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hostler_common::rpc::hostler::enrol::v1::EnrolRequest;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_client::EnrolServiceClient;
use hostler_pki::{ChannelOptions, EnrolToken, KeyRequest, connect_to_enrol, enrol_client_config};
use hostler_tests::fleet::Fleet;
use hostler_tests::newcomer::make_token;
use hostler_tests::wait;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// What whoever presses does with a connection, until it is taken from it; then it takes the next.
#[derive(Debug, Clone, Copy)]
enum Press {
    /// Says nothing.
    Silent,
    /// Begins a handshake, and does not go on.
    HalfShaken,
    /// Ends its handshake, and asks for nothing.
    Idle,
}

struct Crowd {
    /// Connections that were taken from it.
    ended: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// `count` connections, spread over the `addresses` first of 127.0.7.0/24.
    fn presses(fleet: &Fleet, token: &EnrolToken, how: Press, count: usize, addresses: usize) -> Self {
        let (at, config) = (
            fleet.enrol_address.unwrap(),
            enrol_client_config(token.ca()).unwrap(),
        );
        let ended = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let from = Ipv4Addr::new(127, 0, 7, u8::try_from(1 + number % addresses).unwrap());
            let (config, ended) = (Arc::clone(&config), Arc::clone(&ended));
            tasks.spawn(async move {
                loop {
                    // What fails is tried again: that is what presses.
                    let _ = press(at, from.into(), how, &config).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
        Self { ended, _tasks: tasks }
    }

    async fn is_at_work(&self) {
        wait::until("the crowd presses", || async {
            (self.ended.load(Ordering::Relaxed) > 500).then_some(())
        })
        .await;
    }
}

async fn connect(at: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(at).await
}

async fn press(at: SocketAddr, from: IpAddr, how: Press, config: &Arc<ClientConfig>) -> std::io::Result<()> {
    let mut tcp = connect(at, from).await?;
    let name = "localhost".try_into().unwrap();
    let mut rest = Vec::new();
    match how {
        Press::Silent => {}
        Press::HalfShaken => {
            let mut hello = Vec::new();
            let mut half = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
            half.write_tls(&mut hello)?;
            tcp.write_all(&hello).await?;
        }
        Press::Idle => {
            let mut tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
            tls.read_to_end(&mut rest).await?;
            return Ok(());
        }
    }
    tcp.read_to_end(&mut rest).await?;
    Ok(())
}

async fn gets_in(fleet: &Fleet, host: &str) {
    let word = make_token(fleet, host).await;
    let token = EnrolToken::parse(&word).unwrap();
    let request = KeyRequest::new().unwrap();
    let options = ChannelOptions {
        connect_timeout: Duration::from_secs(30),
        ..ChannelOptions::default()
    };
    // As `hostler-agent enrol` does: who is turned away comes again.
    let answer = wait::until(&format!("{host} enrols"), || async {
        let channel = connect_to_enrol(&fleet.enrol_at(), token.ca(), options)
            .await
            .ok()?;
        let request = EnrolRequest {
            token: word.clone(),
            csr_der: request.csr_der().to_vec(),
            agent_version: hostler_common::VERSION.to_owned(),
        };
        EnrolServiceClient::new(channel).enrol(request).await.ok()
    })
    .await;
    request.complete(&answer.into_inner().certificate_pem).unwrap();
}

async fn any_token(fleet: &Fleet) -> EnrolToken {
    EnrolToken::parse(&make_token(fleet, "nobody").await).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_thousand_connections_of_one_address_keep_no_host_of_another_out() {
    let fleet = Fleet::start().await;
    let token = any_token(&fleet).await;
    for how in [Press::Silent, Press::HalfShaken, Press::Idle] {
        let crowd = Crowd::presses(&fleet, &token, how, 2000, 1);
        crowd.is_at_work().await;
        for host in ["h1", "h2", "h3"] {
            gets_in(&fleet, host).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_do_two_thousand_of_fifty_addresses() {
    let fleet = Fleet::start().await;
    let token = any_token(&fleet).await;
    for how in [Press::Silent, Press::HalfShaken, Press::Idle] {
        let crowd = Crowd::presses(&fleet, &token, how, 2000, 50);
        crowd.is_at_work().await;
        for host in ["h1", "h2", "h3"] {
            gets_in(&fleet, host).await;
        }
    }
}
