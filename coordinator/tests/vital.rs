//! Signs of life: a coordinator that serves gives them, and one whose loop is stuck or gone does not.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;

use hostler_coordinator::config::Config;
use hostler_coordinator::vital::Silent;
use hostler_coordinator::wiring;
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use tokio_util::sync::CancellationToken;

fn config(dir: &Path) -> Config {
    let domain = "fleet.test".parse().unwrap();
    Authority::init(dir, domain, DEFAULT_CA_LIFETIME).unwrap();
    let identity = "spiffe://fleet.test/coordinator/c1".parse().unwrap();
    let authority = Authority::open(dir).unwrap();
    let issued = authority.issue(&identity, &IssueOptions::default()).unwrap();
    issued.write(dir, "c1", Existing::Keep).unwrap();
    let file = dir.join("coordinator.toml");
    let folder = dir.display();
    let text = format!(
        "listen = '127.0.0.1:0'\ndata_dir = '{folder}/data'\n\
         [tls]\nca = '{folder}/ca.crt'\ncertificate = '{folder}/c1.crt'\nkey = '{folder}/c1.key'\n"
    );
    std::fs::write(&file, text).unwrap();
    Config::load(&file).unwrap()
}

#[tokio::test]
async fn a_coordinator_that_serves_gives_signs_of_life_and_one_that_accepts_no_more_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let running = wiring::start(&config(dir.path()), shutdown.clone())
        .await
        .unwrap();
    let vital = running.vital();
    assert_eq!(vital.signs().await, Ok(()));
    assert_eq!(vital.signs().await, Ok(()), "and again");

    shutdown.cancel();
    running.run().await.unwrap();
    tokio::time::pause();
    assert_eq!(vital.signs().await, Err(Silent::Accepting));
}
