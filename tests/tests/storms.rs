//! The ports, pressed on by thousands of connections: a host with a token, or with a certificate, gets in all the same.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hostler_common::rpc::hostler::enrol::v1::EnrolRequest;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_client::EnrolServiceClient;
use hostler_common::rpc::hostler::site::v1::GetStatusRequest;
use hostler_common::rpc::operations::v1::HypervisorState;
use hostler_pki::{ChannelOptions, EnrolToken, KeyRequest, connect_to_enrol, enrol_client_config};
use hostler_tests::agent::Setup;
use hostler_tests::fleet::Fleet;
use hostler_tests::newcomer::make_token;
use hostler_tests::wait;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// How often each connection of a crowd is made again at most: 2,000 of them are 2,000 new ones a second.
const AGAIN_EVERY: Duration = Duration::from_secs(1);

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
    /// `count` connections to the port for enrolment, spread over the `addresses` first of 127.0.7.0/24.
    fn presses(fleet: &Fleet, token: &EnrolToken, how: Press, count: usize, addresses: usize) -> Self {
        Self::presses_at(fleet.enrol_address.unwrap(), token, how, count, addresses)
    }

    /// The same at any port.
    fn presses_at(at: SocketAddr, token: &EnrolToken, how: Press, count: usize, addresses: usize) -> Self {
        let config = enrol_client_config(token.ca()).unwrap();
        let ended = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let from = Ipv4Addr::new(127, 0, 7, u8::try_from(1 + number % addresses).unwrap());
            let (config, ended) = (Arc::clone(&config), Arc::clone(&ended));
            tasks.spawn(async move {
                // A pace: otherwise the crowd has all of the machine that the coordinator is to answer with.
                let mut pace = tokio::time::interval(AGAIN_EVERY);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    pace.tick().await;
                    // What fails is tried again: that is what presses.
                    let _ = press(at, from.into(), how, &config).await;
                    ended.fetch_add(1, Ordering::Relaxed);
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

/// A channel from `from`, which is opened again whenever the coordinator ends it.
fn channel_from(fleet: &Fleet, token: &EnrolToken, from: Ipv4Addr) -> Channel {
    let (at, config) = (
        fleet.enrol_address.unwrap(),
        enrol_client_config(token.ca()).unwrap(),
    );
    let connector = tower::service_fn(move |_| {
        let config = Arc::clone(&config);
        async move {
            let tcp = connect(at, from.into()).await?;
            let name = "localhost".try_into().unwrap();
            let tls = TlsConnector::from(config).connect(name, tcp).await?;
            std::io::Result::Ok(TokioIo::new(tls))
        }
    });
    Endpoint::from_static("http://enrol.test").connect_with_connector_lazy(connector)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_than_there_are_places_at_the_port_of_sessions_keep_no_agent_and_no_client_out() {
    let fleet = Fleet::start().await;
    let token = any_token(&fleet).await;
    for (how, addresses) in [(Press::Silent, 1), (Press::HalfShaken, 50)] {
        let _crowd = Crowd::presses_at(fleet.address, &token, how, 1500, addresses);
        let host = format!("{how:?}").to_lowercase();
        let hypervisor = format!("hv-{host}");
        let _agent = Setup::of(&host, &[&hypervisor]).start(&fleet).await;
        fleet
            .until_state(&hypervisor, HypervisorState::AvailableToCreate)
            .await;
        // A connection of its own, which the crowd could keep waiting.
        let status = fleet.site("viewer").get_status(GetStatusRequest {}).await;
        assert!(status.unwrap().into_inner().agents >= 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_guesses_from_fifty_addresses_let_nobody_in_and_hold_up_no_host() {
    let fleet = Fleet::start().await;
    let token = any_token(&fleet).await;
    let mut guessing = JoinSet::new();
    for address in 1..=50 {
        let channel = channel_from(&fleet, &token, Ipv4Addr::new(127, 0, 7, address));
        let ca = token.ca();
        guessing.spawn(async move {
            let mut client = EnrolServiceClient::new(channel);
            let csr_der = KeyRequest::new().unwrap().csr_der().to_vec();
            let mut let_in = 0;
            for _ in 0..200 {
                let guess = EnrolToken::new("h1".parse().unwrap(), ca).unwrap();
                let request = EnrolRequest {
                    token: guess.to_word().to_string(),
                    csr_der: csr_der.clone(),
                    agent_version: String::new(),
                };
                let_in += usize::from(client.enrol(request).await.is_ok());
            }
            let_in
        });
    }
    for host in ["h1", "h2", "h3"] {
        gets_in(&fleet, host).await;
    }
    assert_eq!(guessing.join_all().await.iter().sum::<usize>(), 0);
    gets_in(&fleet, "h4").await;
}
