//! The site: the program against a coordinator that plays fixed parts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use support::site::ALIVE;
use support::{Pki, answering, on_a_terminal, play, report, run};

const NOTHING: &str = "/nothing/to/replace";

async fn asked(arguments: &[&str]) -> (String, Vec<String>) {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    let output = run(pki.hostler(&address, arguments)).await;
    let words = support::steady(&report(&output), &address, Path::new(NOTHING));
    let of_site = std::mem::take(&mut asked.lock().unwrap().of_site);
    (words, of_site)
}

/// The same on a terminal, on which `answer` is typed.
async fn answered(arguments: &[&str], answer: &str) -> (String, Vec<String>) {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    let output = run(answering(&pki.hostler(&address, arguments), answer)).await;
    let words = support::steady(&report(&output), &address, Path::new(NOTHING));
    let of_site = std::mem::take(&mut asked.lock().unwrap().of_site);
    (words, of_site)
}

fn json(words: &str) -> serde_json::Value {
    let json = words.split("--- stdout\n").nth(1).unwrap();
    serde_json::from_str(json.split("--- stderr").next().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_and_the_agents_are_told_to_people_and_to_programs() {
    insta::assert_snapshot!("status", asked(&["status"]).await.0);
    insta::assert_snapshot!("agents", asked(&["agents", "list"]).await.0);
    insta::assert_snapshot!("status_json", asked(&["status", "--json"]).await.0);
    insta::assert_snapshot!("agents_json", asked(&["agents", "list", "--json"]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_is_told_with_what_has_ended_and_a_living_one_is_refused() {
    let (words, of_site) = asked(&["agents", "lost", "hv7", "--reason", "scrapped"]).await;
    insta::assert_snapshot!("lost", words);
    assert_eq!(
        of_site,
        [r#"LoseAgentRequest { host: "hv7", reason: "scrapped" }"#]
    );
    insta::assert_snapshot!(
        "lost_alive",
        asked(&["agents", "lost", ALIVE, "--reason", "x"]).await.0
    );
    insta::assert_snapshot!(
        "lost_nobody",
        asked(&["agents", "lost", "nobody", "--reason", "x"]).await.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_revoked_by_host_or_by_role_and_name() {
    let (words, of_site) = asked(&["agents", "revoke", "hv7", "--reason", "stolen"]).await;
    insta::assert_snapshot!("revoke_agent", words);
    assert_eq!(
        of_site,
        [r#"RevokeIdentityRequest { subject: "agent/hv7", reason: "stolen", unknown: false }"#]
    );
    let (words, of_site) = asked(&["clients", "revoke", "operator/bob", "--reason", "left"]).await;
    assert!(words.starts_with("exit 0\n"), "{words}");
    assert_eq!(
        of_site,
        [r#"RevokeIdentityRequest { subject: "client/operator/bob", reason: "left", unknown: false }"#]
    );
    let unknown = ["agents", "revoke", "hv77", "--reason", "lost", "--unknown"];
    let (_, of_site) = asked(&unknown).await;
    assert_eq!(
        of_site,
        [r#"RevokeIdentityRequest { subject: "agent/hv77", reason: "lost", unknown: true }"#]
    );
    let (words, _) = asked(&["agents", "revoke", "hv77", "--reason", "lost"]).await;
    insta::assert_snapshot!("revoke_unknown", words);
    let (words, _) = asked(&["clients", "revoke", "admin/ada", "--reason", "oops"]).await;
    insta::assert_snapshot!("revoke_oneself", words);
    insta::assert_snapshot!("revoked", asked(&["clients", "revoked"]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_alone_into_a_pipe_and_with_its_command_to_a_terminal() {
    let create = ["tokens", "create", "--host", "hv7", "--expires", "2h"];
    let (words, of_site) = asked(&create).await;
    assert_eq!(words, "exit 0\n--- stdout\nhostler1-the-secret\n--- stderr\n");
    assert_eq!(
        of_site,
        [r#"CreateTokenRequest { host: "hv7", expires_seconds: 7200 }"#]
    );
    let pki = Pki::new();
    let (address, _) = play(&pki).await;
    let output = run(on_a_terminal(&pki.hostler(&address, &create))).await;
    insta::assert_snapshot!(
        "token_on_a_terminal",
        support::steady(&report(&output), &address, Path::new(NOTHING))
    );
    let quiet: Vec<_> = create.into_iter().chain(["--quiet"]).collect();
    let output = run(on_a_terminal(&pki.hostler(&address, &quiet))).await;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "hostler1-the-secret"
    );
    let as_json: Vec<_> = create.into_iter().chain(["--json"]).collect();
    let document = json(&asked(&as_json).await.0);
    assert_eq!(document["token"], "hostler1-the-secret");
    assert_eq!(
        document["command"],
        "hostler-agent enrol --coordinator 127.0.0.1:1313 --token-file -"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_listed_and_revoked() {
    insta::assert_snapshot!("tokens", asked(&["tokens", "list"]).await.0);
    insta::assert_snapshot!("token_revoked", asked(&["tokens", "revoke", "3f2a9c1e"]).await.0);
    insta::assert_snapshot!("token_unknown", asked(&["tokens", "revoke", "nothing"]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_expunged_has_to_be_typed_or_given_twice() {
    let (words, of_site) = asked(&["hypervisors", "expunge", "hv7"]).await;
    insta::assert_snapshot!("expunge_without_terminal", words);
    assert!(of_site.is_empty(), "{of_site:?}");
    let (words, of_site) = asked(&["hypervisors", "expunge", "hv7", "--yes-expunge", "hv8"]).await;
    insta::assert_snapshot!("expunge_another", words);
    assert!(of_site.is_empty(), "{of_site:?}");
    let (words, of_site) = answered(&["hypervisors", "expunge", "hv7"], "yes\n").await;
    assert!(
        words.starts_with("exit 1\n") && words.contains("that is not hv7; nothing was expunged"),
        "{words}"
    );
    assert!(of_site.is_empty(), "{of_site:?}");
    let (words, of_site) = answered(&["hypervisors", "expunge", "hv7", "--reason", "x"], "hv7\n").await;
    assert!(
        words.starts_with("exit 0\n") && words.contains("hypervisor hv7 is off the list"),
        "{words}"
    );
    assert_eq!(
        of_site,
        [r#"ExpungeHypervisorRequest { id: "hv7", reason: "x" }"#]
    );
    let (words, of_site) = asked(&["storage", "expunge", "tank", "--yes-expunge", "tank"]).await;
    insta::assert_snapshot!("expunge_pool", words);
    assert_eq!(
        of_site,
        [r#"ExpungeStoragePoolRequest { name: "tank", reason: "" }"#]
    );
    let alive = ["hypervisors", "expunge", ALIVE, "--yes-expunge", ALIVE];
    insta::assert_snapshot!("expunge_alive", asked(&alive).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_a_line_each_for_people_and_as_it_is_for_programs() {
    let (words, of_site) = asked(&["audit", "--identity", "alice", "--limit", "7"]).await;
    insta::assert_snapshot!("audit", words);
    assert_eq!(
        of_site,
        [r#"ListAuditRequest { since: None, identity: "alice", at_most: 7, follow: false, until: None }"#]
    );
    let (words, _) = asked(&["audit", "--json"]).await;
    insta::assert_snapshot!("audit_json", words);
    let (words, _) = asked(&["audit", "--limit", "2"]).await;
    assert!(words.contains("note: these are the newest 2"), "{words}");
    let (_, of_site) = asked(&["audit", "--since", "1h", "--follow"]).await;
    assert!(
        of_site[0].contains("since: Some(") && of_site[0].contains("follow: true"),
        "{of_site:?}"
    );
}
