//! Hosts that enrol: guesses, broken requests, crowds, tokens from before a revocation; and a CA that cannot be used.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use hostler_common::rpc::hostler::enrol::v1::EnrolRequest;
use hostler_common::units::UnixMillis;
use hostler_coordinator::audit::Audit;
use hostler_coordinator::identity::enrolment::{EnrolError, Enrolment};
use hostler_coordinator::identity::tokens::Refusal;
use hostler_coordinator::store::{Order, Range, Revision, Store};
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME};
use hostler_pki::{EnrolToken, KeyRequest};
use tempfile::TempDir;

use crate::site::{Site, ada, config, h1};

#[tokio::test]
async fn a_ca_that_is_missing_loose_or_another_is_refused_at_the_start_with_the_way_out() {
    let mut site = Site::new();
    let store = site.store();
    site.start(&store).await.unwrap();
    let key = site.path().join("ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = site.start(&store).await.unwrap_err();
    assert!(
        said.contains("[enrolment]") && said.contains("ca.key") && said.contains("0600"),
        "{said}"
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();

    let other = TempDir::new().unwrap();
    Authority::init(other.path(), "fleet.test".parse().unwrap(), DEFAULT_CA_LIFETIME).unwrap();
    site.config = config(site.dir.path(), other.path());
    let said = site.start(&store).await.unwrap_err();
    assert!(
        said.contains("which this coordinator does not trust") && said.contains("ca.crt"),
        "{said}"
    );
    site.config = config(site.dir.path(), Path::new("/nonexistent"));
    let said = site.start(&store).await.unwrap_err();
    assert!(
        said.contains("/nonexistent") && said.contains("hostler-pki init"),
        "{said}"
    );
}

async fn revision(store: &Store) -> Revision {
    let all = Range {
        prefix: "/".to_owned(),
        beyond: None,
        at_most: 1,
        order: Order::Ascending,
    };
    store.list(all).await.unwrap().1
}

fn address(text: &str) -> SocketAddr {
    format!("{text}:40000").parse().unwrap()
}

fn request(token: &EnrolToken, key: &KeyRequest) -> EnrolRequest {
    EnrolRequest {
        token: token.to_word().to_string(),
        csr_der: key.csr_der().to_vec(),
        agent_version: String::new(),
    }
}

#[tokio::test]
async fn of_10000_guesses_none_is_in_none_is_stored_and_a_right_token_from_elsewhere_is_taken() {
    let site = Site::new();
    let store = site.store();
    let identities = site.start(&store).await.unwrap();
    let enrolment = Enrolment::new(identities.clone(), Vec::new());
    let root = identities.own().unwrap().root();
    let life = Duration::from_secs(3600);
    let made = identities.tokens.create("h1".parse().unwrap(), root, "ada", life);
    let (right, _) = made.await.unwrap();
    let key = KeyRequest::new().unwrap();
    let before = revision(&store).await;
    let (mut refused, mut told_to_wait) = (0, 0);
    // From one address first, then from thousands.
    for number in 0..10_000_u32 {
        let from = match number {
            0..5000 => address("192.0.2.7"),
            _ => address(&std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string()),
        };
        let guess = EnrolToken::new("h1".parse().unwrap(), root).unwrap();
        match enrolment.attempt(from, request(&guess, &key)).await {
            Err(EnrolError::Refused(_)) => refused += 1,
            Err(error @ EnrolError::TooOften { .. }) => {
                assert!(error.to_string().contains("try again in"), "{error}");
                told_to_wait += 1;
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(refused + told_to_wait, 10_000);
    // What the buckets hold, and what flows into them while a busy machine comes so far.
    assert!(refused < 2000, "{refused} guesses were looked at");
    assert_eq!(revision(&store).await, before, "a guess costs no write");

    let from_there = enrolment
        .attempt(address("192.0.2.7"), request(&right, &key))
        .await;
    assert!(
        matches!(from_there, Err(EnrolError::TooOften { .. })),
        "{from_there:?}"
    );
    let elsewhere = enrolment
        .attempt(address("198.51.100.1"), request(&right, &key))
        .await;
    let answer = elsewhere.unwrap();
    let issued = key.complete(&answer.certificate_pem).unwrap();
    assert_eq!(issued.identity.to_string(), "spiffe://fleet.test/agent/h1");
    let left = UnixMillis::now().until(issued.not_after);
    assert!(left <= life, "the configured life");
}

#[tokio::test]
async fn a_broken_request_is_not_a_guess_and_uses_up_no_token() {
    let site = Site::new();
    let store = site.store();
    let identities = site.start(&store).await.unwrap();
    let audit = Audit::start(site.dir.path()).unwrap();
    let enrolment = Enrolment::new(identities.clone(), Vec::new()).noted_in(audit.clone());
    let root = identities.own().unwrap().root();
    let life = Duration::from_secs(3600);
    let tokens = &identities.tokens;
    let (right, _) = tokens
        .create("h1".parse().unwrap(), root, "ada", life)
        .await
        .unwrap();
    let key = KeyRequest::new().unwrap();
    let mut refused = 0;
    for _ in 0..100 {
        let from = address("192.0.2.7");
        let mut bad = request(&right, &key);
        bad.csr_der.truncate(10);
        match enrolment.attempt(from, bad).await {
            // Not a wrong token: it does not count.
            Err(EnrolError::Request(_)) => refused += 1,
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(refused, 100);
    assert!(
        enrolment
            .attempt(address("192.0.2.7"), request(&right, &key))
            .await
            .is_ok()
    );
    let other = KeyRequest::new().unwrap();
    let again = enrolment
        .attempt(address("192.0.2.7"), request(&right, &other))
        .await;
    assert!(
        matches!(again, Err(EnrolError::Refused(Refusal::Used { .. }))),
        "{again:?}"
    );
    // The log has what the caller was answered.
    audit.end().await;
    let log = std::fs::read_to_string(site.dir.path().join("audit/audit.jsonl")).unwrap();
    assert!(log.lines().next().unwrap().contains("INVALID_ARGUMENT"), "{log}");
}

#[tokio::test]
async fn hosts_with_right_tokens_come_from_one_address_all_at_once() {
    let site = Site::new();
    let store = site.store();
    let identities = site.start(&store).await.unwrap();
    let enrolment = Enrolment::new(identities.clone(), Vec::new());
    let root = identities.own().unwrap().root();
    let life = Duration::from_secs(3600);
    let mut hosts = Vec::new();
    for number in 0..32 {
        let host = format!("h{number}").parse().unwrap();
        let (token, _) = identities.tokens.create(host, root, "ada", life).await.unwrap();
        hosts.push((token, KeyRequest::new().unwrap()));
    }
    let from = address("192.0.2.7");
    let coming = hosts
        .iter()
        .map(|(token, key)| enrolment.attempt(from, request(token, key)));
    for outcome in futures_util::future::join_all(coming).await {
        outcome.unwrap();
    }
    // Who hangs up before the answer has guessed all the same.
    let key = &hosts[0].1;
    for _ in 0..100 {
        let guess = EnrolToken::new("h1".parse().unwrap(), root).unwrap();
        drop(enrolment.attempt(from, request(&guess, key)).now_or_never());
    }
    let shut = enrolment.attempt(from, request(&hosts[0].0, key)).await;
    assert!(matches!(shut, Err(EnrolError::TooOften { .. })), "{shut:?}");
}

#[tokio::test]
async fn a_token_from_before_its_host_was_revoked_lets_nobody_back_in() {
    let site = Site::new();
    let store = site.store();
    let identities = site.start(&store).await.unwrap();
    let enrolment = Enrolment::new(identities.clone(), Vec::new());
    let root = identities.own().unwrap().root();
    let life = Duration::from_secs(3600);
    let make = || identities.tokens.create("h1".parse().unwrap(), root, "ada", life);
    let ((used, _), (unused, _)) = (make().await.unwrap(), make().await.unwrap());
    let key = KeyRequest::new().unwrap();
    let from = address("192.0.2.7");
    let enrol = async |token: &EnrolToken| enrolment.attempt(from, request(token, &key)).await;
    enrol(&used).await.unwrap();
    enrol(&used).await.expect("the answer was lost");
    let revoked = identities.revocations.revoke(&h1(), &ada(), "stolen").await;
    revoked.unwrap();
    // Whoever has the key has the token, too, and the token has not expired.
    for token in [&used, &unused] {
        let outcome = enrol(token).await;
        assert!(
            matches!(outcome, Err(EnrolError::Refused(Refusal::HostRevoked { .. }))),
            "{outcome:?}"
        );
    }
    let (new, _) = make().await.unwrap();
    let answer = enrol(&new).await.unwrap();
    let issued = key.complete(&answer.certificate_pem).unwrap();
    let revocations = &identities.revocations;
    assert_eq!(revocations.revoked(&h1().subject, issued.not_before), None);
}
