//! Hosts that enrol, renew and follow a new CA by themselves, with lives of seconds: the agent's side against a real
//! coordinator.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::path::Path;
use std::time::Duration;

use hostler_agent::blocking::Blocking;
use hostler_agent::identity::enrol::EnrolError;
use hostler_agent::session::dial::{self, Trouble};
use hostler_common::rpc::hostler::agent::v1::SessionRequest;
use hostler_common::rpc::hostler::fleet::v1::WatchHypervisorsRequest;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::operations::v1::HypervisorState;
use hostler_common::units::UnixMillis;
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions, rotation};
use hostler_pki::issued::Existing;
use hostler_pki::{ChannelOptions, CoordinatorAddress, Credentials, EnrolToken, TlsFiles};
use hostler_tests::fleet::Fleet;
use hostler_tests::kept::KeptHost;
use hostler_tests::wait;
use tempfile::TempDir;

const AVAILABLE: HypervisorState = HypervisorState::AvailableToCreate;

async fn fleet(agent_life: Duration) -> Fleet {
    Fleet::start_with(|config| {
        if let Some(enrolment) = &mut config.enrolment {
            enrolment.agent_life = agent_life;
        }
    })
    .await
}

async fn token(fleet: &Fleet, host: &str) -> EnrolToken {
    let request = site::CreateTokenRequest {
        host: host.to_owned(),
        expires_seconds: 0,
    };
    let made = fleet.site("admin").create_token(request).await.unwrap();
    EnrolToken::parse(&made.into_inner().token).unwrap()
}

fn agents_at(fleet: &Fleet) -> CoordinatorAddress {
    fleet.address.to_string().parse().unwrap()
}

async fn enrolled(fleet: &Fleet, name: &str) -> KeptHost {
    let mut host = KeptHost::new(name);
    let token = token(fleet, name).await;
    host.enrol(&token, &fleet.enrol_at()).await.unwrap();
    host.begin(&agents_at(fleet));
    fleet.until_state(&format!("{name}-hv"), AVAILABLE).await;
    host
}

#[tokio::test]
async fn a_host_enrols_by_one_command_and_its_agent_is_listed() {
    let fleet = fleet(Duration::from_secs(3600)).await;
    let mut host = KeptHost::new("h1");
    let token = token(&fleet, "h1").await;
    let said = host.enrol(&token, &fleet.enrol_at()).await.unwrap();
    for told in [
        "is for h1",
        "proved itself",
        "spiffe://fleet.test/agent/h1",
        "service",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert!(!said.contains(token.to_word().as_str()), "{said}");
    let config = std::fs::read_to_string(host.dir().join("agent.toml")).unwrap();
    let coordinator = format!("coordinator = \"{}\"", fleet.address);
    assert!(config.contains(&coordinator), "{config}");
    assert!(!host.dir().join("identity/enrol.key").exists());
    host.begin(&agents_at(&fleet));
    fleet.until_state("h1-hv", AVAILABLE).await;
    host.stop().await;
    let again = host.enrol(&token, &fleet.enrol_at()).await.unwrap();
    assert!(again.contains("already enrolled"), "{again}");
    assert!(host.valid_until().is_some());
}

#[tokio::test]
async fn a_host_that_died_before_it_had_its_answer_runs_the_same_command_again() {
    let fleet = fleet(Duration::from_secs(3600)).await;
    let host = KeptHost::new("h1");
    let token = token(&fleet, "h1").await;
    // Nobody may write there: the certificate comes, and is lost.
    let identity = host.dir().join("identity");
    std::fs::create_dir_all(identity.join("agent.pem")).unwrap();
    let lost = host.enrol(&token, &fleet.enrol_at()).await.unwrap_err();
    assert!(matches!(lost, EnrolError::Put { .. }), "{lost:?}");
    let key = std::fs::read(identity.join("enrol.key")).unwrap();
    std::fs::remove_dir(identity.join("agent.pem")).unwrap();
    let said = host.enrol(&token, &fleet.enrol_at()).await.unwrap();
    assert!(said.contains("goes on with"), "{said}");
    let pair = std::fs::read(&host.files.key).unwrap();
    assert!(
        pair.windows(key.len()).any(|part| part == key),
        "another key was made"
    );
}

#[tokio::test]
async fn a_token_is_sent_to_nobody_but_the_coordinator_that_made_it() {
    let (fleet, foreign) = (
        fleet(Duration::from_secs(3600)).await,
        fleet(Duration::from_secs(3600)).await,
    );
    let token = token(&fleet, "h1").await;
    let host = KeptHost::new("h1");
    let refused = host.enrol(&token, &foreign.enrol_at()).await.unwrap_err();
    let wrong_port = host.enrol(&token, &agents_at(&fleet)).await.unwrap_err();
    let chain = |error: &EnrolError| hostler_common::error::Chain(error).to_string();
    assert!(
        chain(&refused).contains("nothing was sent"),
        "{}",
        chain(&refused)
    );
    assert!(
        chain(&wrong_port).contains("the port for enrolment"),
        "{}",
        chain(&wrong_port)
    );
    host.enrol(&token, &fleet.enrol_at()).await.unwrap();
    // A host that is somebody keeps that.
    let other = self::token(&fleet, "h2").await;
    let other = host.enrol(&other, &fleet.enrol_at()).await.unwrap_err();
    assert!(matches!(other, EnrolError::OtherHost { .. }), "{other:?}");
}

#[tokio::test]
async fn certificates_of_seconds_follow_each_other_and_the_session_stays() {
    let fleet = fleet(Duration::from_secs(15)).await;
    let mut host = enrolled(&fleet, "h1").await;
    let first = host.valid_until().unwrap();
    let beyond = first.plus(Duration::from_secs(1));
    wait::until("the next certificate, and the end of the first", || async {
        let is_later = host.valid_until().is_some_and(|end| end > beyond);
        (is_later && UnixMillis::now() > first).then_some(())
    })
    .await;
    assert_eq!(fleet.state("h1-hv").await, Some(AVAILABLE));
    assert_eq!(host.dials(), 1, "the session was dropped");
    host.stop().await;
}

#[tokio::test]
async fn a_host_that_slept_past_its_certificate_comes_back_with_a_new_token_and_no_restart() {
    let fleet = fleet(Duration::from_secs(3600)).await;
    let ca_dir = fleet.tls_files().ca.parent().unwrap().to_owned();
    let mut host = KeptHost::new("h1");
    let first = token(&fleet, "h1").await;
    host.enrol(&first, &fleet.enrol_at()).await.unwrap();
    let options = IssueOptions {
        lifetime: Duration::from_secs(1),
        ..IssueOptions::default()
    };
    let identity = Credentials::load(&host.files).unwrap().identity().clone();
    let short = Authority::open(&ca_dir).unwrap().issue(&identity, &options);
    short.unwrap().write_one_file(&host.files.certificate).unwrap();
    wait::until("end of the certificate", || async {
        host.valid_until().is_none().then_some(())
    })
    .await;
    host.begin(&agents_at(&fleet));
    wait::until("the agent tries", || async { (host.dials() > 0).then_some(()) }).await;
    assert_eq!(fleet.state("h1-hv").await, None);
    let second = token(&fleet, "h1").await;
    let said = host.enrol(&second, &fleet.enrol_at()).await.unwrap();
    assert!(said.contains("expired at"), "{said}");
    fleet.until_state("h1-hv", AVAILABLE).await;
    assert!(host.dials() <= 10, "{} dials", host.dials());
    host.stop().await;
}

/// As `hostler-pki issue coordinator --force` does.
fn reissue(ca_dir: &Path, files: &TlsFiles) {
    let authority = Authority::open(ca_dir).unwrap();
    let identity = Credentials::load(files).unwrap().identity().clone();
    let issued = authority.issue(&identity, &IssueOptions::default()).unwrap();
    let stem = files.certificate.file_stem().unwrap().to_str().unwrap();
    issued.write(ca_dir, stem, Existing::Replace).unwrap();
}

/// Takes the clients' certificates of this test away: the next are of the CA that signs by then.
fn forget_clients(ca_dir: &Path) {
    for entry in std::fs::read_dir(ca_dir).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("client-"))
        {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// As `hostler-pki rotate-ca finish --drop` does.
fn drop_old(ca_dir: &Path) {
    let stage = rotation::status(ca_dir).unwrap();
    rotation::finish(ca_dir, Some(&stage.old().unwrap().id)).unwrap();
}

/// A new root that everybody trusts.
async fn begun(ca_dir: &Path, hosts: &[KeptHost]) {
    rotation::begin(ca_dir, DEFAULT_CA_LIFETIME).unwrap();
    wait::until("every host trusts both", || async {
        hosts.iter().all(|host| host.roots() == 2).then_some(())
    })
    .await;
}

/// The new root signs, and the coordinator has a certificate of it.
fn switch(fleet: &Fleet, ca_dir: &Path) {
    rotation::switch(ca_dir).unwrap();
    reissue(ca_dir, &fleet.tls_files());
}

/// The root that a rotation dropped and kept, PEM.
fn kept_root(ca_dir: &Path) -> String {
    let names = std::fs::read_dir(ca_dir).unwrap();
    let mut paths = names.map(|entry| entry.unwrap().path());
    let is_kept = |path: &std::path::PathBuf| path.to_str().unwrap().contains("/ca.crt.");
    std::fs::read_to_string(paths.find(is_kept).unwrap()).unwrap()
}

/// What status says of agents that were cut off with their CA.
async fn cut_off(fleet: &Fleet) -> Option<String> {
    let told = fleet.warnings().await;
    told.into_iter().find(|line| line.contains("trusted no more"))
}

#[tokio::test]
async fn a_new_ca_takes_the_place_of_the_old_one_and_no_agent_is_dropped() {
    // By themselves these certificates would be renewed after a minute at the earliest.
    let mut fleet = fleet(Duration::from_secs(160)).await;
    let ca_dir = fleet.tls_files().ca.parent().unwrap().to_owned();
    let mut hosts = Vec::new();
    for name in ["h1", "h2", "h3"] {
        hosts.push(enrolled(&fleet, name).await);
    }
    let old = Credentials::load(&fleet.tls_files()).unwrap().root();
    begun(&ca_dir, &hosts).await;
    switch(&fleet, &ca_dir);
    wait::until("every host has a certificate of the new CA", || async {
        let is_new = |host: &KeptHost| Credentials::load(&host.files).is_ok_and(|own| own.root() != old);
        hosts.iter().all(is_new).then_some(())
    })
    .await;
    forget_clients(&ca_dir);
    drop_old(&ca_dir);
    // Their connections are still those that the old CA vouched for.
    wait::until("nobody trusts the old CA", || async {
        hosts.iter().all(|host| host.roots() == 1).then_some(())
    })
    .await;
    for host in &hosts {
        fleet.until_state(&format!("{}-hv", host.host), AVAILABLE).await;
        assert_eq!(host.dials(), 1, "the session of {} was dropped", host.host);
    }
    fleet.restart().await;
    for host in &mut hosts {
        fleet.until_state(&format!("{}-hv", host.host), AVAILABLE).await;
        assert!(Credentials::load(&host.files).is_ok_and(|own| own.root() != old));
        host.stop().await;
    }
}

#[tokio::test]
async fn who_hangs_on_a_root_that_is_dropped_is_told_of_before_and_cut_off_at_once() {
    let fleet = fleet(Duration::from_secs(3600)).await;
    let ca_dir = fleet.tls_files().ca.parent().unwrap().to_owned();
    let mut late = enrolled(&fleet, "late").await;
    let mut away = enrolled(&fleet, "away").await;
    away.stop().await;
    let mut operator = fleet.fleet("operator");
    let watching = operator.watch_hypervisors(WatchHypervisorsRequest::default());
    let mut watch = watching.await.unwrap().into_inner();
    assert!(
        !fleet
            .warnings()
            .await
            .iter()
            .any(|line| line.contains("signs no more"))
    );
    begun(&ca_dir, std::slice::from_ref(&late)).await;
    late.stop_keeping();
    switch(&fleet, &ca_dir);
    let said = wait::until("who would be cut off is told", || async {
        let said = fleet.warnings().await;
        said.into_iter().find(|line| line.contains("signs no more"))
    })
    .await;
    for told in [
        "2 agents and 3 clients",
        "agent/away",
        "agent/late",
        "client/operator/test",
        "would cut them off",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    forget_clients(&ca_dir);
    let mut early = enrolled(&fleet, "early").await;
    drop_old(&ca_dir);

    fleet.until_state("late-hv", HypervisorState::Unknown).await;
    let ended = async { while let Ok(Some(_)) = watch.message().await {} };
    tokio::time::timeout(wait::PATIENCE, ended)
        .await
        .expect("the watch goes on");
    wait::until("it is refused", || async { (late.dials() > 1).then_some(()) }).await;
    let dial = dial::over_tls(agents_at(&fleet), late.files.clone(), Blocking::new(1));
    match dial(SessionRequest::default()).await.map(|_| ()) {
        Err(Trouble::Person(line)) => {
            assert!(line.contains("one that was dropped since"), "{line}");
            assert!(line.contains("hostler tokens create"), "{line}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fleet.state("late-hv").await, Some(HypervisorState::Unknown));
    assert_eq!(fleet.state("early-hv").await, Some(AVAILABLE));
    assert_eq!(early.dials(), 1, "whose certificate is good was dropped, too");
    let said = cut_off(&fleet).await.unwrap();
    for told in ["2 agents (agent/away, agent/late)", "ca.crt.DATE.ID"] {
        assert!(said.contains(told), "{told}: {said}");
    }

    // Whoever was too early takes it back.
    let without = std::fs::read_to_string(ca_dir.join("ca.crt")).unwrap();
    let with = without.clone() + &kept_root(&ca_dir);
    std::fs::write(ca_dir.join("ca.crt"), with).unwrap();
    fleet.until_state("late-hv", AVAILABLE).await;
    assert_eq!(cut_off(&fleet).await, None);
    std::fs::write(ca_dir.join("ca.crt"), without).unwrap();
    fleet.until_state("late-hv", HypervisorState::Unknown).await;

    let token = token(&fleet, "late").await;
    late.enrol(&token, &fleet.enrol_at()).await.unwrap();
    fleet.until_state("late-hv", AVAILABLE).await;
    assert!(
        !fleet
            .warnings()
            .await
            .iter()
            .any(|line| line.contains("signs no more"))
    );
    for host in [&mut early, &mut late] {
        assert_eq!(host.roots(), 1, "{}", host.host);
        host.stop().await;
    }
}

/// What lies in the place of `ca.crt` while the coordinator runs, and what status says of it.
fn bad_bundles(good: &str) -> Vec<(String, &'static str)> {
    let foreign = TempDir::new().unwrap();
    let domain = |name: &str| name.parse().unwrap();
    Authority::init(foreign.path(), domain("fleet.test"), DEFAULT_CA_LIFETIME).unwrap();
    let other = TempDir::new().unwrap();
    Authority::init(other.path(), domain("other.test"), DEFAULT_CA_LIFETIME).unwrap();
    let ca_of = |dir: &TempDir| std::fs::read_to_string(dir.path().join("ca.crt")).unwrap();
    vec![
        (String::new(), "holds no certificate"),
        ("\0\x01garbage\n".repeat(1000), "holds no certificate"),
        (good[..good.len() / 2].to_owned(), "is not PEM"),
        (ca_of(&foreign), "is not signed by the CA that is trusted here"),
        (
            good.to_owned() + &ca_of(&other),
            "other.test among them is another trust domain",
        ),
        (good.repeat(9), "they are 9; 1 to 8 are expected"),
        (good.repeat(10_000), "is not a file of at most 1048576 bytes"),
    ]
}

#[tokio::test]
async fn files_that_are_no_good_change_nothing_and_are_a_warning_of_status_until_they_are_good() {
    // The CAs that it trusts are a file of its own: the clients of this test have the CA's.
    let fleet = Fleet::start_with(|config| {
        let own = config.tls.ca.with_file_name("trusted.crt");
        std::fs::copy(&config.tls.ca, &own).unwrap();
        config.tls.ca = own;
    })
    .await;
    let files = fleet.tls_files();
    let mut host = enrolled(&fleet, "h1").await;
    let good = std::fs::read_to_string(&files.ca).unwrap();
    // As an administrator does: a new file in the place of the old one.
    let put = |text: &str| {
        let beside = files.ca.with_extension("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, &files.ca).unwrap();
    };
    let told = async |says: &str| {
        wait::until(says, || async {
            let said = fleet.warnings().await;
            said.into_iter().find(|line| line.contains(says))
        })
        .await
    };
    let all_is_well = async || {
        wait::until("status has nothing to say", || async {
            fleet.warnings().await.is_empty().then_some(())
        })
        .await;
    };
    let viewer = fleet.ca.client_config("client/viewer/test");
    for (bad, says) in bad_bundles(&good) {
        put(&bad);
        let said = told(says).await;
        assert!(said.contains("those from before stay"), "{said}");
        let address = fleet.address.to_string().parse().unwrap();
        let newcomer = hostler_pki::connect(&address, viewer.clone(), ChannelOptions::default()).await;
        newcomer.unwrap();
        put(&good);
        all_is_well().await;
    }
    let key = files.ca.with_file_name("ca.key");
    let readable = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&key, permissions).unwrap();
    };
    readable(0o644);
    told("chmod 0600").await;
    readable(0o600);
    all_is_well().await;
    assert_eq!(fleet.state("h1-hv").await, Some(AVAILABLE));
    assert_eq!((host.dials(), host.roots()), (1, 1));
    host.stop().await;
}
