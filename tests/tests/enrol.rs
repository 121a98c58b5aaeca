//! How a host gets its first certificate, over the wire: with its token, and with nothing else.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_client::EnrolServiceClient;
use hostler_common::rpc::hostler::enrol::v1::{EnrolRequest, EnrolResponse};
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::operations::v1::HypervisorState;
use hostler_pki::{
    ChannelOptions, Credentials, EnrolToken, KeyRequest, TlsFiles, TrustBundle, connect_to_enrol,
};
use hostler_tests::agent::{Setup, SimulatedAgent};
use hostler_tests::fleet::Fleet;
use hostler_tests::raw::send;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn make_token(fleet: &Fleet, host: &str) -> EnrolToken {
    let request = site::CreateTokenRequest {
        host: host.to_owned(),
        expires_seconds: 0,
    };
    let made = fleet.site("admin").create_token(request).await.unwrap();
    EnrolToken::parse(&made.into_inner().token).unwrap()
}

async fn channel(fleet: &Fleet, token: &EnrolToken) -> Channel {
    connect_to_enrol(&fleet.enrol_at(), token.ca(), ChannelOptions::default())
        .await
        .unwrap()
}

async fn trade(channel: Channel, word: &str, request: &KeyRequest) -> Result<EnrolResponse, Status> {
    let request = EnrolRequest {
        token: word.to_owned(),
        csr_der: request.csr_der().to_vec(),
        agent_version: hostler_common::VERSION.to_owned(),
    };
    let answer = EnrolServiceClient::new(channel).enrol(request).await?;
    Ok(answer.into_inner())
}

async fn enrol(fleet: &Fleet, token: &EnrolToken, request: &KeyRequest) -> Result<EnrolResponse, Status> {
    trade(channel(fleet, token).await, &token.to_word(), request).await
}

/// The refusal of a token; its reason.
async fn refused(fleet: &Fleet, token: &EnrolToken) -> String {
    let status = enrol(fleet, token, &KeyRequest::new().unwrap())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    status.message().to_owned()
}

/// What the host keeps.
fn keep(dir: &TempDir, request: &KeyRequest, answer: &EnrolResponse) -> Credentials {
    let (ca, identity) = (dir.path().join("ca.crt"), dir.path().join("agent.pem"));
    TrustBundle::parse(&answer.ca_pem).unwrap().write(&ca).unwrap();
    let issued = request.complete(&answer.certificate_pem).unwrap();
    issued.write_one_file(&identity).unwrap();
    Credentials::load(&TlsFiles {
        ca,
        certificate: identity.clone(),
        key: identity,
    })
    .unwrap()
}

fn dial(fleet: &Fleet, credentials: &Credentials) -> Channel {
    let address = fleet.address.to_string().parse().unwrap();
    let config = hostler_pki::client_config(credentials).unwrap();
    hostler_pki::channel(&address, config, ChannelOptions::default())
}

async fn listed(fleet: &Fleet, token: &EnrolToken) -> site::Token {
    let listed = fleet.site("admin").list_tokens(site::ListTokensRequest {}).await;
    let tokens = listed.unwrap().into_inner().tokens;
    let id = token.id().to_string();
    tokens.into_iter().find(|listed| listed.id == id).unwrap()
}

#[tokio::test]
async fn a_host_enrols_with_its_token_and_its_agent_opens_a_session() {
    let fleet = Fleet::start_with(|config| {
        let enrolment = config.enrolment.as_mut().unwrap();
        enrolment.advertise = vec!["coordinator.fleet.test:1312".parse().unwrap()];
    })
    .await;
    let token = make_token(&fleet, "h1").await;
    assert_eq!(listed(&fleet, &token).await.state(), site::TokenState::Open);
    let (dir, request) = (TempDir::new().unwrap(), KeyRequest::new().unwrap());
    let answer = enrol(&fleet, &token, &request).await.unwrap();
    assert_eq!(answer.host, "h1");
    assert_eq!(answer.coordinators, ["coordinator.fleet.test:1312"]);
    let credentials = keep(&dir, &request, &answer);
    assert_eq!(credentials.identity().to_string(), "spiffe://fleet.test/agent/h1");
    let _agent = SimulatedAgent::over(Setup::of("h1", &["hv1"]), dial(&fleet, &credentials)).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let used = listed(&fleet, &token).await;
    assert_eq!(
        (used.state(), &*used.ended_by),
        (site::TokenState::Used, "127.0.0.1")
    );

    // The certificate is good for that host alone.
    let mut liar = Setup::of("h1", &[]);
    liar.hello_host = "h2".to_owned();
    let liar = SimulatedAgent::over(liar, dial(&fleet, &credentials)).await;
    let reason = liar.until("the refusal", |message| match message {
        Message::Refused(refused) => Some(refused.reason.clone()),
        _ => None,
    });
    assert!(reason.await.contains("speaks for the host of its certificate"));
}

#[tokio::test]
async fn a_lost_answer_costs_nothing_and_another_key_gets_nothing() {
    let mut fleet = Fleet::start().await;
    let token = make_token(&fleet, "h1").await;
    let request = KeyRequest::new().unwrap();
    enrol(&fleet, &token, &request).await.unwrap();
    fleet.restart().await;
    let again = enrol(&fleet, &token, &request).await.unwrap();
    request.complete(&again.certificate_pem).unwrap();
    let said = refused(&fleet, &token).await;
    assert!(
        said.contains("was used at") && said.contains("from 127.0.0.1") && said.contains("agents revoke h1"),
        "{said}"
    );
}

#[tokio::test]
async fn of_many_who_come_with_one_token_at_once_one_gets_a_certificate() {
    let fleet = Fleet::start().await;
    let token = make_token(&fleet, "h1").await;
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let channel = channel(&fleet, &token).await;
        let word = token.to_word();
        coming.spawn(async move { trade(channel, &word, &KeyRequest::new().unwrap()).await });
    }
    let outcomes = coming.join_all().await;
    let got = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(got, 1);
    for status in outcomes.into_iter().filter_map(Result::err) {
        assert!(status.message().contains("was used at"), "{status}");
    }
}

#[tokio::test]
async fn a_token_that_is_altered_foreign_or_revoked_is_refused_with_its_reason() {
    let fleet = Fleet::start().await;
    let token = make_token(&fleet, "h1").await;
    let word = token.to_word().to_string();
    let altered = word.replace(
        &word[20..24],
        if &word[20..24] == "aaaa" { "bbbb" } else { "aaaa" },
    );
    let request = KeyRequest::new().unwrap();
    let status = trade(channel(&fleet, &token).await, &altered, &request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("was altered"), "{status}");

    let foreign = EnrolToken::new("h1".parse().unwrap(), token.ca()).unwrap();
    let said = refused(&fleet, &foreign).await;
    assert!(
        said.contains("is not known here") && said.contains("--host h1"),
        "{said}"
    );

    let id = token.id().to_string();
    let by_hand = site::RevokeTokenRequest { id };
    let revoked = fleet.site("admin").revoke_token(by_hand.clone()).await.unwrap();
    let revoked = revoked.into_inner().token.unwrap();
    assert_eq!(revoked.state(), site::TokenState::Revoked);
    let said = refused(&fleet, &token).await;
    assert!(
        said.contains("was revoked at") && said.contains("client/admin/test"),
        "{said}"
    );
    let again = fleet
        .site("admin")
        .revoke_token(by_hand)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.token, Some(revoked), "the first one counts");

    // A request that is none uses up nothing.
    let token = make_token(&fleet, "h2").await;
    let request = EnrolRequest {
        token: token.to_word().to_string(),
        csr_der: vec![0; 100],
        agent_version: String::new(),
    };
    let status = EnrolServiceClient::new(channel(&fleet, &token).await)
        .enrol(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(enrol(&fleet, &token, &KeyRequest::new().unwrap()).await.is_ok());
    let used = fleet
        .site("admin")
        .revoke_token(site::RevokeTokenRequest {
            id: token.id().to_string(),
        })
        .await
        .unwrap_err();
    assert!(used.message().contains("agents revoke h2"), "{used}");
}

#[tokio::test]
async fn who_guesses_is_told_to_wait_and_gets_nothing() {
    let fleet = Fleet::start().await;
    let token = make_token(&fleet, "h1").await;
    let channel = channel(&fleet, &token).await;
    let request = KeyRequest::new().unwrap();
    let (mut denied, mut told_to_wait) = (0, 0);
    for _ in 0..100 {
        let guess = EnrolToken::new("h1".parse().unwrap(), token.ca()).unwrap();
        let status = trade(channel.clone(), &guess.to_word(), &request)
            .await
            .unwrap_err();
        match status.code() {
            Code::PermissionDenied => denied += 1,
            Code::ResourceExhausted => {
                assert!(status.message().contains("try again in"), "{status}");
                told_to_wait += 1;
            }
            _ => panic!("{status}"),
        }
    }
    // A few more than the burst, should the machine be slow.
    assert!(
        denied < 40 && told_to_wait > 60,
        "{denied} denied, {told_to_wait} told to wait"
    );
    assert_eq!(listed(&fleet, &token).await.state(), site::TokenState::Open);
}

#[tokio::test]
async fn nothing_else_is_served_where_hosts_enrol_and_messages_are_small() {
    let fleet = Fleet::start().await;
    let token = make_token(&fleet, "h1").await;
    let channel = channel(&fleet, &token).await;
    for (path, _) in hostler_coordinator::api::authz::TABLE {
        let status = send(channel.clone(), path, Vec::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    let (long, key) = ("a".repeat(17 * 1024), KeyRequest::new().unwrap());
    let large = trade(channel.clone(), &long, &key);
    assert_eq!(large.await.unwrap_err().code(), Code::OutOfRange);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let stranger = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(fleet.enrol_address.unwrap())
        .await
        .unwrap();
    let name = "localhost".try_into().unwrap();
    let shaken = tokio_rustls::TlsConnector::from(std::sync::Arc::new(stranger)).connect(name, tcp);
    assert!(shaken.await.is_err(), "who does not know the CA goes away");
    assert!(enrol(&fleet, &token, &KeyRequest::new().unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_token_is_made_only_by_admins_for_a_host_and_a_while() {
    let fleet = Fleet::start().await;
    let make = |role: &'static str, host: &str, expires_seconds| {
        let host = host.to_owned();
        let fleet = &fleet;
        async move {
            let request = site::CreateTokenRequest {
                host,
                expires_seconds,
            };
            fleet.site(role).create_token(request).await
        }
    };
    assert_eq!(
        make("operator", "h1", 0).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    for (host, life) in [("../h1", 0), ("", 0), ("h1", 59), ("h1", 604_801)] {
        let status = make("admin", host, life).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{host} {life}");
    }
    let made = make("admin", "h1", 60).await.unwrap().into_inner();
    let kept = made.kept.unwrap();
    let seconds = kept.expires_at.unwrap().seconds - kept.created_at.unwrap().seconds;
    assert_eq!((kept.host.as_str(), seconds), ("h1", 60));

    let fleet = Fleet::start_with(|config| config.enrolment = None).await;
    let request = site::CreateTokenRequest {
        host: "h1".to_owned(),
        expires_seconds: 0,
    };
    let status = fleet.site("admin").create_token(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("[enrolment]"), "{status}");
}
