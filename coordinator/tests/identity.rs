//! Tokens and revocations as they are stored, the first word of an older agent, and a CA that cannot be used.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_util::FutureExt as _;
use hostler_common::error::Chain;
use hostler_common::rpc::hostler::agent::v1::{SessionRequest, session_request};
use hostler_common::rpc::hostler::enrol::v1::EnrolRequest;
use hostler_common::units::UnixMillis;
use hostler_coordinator::audit::Audit;
use hostler_coordinator::config::Config;
use hostler_coordinator::identity::Identities;
use hostler_coordinator::identity::enrolment::{EnrolError, Enrolment};
use hostler_coordinator::identity::known::CertificateRecord;
use hostler_coordinator::identity::recovery;
use hostler_coordinator::identity::revocation::RevocationRecord;
use hostler_coordinator::identity::tokens::{Ended, Refusal, Standing, TokenRecord};
use hostler_coordinator::session::version;
use hostler_coordinator::store::{Order, Range, Revision, Store, Transaction, json};
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use hostler_pki::{EnrolToken, Fingerprint, Identity, KeyRequest, PeerCertificate};
use prost::Message as _;
use tempfile::TempDir;
use tokio::task::JoinSet;

const CREATED: UnixMillis = UnixMillis(1_763_790_000_000);
const EXPIRES: UnixMillis = UnixMillis(1_763_793_600_000);
const BETWEEN: UnixMillis = UnixMillis(1_763_790_060_000);

fn token() -> EnrolToken {
    EnrolToken::new("h1".parse().unwrap(), Fingerprint::from_bytes([7; 32])).unwrap()
}

fn record_of(token: &EnrolToken) -> TokenRecord {
    TokenRecord {
        id: token.id().to_string(),
        host: "h1".parse().unwrap(),
        secret_hash: HEXLOWER.encode(token.secret_hash().as_bytes()),
        created_by: "spiffe://fleet.test/client/admin/ada".to_owned(),
        created_at: CREATED,
        follows: None,
        expires_at: EXPIRES,
        ended: None,
    }
}

#[test]
fn a_token_is_taken_in_its_time_by_one_key_and_refused_with_its_reason_otherwise() {
    let token = token();
    let open = record_of(&token);
    assert_eq!(open.admit(&token, "key", BETWEEN), Ok(()));
    let said = |record: &TokenRecord, key: &str, now| record.admit(&token, key, now).unwrap_err();

    let expired = said(&open, "key", EXPIRES);
    assert!(matches!(expired, Refusal::Expired { .. }), "{expired}");
    assert!(
        expired.to_string().contains("expired at 2025-11-22T"),
        "{expired}"
    );
    let early = said(&open, "key", UnixMillis(CREATED.0 - 3_600_000));
    assert!(matches!(early, Refusal::ClockWentBack { .. }), "{early}");
    assert_eq!(
        open.admit(&token, "key", UnixMillis(CREATED.0 - 1000)),
        Ok(()),
        "clocks are corrected by seconds"
    );

    let mut used = open.clone();
    used.ended = Some(Ended::Used {
        at: BETWEEN,
        from: "192.0.2.7".to_owned(),
        key: "key".to_owned(),
    });
    assert_eq!(used.admit(&token, "key", BETWEEN), Ok(()), "the answer was lost");
    let other = said(&used, "other", BETWEEN);
    assert!(
        matches!(other, Refusal::Used { .. }) && other.to_string().contains("from 192.0.2.7"),
        "{other}"
    );
    assert!(matches!(said(&used, "key", EXPIRES), Refusal::Expired { .. }));

    let mut revoked = open.clone();
    revoked.ended = Some(Ended::Revoked {
        at: BETWEEN,
        by: "spiffe://fleet.test/client/admin/bob".to_owned(),
    });
    let said_revoked = said(&revoked, "key", BETWEEN).to_string();
    assert!(said_revoked.contains("admin/bob"), "{said_revoked}");

    // Another secret, or another host, under the same id.
    let forged = record_of(&self::token());
    assert!(matches!(
        said(&forged, "key", BETWEEN),
        Refusal::Altered {
            what: "its secret",
            ..
        }
    ));
    let mut elsewhere = open.clone();
    elsewhere.host = "h2".parse().unwrap();
    assert!(matches!(
        said(&elsewhere, "key", BETWEEN),
        Refusal::Altered { what: "its host", .. }
    ));
    // Who does not have the secret hears nothing of where the token stands.
    revoked.secret_hash = forged.secret_hash;
    assert!(matches!(said(&revoked, "key", BETWEEN), Refusal::Altered { .. }));
}

#[test]
fn what_this_version_stored_is_read_by_later_ones() {
    let used: TokenRecord = serde_json::from_str(include_str!("frozen/token-used-1.json")).unwrap();
    assert_eq!(used.standing(BETWEEN), Standing::Used);
    let revoked: TokenRecord = serde_json::from_str(include_str!("frozen/token-revoked-1.json")).unwrap();
    assert_eq!(revoked.standing(BETWEEN), Standing::Revoked);
    let open = TokenRecord { ended: None, ..used };
    assert_eq!(open.standing(BETWEEN), Standing::Open);
    assert_eq!(open.standing(EXPIRES), Standing::Expired);
    let revocation: RevocationRecord =
        serde_json::from_str(include_str!("frozen/revocation-1.json")).unwrap();
    assert_eq!(revocation.identity.subject.to_string(), "client/operator/eve");
    assert_eq!(revocation.revoked_at, BETWEEN);
}

#[test]
fn the_hello_of_the_first_version_is_understood_and_taken() {
    let bytes = HEXLOWER
        .decode(
            include_str!("frozen/session-request-hello-1.hex")
                .trim()
                .as_bytes(),
        )
        .unwrap();
    let request = SessionRequest::decode(&*bytes).unwrap();
    let Some(session_request::Message::Hello(hello)) = request.message else {
        panic!("{request:?}")
    };
    assert_eq!((&*hello.host, hello.protocol), ("node-3", 1));
    assert_eq!(hello.journaled_operation_ids.len(), 1);
    assert_eq!(version::check(&hello.agent_version), Ok(()));
}

/// A CA, a coordinator's certificate of it, and its configuration.
struct Site {
    dir: TempDir,
    config: Config,
}

impl Site {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let pki = dir.path().join("pki");
        let authority = Authority::init(&pki, "fleet.test".parse().unwrap(), DEFAULT_CA_LIFETIME).unwrap();
        let identity = "spiffe://fleet.test/coordinator/c1".parse().unwrap();
        let issued = authority.issue(&identity, &IssueOptions::default()).unwrap();
        issued.write(&pki, "c1", Existing::Keep).unwrap();
        let config = config(dir.path(), &pki);
        Self { dir, config }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("pki")
    }

    async fn start(&self, store: &Store) -> Result<Identities, String> {
        // What follows the store is not needed, and ends here.
        let mut tasks = JoinSet::new();
        let started = Identities::start(&self.config, store, &mut tasks).await;
        started.map_err(|error| Chain(&error).to_string())
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("data")).unwrap()
    }
}

fn config(dir: &Path, ca_dir: &Path) -> Config {
    let pki = dir.join("pki");
    let text = format!(
        "[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n[enrolment]\nca_dir = {:?}\nagent_life = '1h'\n",
        pki.join("ca.crt"),
        pki.join("c1.crt"),
        pki.join("c1.key"),
        ca_dir
    );
    Config::parse(Path::new("coordinator.toml"), &text).unwrap()
}

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

fn ada() -> Identity {
    "spiffe://fleet.test/client/admin/ada".parse().unwrap()
}

fn h1() -> Identity {
    "spiffe://fleet.test/agent/h1".parse().unwrap()
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

#[tokio::test]
async fn a_revocation_after_the_clock_went_back_covers_the_certificates_of_before() {
    let site = Site::new();
    let store = site.store();
    let identities = site.start(&store).await.unwrap();
    let hour = Duration::from_secs(3600);
    let ahead = UnixMillis::now().plus(hour);
    let root = Fingerprint::from_bytes([1; 32]);
    let certificate = PeerCertificate {
        identity: h1(),
        not_before: ahead,
        not_after: ahead.plus(hour),
        fingerprint: Fingerprint::from_bytes([0; 32]),
        root,
    };
    let here = SocketAddr::from(([127, 0, 0, 1], 7));
    let life = identities.connections.enter(&certificate, here);
    // It was renewed while the clock was still ahead.
    let renewed = ahead.plus(hour / 2);
    life.extend(renewed, renewed.plus(hour), root);
    let connection = tokio::spawn(async move { life.cut().cancelled().await });
    let revoked = identities.revocations.revoke(&h1(), &ada(), "stolen").await;
    assert_eq!(revoked.unwrap().connections_ended, 1);
    connection.await.unwrap();
    for first in [ahead, renewed] {
        let covered = identities.revocations.revoked(&h1().subject, first);
        assert!(
            covered.is_some(),
            "{first} is valid again when the clock comes there"
        );
    }
}

#[tokio::test]
async fn a_revocation_covers_what_was_made_or_met_while_the_clock_was_ahead_of_a_host_that_is_away() {
    let site = Site::new();
    let store = site.store();
    let ahead = UnixMillis::now().plus(Duration::from_secs(3600));
    let certificate = |identity: Identity| CertificateRecord {
        identity,
        not_before: ahead,
        not_after: ahead.plus(Duration::from_secs(3600)),
        root: Fingerprint::from_bytes([1; 32]),
    };
    let bob: Identity = "spiffe://fleet.test/client/operator/bob".parse().unwrap();
    let before = site.start(&store).await.unwrap();
    before.known.made(certificate(h1())).await.unwrap();
    before.known.met(certificate(bob.clone())).await;
    // It is known after a restart, too.
    let identities = site.start(&store).await.unwrap();
    for identity in [h1(), bob] {
        identities
            .revocations
            .revoke(&identity, &ada(), "stolen")
            .await
            .unwrap();
        let covered = identities.revocations.revoked(&identity.subject, ahead);
        assert!(covered.is_some(), "{identity} comes back when the clock is there");
    }
}

#[tokio::test]
async fn a_token_of_between_two_revocations_follows_the_first_alone() {
    let site = Site::new();
    let identities = site.start(&site.store()).await.unwrap();
    let ahead = UnixMillis::now().plus(Duration::from_secs(3600));
    let certificate = CertificateRecord {
        identity: h1(),
        not_before: ahead,
        not_after: ahead.plus(Duration::from_secs(3600)),
        root: Fingerprint::from_bytes([1; 32]),
    };
    // Both revocations reach into the future.
    identities.known.made(certificate).await.unwrap();
    let revoke = async || {
        let revoked = identities.revocations.revoke(&h1(), &ada(), "stolen").await;
        Some(revoked.unwrap().record.revoked_at)
    };
    let first = revoke().await;
    let ca = Fingerprint::from_bytes([1; 32]);
    let created = identities
        .tokens
        .create("h1".parse().unwrap(), ca, "ada", Duration::from_secs(60));
    let (token, record) = created.await.unwrap();
    assert_eq!(record.outlives(token.id(), first), Ok(()));
    assert!(record.outlives(token.id(), revoke().await).is_err());
}

#[tokio::test]
async fn what_is_signed_is_known_before_it_is_handed_out() {
    let site = Site::new();
    let identities = site.start(&site.store()).await.unwrap();
    let key = KeyRequest::new().unwrap();
    let signed = identities
        .sign(key.csr_der().to_vec(), h1().subject)
        .await
        .unwrap();
    let known = identities.known.newest(&h1().subject).unwrap();
    assert_eq!(
        (known.not_before, known.not_after),
        (signed.not_before, signed.not_after)
    );
}

#[test]
fn a_certificate_of_a_former_version_is_read() {
    let frozen = include_bytes!("frozen/certificate-1.json");
    let record: CertificateRecord = serde_json::from_slice(frozen).unwrap();
    let expected = CertificateRecord {
        identity: h1(),
        not_before: CREATED,
        not_after: EXPIRES,
        root: Fingerprint::from_bytes([7; 32]),
    };
    assert_eq!(record, expected);
}

#[tokio::test]
async fn a_store_that_is_older_than_its_audit_log_learns_of_a_revocation_once() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(
        recovery::revocations(&store, dir.path()).await.unwrap(),
        [],
        "there is no log"
    );
    let line = |subject: &str, code: &str| {
        format!(
            r#"{{"time":"2026-11-22T07:00:00.500Z","event":"call","identity":"{}","address":"","rpc":"/hostler.site.v1.SiteService/RevokeIdentity","request":{{"subject":"{subject}","reason":"stolen"}},"code":"{code}","message":"","duration_ms":20}}"#,
            ada()
        )
    };
    let lines = [
        line("agent/h1", "OK"),
        line("agent/h2", "NOT_FOUND"),
        line("coordinator/c1", "CANCELLED"),
        line("client/admin/ada", "CANCELLED"),
        line("agent/h3", "CANCELLED").replace("client/admin/ada", "client/operator/bob"),
        "torn".to_owned(),
    ];
    std::fs::create_dir(dir.path().join("audit")).unwrap();
    std::fs::write(dir.path().join("audit/audit.jsonl"), lines.join("\n")).unwrap();
    let recovered = recovery::revocations(&store, dir.path()).await.unwrap();
    let whom: Vec<_> = recovered.iter().map(|record| record.identity.clone()).collect();
    assert_eq!(whom, [h1()]);
    assert_eq!(recovery::revocations(&store, dir.path()).await.unwrap(), []);
    // A store that knew it all along: the log's times are rounded.
    let (elsewhere, began) = (TempDir::new().unwrap(), 1_795_330_800_480);
    let store = Store::open(elsewhere.path()).unwrap();
    let known = RevocationRecord {
        revoked_at: UnixMillis(began - 1),
        ..recovered[0].clone()
    };
    let transaction = Transaction {
        compares: Vec::new(),
        writes: vec![json::put("/revocations/agent/h1".to_owned(), &known)],
    };
    store.commit(transaction).await.unwrap();
    assert_eq!(recovery::revocations(&store, dir.path()).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_end_after_its_revocation_is_named() {
    let site = Site::new();
    let store = site.store();
    let identities = site.start(&store).await.unwrap();
    let certificate = PeerCertificate {
        identity: h1(),
        not_before: BETWEEN,
        not_after: UnixMillis::now().plus(Duration::from_secs(60)),
        fingerprint: Fingerprint::from_bytes([0; 32]),
        root: Fingerprint::from_bytes([1; 32]),
    };
    let here = SocketAddr::from(([192, 0, 2, 7], 7));
    let life = identities.connections.enter(&certificate, here);
    let call = life.clone();
    let revoked = identities.revocations.revoke(&h1(), &ada(), "stolen").await;
    let said = revoked.unwrap_err().to_string();
    assert!(
        said.contains("(from 192.0.2.7:7 since 20") && said.contains("Z, 2 at work)"),
        "{said}"
    );
    assert!(life.cut().is_cancelled() && identities.revocations.last(&h1().subject).is_some());
    drop((life, call));
    let again = identities.revocations.revoke(&h1(), &ada(), "stolen").await;
    assert_eq!(again.unwrap().connections_ended, 0);
}
