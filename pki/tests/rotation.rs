//! A CA that is renewed while everybody goes on talking.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::path::Path;
use std::sync::Arc;

use hostler_pki::ca::{Authority, IssueOptions, rotation};
use hostler_pki::issued::Existing;
use hostler_pki::{
    ChannelOptions, Credentials, Identity, PeerRoot, Revocations, Theirs, TlsFiles, TrustBundle, accept,
    client_config_noting, dial, server_config,
};
use support::{AGENT, COORDINATOR, DAY, DEADLINE, Fleet, mode};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// Runs the program in `dir`: its exit code, what it printed, what it complained.
// Product code starts no program from here; the test is about this one.
#[allow(clippy::disallowed_methods)]
fn run(dir: &Path, line: &str) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hostler-pki"))
        .args(line.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Somebody with a ca.crt and an identity of their own, in a directory of their own.
struct Party {
    dir: TempDir,
    who: Identity,
}

impl Party {
    fn new(who: &str, ca: &Path) -> Self {
        let party = Self {
            dir: tempfile::tempdir().unwrap(),
            who: who.parse().unwrap(),
        };
        party.take_ca(ca);
        party.take_certificate(ca);
        party
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            ca: self.dir.path().join("ca.crt"),
            certificate: self.dir.path().join("own.pem"),
            key: self.dir.path().join("own.pem"),
        }
    }

    fn take_ca(&self, ca: &Path) {
        std::fs::copy(ca.join("ca.crt"), self.files().ca).unwrap();
    }

    fn take_certificate(&self, ca: &Path) {
        let issued = Authority::open(ca)
            .unwrap()
            .issue(&self.who, &IssueOptions::default())
            .unwrap();
        issued.write_one_file(&self.files().certificate).unwrap();
    }

    fn credentials(&self) -> Credentials {
        Credentials::load(&self.files()).unwrap()
    }
}

/// Whether the two get through a handshake, each with its files as they are now; the root that the caller saw.
async fn meet(coordinator: &Party, agent: &Party) -> Option<hostler_pki::Fingerprint> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let config = server_config(&coordinator.credentials(), Revocations::none()).unwrap();
    let serving = async {
        let (tcp, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = accept(config, tcp, || {}).await {
            let _ = stream.write_all(b"hello").await;
            let _ = stream.shutdown().await;
        }
    };
    let noted = PeerRoot::default();
    let config = client_config_noting(&agent.credentials(), &noted).unwrap();
    let calling = dial(&address, Arc::clone(&config), ChannelOptions::default());
    let both = async { tokio::join!(serving, calling) };
    let ((), called) = tokio::time::timeout(DEADLINE, both).await.expect("it hangs");
    called.ok().map(|_| noted.get().unwrap())
}

#[tokio::test]
async fn nobody_is_cut_off_at_any_moment_of_a_rotation() {
    let fleet = Fleet::new();
    let ca = fleet.path();
    let coordinator = Party::new(COORDINATOR, ca);
    let agents = [
        Party::new(AGENT, ca),
        Party::new("spiffe://example.org/agent/node-2", ca),
    ];
    let all_meet = async |moment: &str| {
        for agent in &agents {
            assert!(
                meet(&coordinator, agent).await.is_some(),
                "{moment}: {}",
                agent.who
            );
        }
    };
    all_meet("before").await;
    let old = coordinator.credentials().root();

    rotation::begin(ca, 1000 * DAY).unwrap();
    agents[0].take_ca(ca);
    all_meet("one agent trusts both").await;
    coordinator.take_ca(ca);
    all_meet("the coordinator trusts both").await;
    // As an agent takes it from its coordinator.
    let noted = meet(&coordinator, &agents[1]).await;
    let pem = coordinator.credentials().ca_pem();
    let theirs = Theirs {
        connected: noted,
        shows: "",
    };
    let bundle = TrustBundle::admit(&pem, &agents[1].credentials(), theirs).unwrap();
    bundle.write(&agents[1].files().ca).unwrap();
    all_meet("all trust both").await;

    rotation::switch(ca).unwrap();
    agents[0].take_certificate(ca);
    all_meet("one agent has a certificate of the new root").await;
    assert_eq!(meet(&coordinator, &agents[0]).await, Some(old));
    coordinator.take_certificate(ca);
    all_meet("the coordinator has one").await;
    assert_ne!(meet(&coordinator, &agents[0]).await, Some(old));

    let last = rotation::status(ca).unwrap().roots;
    let dropped = last[1].id.clone();
    // An agent that has missed its new certificate does not take what would cut it off.
    let only_new = last[0].fingerprint;
    agents[1].take_certificate(ca);
    all_meet("all have one").await;
    rotation::finish(ca, Some(&dropped)).unwrap();
    coordinator.take_ca(ca);
    all_meet("the coordinator trusts the new root alone").await;
    agents.iter().for_each(|agent| agent.take_ca(ca));
    all_meet("after").await;
    assert_eq!(coordinator.credentials().root(), only_new);
}

#[test]
fn the_program_leads_through_the_steps_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let good = |line: &str, parts: &[&str]| {
        let (code, out, error) = run(dir, line);
        assert_eq!(code, 0, "{line}: {out}{error}");
        for part in parts {
            assert!(out.contains(part), "{line}: {part} is not in {out}");
        }
        out
    };
    let bad = |line: &str, part: &str| {
        let (code, out, error) = run(dir, line);
        assert_eq!(code, 1, "{line}: {out}{error}");
        assert!(error.contains(part), "{line}: {part} is not in {error}");
        error
    };
    good("init --dir pki --trust-domain example.org", &[]);
    good("issue agent node-1 --dir pki", &[]);
    bad("rotate-ca status --dir absent", "cannot rotate the CA in absent");
    good(
        "rotate-ca status --dir pki",
        &["no rotation is under way", "rotate-ca begin --dir pki"],
    );
    bad(
        "rotate-ca switch --dir pki",
        "the first step is hostler-pki rotate-ca begin",
    );
    bad(
        "rotate-ca finish --dir pki --drop x",
        "the first step is hostler-pki rotate-ca begin",
    );

    good(
        "rotate-ca begin --dir pki",
        &[
            "begin: done",
            "both roots are trusted, the old one signs",
            "rotate-ca switch --dir pki",
        ],
    );
    assert_eq!(mode(&dir.join("pki/next.key")), 0o600);
    assert_eq!(mode(&dir.join("pki/ca.crt")), 0o644);
    good("rotate-ca begin --dir pki", &["nothing has changed"]);
    bad(
        "rotate-ca finish --dir pki --drop x",
        "the step before is hostler-pki rotate-ca switch",
    );
    good("issue agent node-2 --dir pki", &[]);

    let out = good(
        "rotate-ca switch --dir pki",
        &[
            "switch: done",
            "the new one signs",
            "still signed by the old root: pki/node-1.crt, pki/node-2.crt",
            "kept from before: pki/ca.key.",
        ],
    );
    assert!(!dir.join("pki/next.key").exists());
    assert_eq!(mode(&dir.join("pki/ca.key")), 0o600);
    good("rotate-ca switch --dir pki", &["nothing has changed"]);
    bad(
        "rotate-ca begin --dir pki",
        "end this rotation with hostler-pki rotate-ca finish",
    );
    let id = out.split("--drop ").nth(1).unwrap().trim().to_owned();
    let said = bad("rotate-ca finish --dir pki", "is cut off");
    assert!(said.contains(&format!("--drop {id}")), "{said}");
    bad(
        "rotate-ca finish --dir pki --drop 00000000",
        "is not the root that would be dropped",
    );
    // Whatever was issued, before and since, verifies until the end.
    good("issue agent node-3 --dir pki", &[]);
    good(
        "verify --ca pki/ca.crt pki/node-1.crt pki/node-2.crt pki/node-3.crt pki/ca.crt",
        &[],
    );
    good("issue agent node-1 --dir pki --force", &[]);

    let line = format!("rotate-ca finish --dir pki --drop {id}");
    let (code, out, error) = run(dir, &line);
    assert_eq!(code, 0, "{error}");
    assert!(
        out.contains("finish: done") && out.contains("no rotation is under way"),
        "{out}"
    );
    assert!(
        error.contains("nobody accepts these") && error.contains("pki/node-2.crt"),
        "{error}"
    );
    assert!(!error.contains("node-1.crt"), "{error}");
    good(&line, &["nothing has changed"]);
    good(
        "verify --ca pki/ca.crt pki/node-1.crt pki/node-3.crt pki/ca.crt",
        &[],
    );
    let (code, ..) = run(dir, "verify --ca pki/ca.crt pki/node-2.crt");
    assert_eq!(code, 1);
    let kept: Vec<_> = std::fs::read_dir(dir.join("pki"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().ends_with(&id))
        .map(|entry| mode(&entry.path()))
        .collect();
    assert_eq!(kept.len(), 2);
    assert!(kept.contains(&0o600) && kept.contains(&0o644), "{kept:?}");
    // And again.
    good("rotate-ca begin --dir pki", &["begin: done"]);
    bad("rotate-ca finish --dir pki --drop x", "rotate-ca switch");
    good("rotate-ca switch --dir pki", &["switch: done"]);
}

#[test]
fn the_program_says_when_it_is_time() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::init(&dir.join("pki"), "example.org".parse().unwrap(), 100 * DAY).unwrap();
    let issue = |stem: &str, lifetime| {
        let options = IssueOptions {
            lifetime,
            ..IssueOptions::default()
        };
        let issued = authority.issue(&AGENT.parse().unwrap(), &options).unwrap();
        issued.write(&dir.join("pki"), stem, Existing::Replace).unwrap();
    };
    issue("young", 90 * DAY);
    issue("short", DAY);
    let (_, out, _) = run(dir, "show pki/young.crt pki/short.crt");
    assert!(!out.contains("time for"), "{out}");
    let now = time::OffsetDateTime::now_utc();
    let fleet = Fleet::new();
    let near = fleet.forge("near", &[AGENT], |params| {
        params.not_before = now - 60 * DAY;
        params.not_after = now + DAY / 2;
    });
    let over = fleet.forge("over", &[AGENT], |params| params.not_after = now - DAY / 2);
    let path = |files: &TlsFiles| files.certificate.display().to_string();
    let (_, out, _) = run(dir, &format!("show {} {}", path(&near), path(&over)));
    assert!(
        out.contains("(less than a day left; time for a new one)"),
        "{out}"
    );
    assert!(out.contains("(expired; get a new one)"), "{out}");
    let (_, out, _) = run(dir, &format!("show {} --output json", path(&near)));
    assert!(out.contains("\"expires_soon\": true"), "{out}");
    let (code, out, _) = run(
        dir,
        &format!("verify --ca {} {}", fleet.files("x").ca.display(), path(&near)),
    );
    assert_eq!(code, 0);
    assert!(out.contains("(0 days left; time for a new one)"), "{out}");

    // One that is over is replaced as any other: by force.
    std::fs::copy(&over.certificate, dir.join("pki/node-1.crt")).unwrap();
    let (code, _, error) = run(dir, "issue agent node-1 --dir pki --days 30");
    assert_eq!(code, 1);
    assert!(error.contains("--force (it expired at"), "{error}");
    let (code, _, error) = run(dir, "issue agent node-1 --dir pki --days 30 --force --from-now");
    assert_eq!(code, 0, "{error}");
    let (code, out, _) = run(dir, "verify --ca pki/ca.crt pki/node-1.crt");
    assert_eq!(code, 0, "{out}");
}
