//! What a revocation covers, what a restored store learns of it, and what is said when a connection does not end.

use std::net::SocketAddr;
use std::time::Duration;

use hostler_common::units::UnixMillis;
use hostler_coordinator::identity::known::CertificateRecord;
use hostler_coordinator::identity::recovery;
use hostler_coordinator::identity::revocation::RevocationRecord;
use hostler_coordinator::store::{Store, Transaction, json};
use hostler_pki::{Fingerprint, Identity, KeyRequest, PeerCertificate};
use tempfile::TempDir;

use crate::site::{BETWEEN, Site, ada, h1};

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
