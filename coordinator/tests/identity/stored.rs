//! Tokens, revocations and certificates as they are stored, and the first word of an older agent.

use data_encoding::HEXLOWER;
use hostler_common::rpc::hostler::agent::v1::{SessionRequest, session_request};
use hostler_common::units::UnixMillis;
use hostler_coordinator::identity::known::CertificateRecord;
use hostler_coordinator::identity::revocation::RevocationRecord;
use hostler_coordinator::identity::tokens::{Ended, Refusal, Standing, TokenRecord};
use hostler_coordinator::session::version;
use hostler_pki::{EnrolToken, Fingerprint};
use prost::Message as _;

use crate::site::{BETWEEN, CREATED, EXPIRES, h1};

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
    let used: TokenRecord = serde_json::from_str(include_str!("../frozen/token-used-1.json")).unwrap();
    assert_eq!(used.standing(BETWEEN), Standing::Used);
    let revoked: TokenRecord = serde_json::from_str(include_str!("../frozen/token-revoked-1.json")).unwrap();
    assert_eq!(revoked.standing(BETWEEN), Standing::Revoked);
    let open = TokenRecord { ended: None, ..used };
    assert_eq!(open.standing(BETWEEN), Standing::Open);
    assert_eq!(open.standing(EXPIRES), Standing::Expired);
    let revocation: RevocationRecord =
        serde_json::from_str(include_str!("../frozen/revocation-1.json")).unwrap();
    assert_eq!(revocation.identity.subject.to_string(), "client/operator/eve");
    assert_eq!(revocation.revoked_at, BETWEEN);
}

#[test]
fn the_hello_of_the_first_version_is_understood_and_taken() {
    let bytes = HEXLOWER
        .decode(
            include_str!("../frozen/session-request-hello-1.hex")
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

#[test]
fn a_certificate_of_a_former_version_is_read() {
    let frozen = include_bytes!("../frozen/certificate-1.json");
    let record: CertificateRecord = serde_json::from_slice(frozen).unwrap();
    let expected = CertificateRecord {
        identity: h1(),
        not_before: CREATED,
        not_after: EXPIRES,
        root: Fingerprint::from_bytes([7; 32]),
    };
    assert_eq!(record, expected);
}
