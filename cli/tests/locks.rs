//! Locks: the program against a coordinator that plays fixed parts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use support::locks::{FIRMLY, LENT, OWN};
use support::{Asked, OTHER, Pki, play, report, run};

const NOTHING: &str = "/nothing/to/replace";

async fn asked(arguments: &[&str]) -> (String, Arc<Mutex<Asked>>) {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    asked.lock().unwrap().locks = true;
    let output = run(pki.hostler(&address, arguments)).await;
    let words = support::steady(&report(&output), &address, Path::new(NOTHING));
    (words, asked)
}

const TAKE: [&str; 4] = ["--for", "30m", "--reason", "für den Tausch"];

async fn take(resource: &str) -> (String, Arc<Mutex<Asked>>) {
    let mut arguments = vec!["lock", resource];
    arguments.extend(TAKE);
    asked(&arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_says_until_when_and_how_it_is_ended() {
    let (words, asked) = take("free").await;
    insta::assert_snapshot!("lock", words);
    let asked = asked.lock().unwrap();
    let (proposal, reason) = &asked.proposals[0];
    assert_eq!(
        (proposal.lock_for_seconds, reason.as_str()),
        (1800, "für den Tausch")
    );
    assert!(proposal.proposing_peer_token.len() >= 32, "a token of its own");
    assert!(!proposal.is_disabled_cancel);
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_lock_is_taken_anew_and_that_of_another_is_refused() {
    let (words, asked) = take(OWN).await;
    assert!(words.starts_with("exit 0\n"), "{words}");
    assert_eq!(
        asked.lock().unwrap().proposals[0].0.proposing_peer_token,
        "the-token"
    );
    let (words, asked) = take(LENT).await;
    insta::assert_snapshot!("lock_lent", words);
    assert_ne!(
        asked.lock().unwrap().proposals[0].0.proposing_peer_token,
        "the-token"
    );
    insta::assert_snapshot!("lock_nobody", take("nobody").await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlock_releases_ones_own_and_ends_that_of_another() {
    let (words, of_own) = asked(&["unlock", OWN]).await;
    insta::assert_snapshot!("unlock_own", words);
    assert_eq!(of_own.lock().unwrap().proposals[0].0.lock_for_seconds, 0);
    assert!(of_own.lock().unwrap().cancels.is_empty());
    let (words, of_another) = asked(&["unlock", LENT, "--reason", "bob went home"]).await;
    insta::assert_snapshot!("unlock_lent", words);
    assert_eq!(
        of_another.lock().unwrap().cancels,
        [(OTHER.to_owned(), "bob went home".to_owned())]
    );
    assert!(of_another.lock().unwrap().proposals.is_empty());
    insta::assert_snapshot!("unlock_firm", asked(&["unlock", FIRMLY]).await.0);
    insta::assert_snapshot!("unlock_free", asked(&["unlock", "free"]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_listed_for_people_and_for_programs() {
    insta::assert_snapshot!("locks", asked(&["locks"]).await.0);
    let words = asked(&["locks", "--json"]).await.0;
    let json = words.split("--- stdout\n").nth(1).unwrap();
    let json = json.split("--- stderr").next().unwrap();
    let document: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(document["locks"][2]["resource"], "own");
    assert_eq!(document["locks"][0]["cancel_allowed"], false);
}
