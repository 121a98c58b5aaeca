//! `hostler-agent enrol`, the real program, repeated: after its success, after its death, with another token, and against a coordinator that
//! is away.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::rpc::operations::v1::HypervisorState;
use hostler_pki::{CoordinatorAddress, Credentials};
use hostler_tests::agent::{Setup, SimulatedAgent};
use hostler_tests::clock::{Clock, Faked, HOUR};
use hostler_tests::fleet::Fleet;
use hostler_tests::newcomer::{Newcomer, make_token};
use hostler_tests::programs::Process;
use hostler_tests::wait;

const NAMED: &str = "c1.fleet.test:1312";

async fn fleet() -> Fleet {
    Fleet::start_with(|config| {
        let enrolment = config.enrolment.as_mut().unwrap();
        enrolment.advertise = vec![NAMED.parse().unwrap()];
    })
    .await
}

fn certificate(host: &Newcomer) -> Credentials {
    Credentials::load(&host.tls()).unwrap()
}

#[tokio::test]
async fn the_same_command_after_its_success_changes_nothing_whether_or_not_the_coordinator_is_there() {
    let mut fleet = fleet().await;
    let (host, token) = (Newcomer::make(), make_token(&fleet, "h1").await);
    let (code, said) = host.enrol(&fleet, &token).await;
    assert_eq!(code, 0, "{said}");
    assert!(host.config().contains(NAMED), "{}", host.config());
    let before = host.files();
    assert_eq!(before, ["agent.pem", "ca.crt", "enrolled.json"]);
    let identity = host.content("agent.pem");
    for round in 0..2 {
        let (code, said) = host.enrol(&fleet, &token).await;
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains("spiffe://fleet.test/agent/h1 is already enrolled with this token, until"),
            "{said}"
        );
        assert_eq!(
            (host.files(), host.content("agent.pem")),
            (before.clone(), identity.clone())
        );
        if round == 0 {
            fleet.stop().await;
        }
    }
}

#[tokio::test]
async fn what_a_run_did_not_come_to_is_completed_without_the_coordinator() {
    let mut fleet = fleet().await;
    let (host, token) = (Newcomer::make(), make_token(&fleet, "h1").await);
    let untouched = host.config();
    assert_eq!(host.enrol(&fleet, &token).await.0, 0);
    host.configure(&untouched);
    fleet.stop().await;
    let (code, said) = host.enrol(&fleet, &token).await;
    assert_eq!(code, 0, "{said}");
    assert!(host.config().contains(NAMED), "{}", host.config());
}

#[tokio::test]
async fn a_new_token_makes_a_new_certificate_and_the_old_token_is_not_asked_about_again() {
    let fleet = fleet().await;
    let (host, first) = (Newcomer::make(), make_token(&fleet, "h1").await);
    assert_eq!(host.enrol(&fleet, &first).await.0, 0);
    let before = host.content("agent.pem");
    let second = make_token(&fleet, "h1").await;
    let (code, said) = host.enrol(&fleet, &second).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("which is replaced"), "{said}");
    assert_ne!(host.content("agent.pem"), before);
    let (code, said) = host.enrol(&fleet, &first).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("was used at"), "{said}");
    assert_eq!(host.files(), ["agent.pem", "ca.crt", "enrolled.json"]);
    certificate(&host);
}

#[tokio::test]
async fn a_refused_host_keeps_nothing_and_is_not_made_to_wait() {
    let fleet = fleet().await;
    let (host, stranger) = (Newcomer::make(), Newcomer::make());
    let token = make_token(&fleet, "h1").await;
    assert_eq!(host.enrol(&fleet, &token).await.0, 0);
    let (code, said) = stranger.enrol(&fleet, &token).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("was used at") && !said.contains("trying again"),
        "{said}"
    );
    assert!(stranger.files().is_empty(), "{:?}", stranger.files());
}

#[tokio::test]
async fn a_coordinator_that_is_away_is_waited_for_and_each_wait_is_told() {
    let mut fleet = fleet().await;
    let (host, token) = (Newcomer::make(), make_token(&fleet, "h1").await);
    let at = fleet.enrol_at();
    fleet.stop().await;
    let mut waiting = begin(&host, &at, &token, "300s");
    until_printed(&waiting, "nothing listens on").await;
    fleet.restart().await;
    assert_eq!(waiting.ended().await.code(), Some(0), "{}", waiting.printed());
    assert!(
        waiting.printed().contains("trying again, for 2"),
        "{}",
        waiting.printed()
    );
    let credentials = certificate(&host);
    let address = fleet.address.to_string().parse().unwrap();
    let config = hostler_pki::client_config(&credentials).unwrap();
    let channel = hostler_pki::channel(&address, config, Default::default());
    let _agent = SimulatedAgent::over(Setup::of("h1", &["hv1"]), channel).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
}

fn begin(host: &Newcomer, at: &CoordinatorAddress, token: &str, wait: &str) -> Process {
    let mut command = host.command(at, token, wait);
    Process::start(&mut command, &host.dir.path().join("enrol.log"))
}

async fn until_printed(process: &Process, words: &str) {
    wait::until(words, || async {
        process.printed().contains(words).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_is_interrupted_while_waiting_leaves_nothing_and_the_wait_ends_by_itself() {
    let mut fleet = fleet().await;
    let (host, token) = (Newcomer::make(), make_token(&fleet, "h1").await);
    let at = fleet.enrol_at();
    fleet.stop().await;
    let mut waiting = begin(&host, &at, &token, "300s");
    until_printed(&waiting, "nothing listens on").await;
    waiting.signal("INT");
    assert_eq!(waiting.ended().await.code(), Some(1), "{}", waiting.printed());
    assert!(waiting.printed().contains("interrupted"), "{}", waiting.printed());
    assert!(host.files().is_empty(), "{:?}", host.files());
    let mut short = begin(&host, &at, &token, "2s");
    assert_eq!(short.ended().await.code(), Some(1));
    assert!(
        short.printed().contains("within 2 s; --wait"),
        "{}",
        short.printed()
    );
    assert!(host.files().is_empty(), "{:?}", host.files());
}

#[tokio::test]
async fn two_at_once_on_one_host_do_not_meet() {
    let fleet = fleet().await;
    let (host, token) = (Newcomer::make(), make_token(&fleet, "h1").await);
    std::fs::create_dir(host.identity()).unwrap();
    let other = std::fs::File::open(host.identity()).unwrap();
    other.lock().unwrap();
    let (code, said) = host.enrol(&fleet, &token).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("another hostler-agent enrol is at work"), "{said}");
    drop(other);
    assert_eq!(host.enrol(&fleet, &token).await.0, 0);
}

#[tokio::test]
async fn a_clock_that_went_back_does_not_make_a_host_forget_its_enrolment() {
    let fleet = fleet().await;
    let (host, token) = (Newcomer::make(), make_token(&fleet, "h1").await);
    assert_eq!(host.enrol(&fleet, &token).await.0, 0);
    let clock = Clock::off_by(host.dir.path().join("clock"), -HOUR);
    let mut command = host.command(&fleet.enrol_at(), &token, "0s");
    clock.rule(&mut command, Faked::Wall);
    let (code, said) = Newcomer::run(command).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("already enrolled"), "{said}");
}
