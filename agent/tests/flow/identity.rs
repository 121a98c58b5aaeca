//! The identity: renewed over the session that is up, never by a certificate that is no use here, and CAs that follow the
//! coordinator's.

use std::fs::{File, FileTimes};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hostler_agent::blocking::Blocking;
use hostler_agent::identity::files;
use hostler_agent::identity::keeper::Keeper;
use hostler_agent::identity::line;
use hostler_agent::identity::trust::{self, Taken};
use hostler_agent::session::dial::{self, Trouble};
use hostler_common::rpc::hostler::agent::v1::session_request::Message as Request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message as Response;
use hostler_common::rpc::hostler::agent::v1::{Heartbeat, Renew, RenewAnswer, SessionRequest, Trust};
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::{Credentials, PeerRoot, TlsFiles};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{self, Conversation, Coordinator, soon};
use crate::session::{Agent, until};
use crate::world::{Rig, World};

const MINUTE: Duration = Duration::from_secs(60);

/// A CA, and the identity of one host in one file.
struct Site {
    dir: TempDir,
    authority: Authority,
    files: TlsFiles,
}

impl Site {
    /// The host's certificate lasts for `life` from now.
    fn new(life: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca_dir = dir.path().join("ca");
        let authority = Authority::init(&ca_dir, "fleet.test".parse().unwrap(), DEFAULT_CA_LIFETIME).unwrap();
        let identity = dir.path().join("agent.pem");
        let files = TlsFiles {
            ca: dir.path().join("ca.crt"),
            certificate: identity.clone(),
            key: identity,
        };
        std::fs::copy(ca_dir.join("ca.crt"), &files.ca).unwrap();
        let site = Self {
            dir,
            authority,
            files,
        };
        site.issue("host-1", life);
        site
    }

    /// A certificate that is due: it began some minutes ago, and its file does not say otherwise.
    fn due() -> Self {
        let site = Self::new(MINUTE);
        age(&site.files.certificate);
        site
    }

    fn issue(&self, host: &str, life: Duration) {
        let options = IssueOptions {
            lifetime: life,
            ..IssueOptions::default()
        };
        let identity = format!("spiffe://fleet.test/agent/{host}").parse().unwrap();
        let issued = self.authority.issue(&identity, &options).unwrap();
        issued.write_one_file(&self.files.certificate).unwrap();
    }

    fn sign(&self, renew: &Renew, host: &str) -> RenewAnswer {
        let identity = format!("spiffe://fleet.test/agent/{host}").parse().unwrap();
        let signed = self
            .authority
            .sign_request(&renew.csr_der, &identity, &IssueOptions::default());
        RenewAnswer {
            request_id: renew.request_id,
            certificate_pem: signed.unwrap().certificate_pem,
            reason: String::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.files.certificate).unwrap()
    }
}

fn age(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_times(times)
        .unwrap();
}

/// An agent whose identity is kept, and its coordinator.
struct Kept {
    coordinator: Coordinator,
    agent: Agent,
    stop: CancellationToken,
    keeper: JoinHandle<()>,
    _rig: Rig,
}

impl Kept {
    fn start(site: &Site) -> Self {
        let (coordinator, dial) = coordinator::start();
        let rig = Rig::new(World::with(&[]));
        let (identity, end) = line::line();
        let stop = CancellationToken::new();
        let keeper = Keeper::new(
            site.files.clone(),
            end,
            PeerRoot::default(),
            Blocking::new(2),
            stop.clone(),
        );
        let answerer = Arc::new(|_, pool| Err(format!("no pool {pool} here")));
        Self {
            coordinator,
            agent: Agent::start_with(&rig, &dial, answerer, identity),
            stop,
            keeper: tokio::spawn(keeper.run()),
            _rig: rig,
        }
    }

    async fn end(self) {
        self.agent.end().await;
        self.stop.cancel();
        soon("end of the keeper", self.keeper).await.unwrap();
    }
}

async fn renew(talk: &mut Conversation) -> Renew {
    loop {
        if let Request::Renew(renew) = talk.next().await {
            return renew;
        }
    }
}

/// What is answered after this shows that the agent has heard all that was said before.
async fn is_alive(talk: &mut Conversation) {
    talk.say(Response::Heartbeat(Heartbeat {})).await;
    while !matches!(talk.next().await, Request::Heartbeat(_)) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_over_the_session_which_goes_on() {
    let site = Site::due();
    let before = Credentials::load(&site.files).unwrap();
    let kept = Kept::start(&site);
    let (mut talk, _) = kept.coordinator.welcome(&[]).await;
    let wish = renew(&mut talk).await;
    talk.say(Response::RenewAnswer(site.sign(&wish, "host-1"))).await;
    until("new certificate", || {
        Credentials::load(&site.files).unwrap().not_after() > before.not_after()
    })
    .await;
    is_alive(&mut talk).await;
    kept.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_renewal_is_asked_again_with_the_same_key_and_changes_nothing() {
    let site = Site::due();
    let before = site.bytes();
    let kept = Kept::start(&site);
    let (mut talk, _) = kept.coordinator.welcome(&[]).await;
    let first = renew(&mut talk).await;
    let refusal = RenewAnswer {
        request_id: first.request_id,
        certificate_pem: String::new(),
        reason: "not now".to_owned(),
    };
    talk.say(Response::RenewAnswer(refusal)).await;
    let second = renew(&mut talk).await;
    assert!(second.request_id > first.request_id);
    assert_eq!(second.csr_der, first.csr_der);
    assert_eq!(site.bytes(), before);
    // An answer that was late is as good.
    talk.say(Response::RenewAnswer(site.sign(&first, "host-1"))).await;
    until("new certificate", || site.bytes() != before).await;
    kept.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_no_session_carried_is_said_by_the_next() {
    let site = Site::due();
    let kept = Kept::start(&site);
    let (mut talk, _) = kept.coordinator.welcome(&[]).await;
    let first = renew(&mut talk).await;
    drop(talk);
    let (mut talk, _) = kept.coordinator.welcome(&[]).await;
    assert_eq!(renew(&mut talk).await.csr_der, first.csr_der);
    kept.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_host_or_another_ca_or_another_key_is_not_taken() {
    let (site, foreign) = (Site::due(), Site::due());
    let before = site.bytes();
    let kept = Kept::start(&site);
    let (mut talk, _) = kept.coordinator.welcome(&[]).await;
    let mut wish = renew(&mut talk).await;
    let other = foreign.sign(&wish, "host-1");
    talk.say(Response::RenewAnswer(other)).await;
    wish = renew(&mut talk).await;
    talk.say(Response::RenewAnswer(site.sign(&wish, "host-2"))).await;
    wish = renew(&mut talk).await;
    let garbage = RenewAnswer {
        request_id: wish.request_id,
        certificate_pem: std::fs::read_to_string(&site.files.ca).unwrap(),
        reason: String::new(),
    };
    talk.say(Response::RenewAnswer(garbage)).await;
    wish = renew(&mut talk).await;
    assert_eq!(site.bytes(), before);
    talk.say(Response::RenewAnswer(site.sign(&wish, "host-1"))).await;
    until("new certificate", || site.bytes() != before).await;
    kept.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cas_that_the_coordinator_tells_are_trusted_from_then_on() {
    let site = Site::new(MINUTE * 60);
    let second = Site::new(MINUTE);
    let read = |site: &Site| std::fs::read_to_string(&site.files.ca).unwrap();
    let both = read(&site) + &read(&second);
    let kept = Kept::start(&site);
    let (mut talk, _) = kept.coordinator.welcome(&[]).await;
    let trust = |ca_pem: &str| {
        Response::Trust(Trust {
            ca_pem: ca_pem.to_owned(),
            ..Trust::default()
        })
    };
    talk.say(trust(&both)).await;
    until("two roots", || read(&site).matches("BEGIN").count() == 2).await;
    // Without the CA of its own certificate it wants a new one before it lets the old one go.
    talk.say(trust(&read(&second))).await;
    let wish = renew(&mut talk).await;
    assert_eq!(read(&site).matches("BEGIN").count(), 2);
    let answer = second.sign(&wish, "host-1");
    talk.say(Response::RenewAnswer(answer)).await;
    until("the new root alone", || read(&site) == read(&second)).await;
    let now = Credentials::load(&site.files).unwrap();
    assert_eq!(now.root(), Credentials::load(&second.files).unwrap().root());
    kept.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_ca_signs_no_more_is_renewed_long_before_its_time() {
    // By itself it would be renewed after 23 s at the earliest, which is longer than anything is waited for here.
    let site = Site::new(MINUTE);
    let second = Site::new(MINUTE);
    let read = |site: &Site| std::fs::read_to_string(&site.files.ca).unwrap();
    let root_of = |site: &Site| Credentials::load(&site.files).unwrap().root();
    let signs = root_of(&second);
    let kept = Kept::start(&site);
    let (mut talk, _) = kept.coordinator.welcome(&[]).await;
    talk.say(Response::Trust(Trust {
        ca_pem: read(&site) + &read(&second),
        signing_root: signs.to_string(),
        ..Trust::default()
    }))
    .await;
    let wish = soon("a wish", renew(&mut talk)).await;
    talk.say(Response::RenewAnswer(second.sign(&wish, "host-1")))
        .await;
    until("a certificate of the CA that signs", || root_of(&site) == signs).await;
    kept.end().await;
}

#[test]
fn cas_that_would_cut_the_host_off_are_refused_and_the_file_stays() {
    let (site, foreign) = (Site::new(MINUTE), Site::new(MINUTE));
    let read = |site: &Site| std::fs::read_to_string(&site.files.ca).unwrap();
    let before = read(&site);
    let nobody = PeerRoot::default();
    let told = |ca_pem: &str| Trust {
        ca_pem: ca_pem.to_owned(),
        ..Trust::default()
    };
    for bad in ["", "nonsense", &read(&foreign), &"x".repeat(100_000)] {
        trust::take(&told(bad), &site.files, &nobody).unwrap_err();
        assert_eq!(read(&site), before);
    }
    let both = read(&foreign) + &before;
    assert_eq!(
        trust::take(&told(&both), &site.files, &nobody).unwrap(),
        Taken::Changed { roots: 2 }
    );
    let turned = before + &read(&foreign);
    assert_eq!(
        trust::take(&told(&turned), &site.files, &nobody).unwrap(),
        Taken::Same
    );
}

#[test]
fn a_pair_in_two_files_is_usable_after_a_death_between_them() {
    let site = Site::new(MINUTE);
    let dir = site.dir.path();
    let identity = "spiffe://fleet.test/agent/host-1".parse().unwrap();
    let issue = || site.authority.issue(&identity, &IssueOptions::default()).unwrap();
    let split = TlsFiles {
        certificate: dir.join("agent.crt"),
        key: dir.join("agent.key"),
        ca: site.files.ca.clone(),
    };
    let old = issue();
    std::fs::write(&split.certificate, &old.certificate_pem).unwrap();
    old.write_one_file(&split.key).unwrap();
    files::load(&split).unwrap();

    let new = issue();
    new.write_one_file(&split.certificate).unwrap();
    Credentials::load(&split).unwrap_err();
    assert_eq!(files::load(&split).unwrap().not_after(), new.not_after);
    files::put(&split, &issue()).unwrap();
    Credentials::load(&split).unwrap();
    let names = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.contains("tried")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_told_with_its_cure_and_nobody_is_dialled() {
    let site = Site::new(Duration::from_secs(1));
    until("end of the certificate", || {
        Credentials::load(&site.files).is_err()
    })
    .await;
    // Whoever were dialled there would refuse at once, in other words.
    let address = "127.0.0.1:1".parse().unwrap();
    let dial = dial::over_tls(address, site.files.clone(), Blocking::new(1));
    let trouble = |dialled: Result<_, Trouble>| match dialled {
        Err(Trouble::Person(line)) => line,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was dialled"),
    };
    let line = trouble(dial(SessionRequest::default()).await.map(|_| ()));
    assert!(line.contains("hostler tokens create --host host-1"), "{line}");
    // Once it is enrolled again the same process dials.
    site.issue("host-1", MINUTE);
    match dial(SessionRequest::default()).await.map(|_| ()) {
        Err(Trouble::Passing(line)) => assert!(line.contains("127.0.0.1:1"), "{line}"),
        other => panic!("{other:?}"),
    }
}
