//! A store whose files are torn: cut at each sector of their last 64 KiB, with sectors zeroed and bits flipped. What
//! opens is exactly what was acknowledged; everything else is refused in one sentence and left as it was found.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::collections::BTreeMap;
use std::path::Path;

use hostler_common::error::Chain;
use hostler_coordinator::store::{Order, Range, Revision, Store, StoreError, Transaction, Write};
use hostler_tests::disk::copy_dir;
use hostler_tests::programs::{Process, Site, command};
use hostler_tests::wait;
use tempfile::TempDir;

const SECTOR: usize = 512;
const TAIL: usize = 64 * 1024;

type Records = BTreeMap<String, Vec<u8>>;

/// A store as a killed coordinator leaves it, and what it held after each commit.
struct Torn {
    dir: TempDir,
    after: BTreeMap<Revision, Records>,
    /// The file beside the store, at half of its commits.
    late: (Revision, Vec<u8>),
}

/// What became of a store that was opened.
#[derive(Debug)]
enum Opened {
    Serves(Revision, Records),
    Refused(StoreError),
}

impl Torn {
    /// Part of it is in the file, and more than the tail in the log.
    async fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let work = TempDir::new().unwrap();
        let (mut records, mut after) = (Records::new(), BTreeMap::new());
        let mut late = (Revision(0), Vec::new());
        for part in ["first", "second"] {
            let store = open_when_free(work.path()).await;
            for number in 0_usize..90 {
                let key = format!("/a/{}", number * 7 % 60);
                let write = match number % 11 {
                    10 => Write::Delete { key },
                    _ => Write::Put {
                        key,
                        value: format!("{part} {number} {}", "v".repeat(900)).into_bytes(),
                    },
                };
                match &write {
                    Write::Put { key, value } => records.insert(key.clone(), value.clone()),
                    Write::Delete { key } => records.remove(key),
                };
                let mut transaction = Transaction::default();
                transaction.writes.push(write);
                store.commit(transaction).await.unwrap();
                let (_, revision) = list(&store).await;
                after.insert(revision, records.clone());
                if part == "second" && number == 45 {
                    late = (
                        revision,
                        std::fs::read(work.path().join("hostler.newest")).unwrap(),
                    );
                }
            }
            if part == "first" {
                drop(store);
                until_closed(work.path()).await;
            } else {
                // While it is open: closing would leave one file.
                copy_dir(work.path(), dir.path());
            }
        }
        let torn = Self { dir, after, late };
        for name in ["hostler.db", "hostler.db-wal"] {
            assert!(torn.bytes(name).len() > TAIL / 2, "{name} is worth tearing");
        }
        torn
    }

    /// The same after a clean end: one file.
    async fn closed(self) -> Self {
        drop(open_when_free(self.dir.path()).await);
        until_closed(self.dir.path()).await;
        self
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap()
    }

    fn newest(&self) -> Revision {
        *self.after.keys().next_back().unwrap()
    }

    /// Opens a copy in which `name` is `bytes`, and holds it to what must be so. Whether it serves.
    async fn holds(&self, name: &str, bytes: &[u8], witness: Witness, what: &str) -> bool {
        let copy = TempDir::new().unwrap();
        copy_dir(self.dir.path(), copy.path());
        std::fs::write(copy.path().join(name), bytes).unwrap();
        let known = witness.tear(copy.path(), self);
        let read = |name: &str| std::fs::read(copy.path().join(name)).unwrap_or_default();
        let before = (read("hostler.db"), read("hostler.db-wal"), read("hostler.newest"));
        let what = format!("{name} {what}, {witness:?}");
        match opened(copy.path()).await {
            Opened::Serves(revision, records) => {
                assert_eq!(
                    Some(&records),
                    self.after.get(&revision),
                    "{what}: a state that never was"
                );
                assert!(
                    revision >= known,
                    "{what}: revision {revision:?} is served in silence, {known:?} was known"
                );
                true
            }
            Opened::Refused(error) => {
                let sentence = Chain(&error).to_string();
                assert!(
                    sentence.contains("hostler.") && !sentence.contains('\n'),
                    "{what}: {sentence}"
                );
                let now = (read("hostler.db"), read("hostler.db-wal"), read("hostler.newest"));
                assert!(before == now, "{what}: refused, and changed all the same");
                false
            }
        }
    }
}

impl Torn {
    /// Each sector of the tail of `name` zeroed, and one bit of it flipped. How many were refused.
    async fn survives_damage(&self, name: &str) -> usize {
        let bytes = self.bytes(name);
        let sectors = bytes.len().div_ceil(SECTOR);
        let mut refused = 0;
        for sector in sectors.saturating_sub(TAIL / SECTOR)..sectors {
            let (from, to) = (sector * SECTOR, bytes.len().min((sector + 1) * SECTOR));
            let mut zeroed = bytes.clone();
            zeroed[from..to].fill(0);
            // At another place of each sector: all of them together are most of what a page has.
            let at = from + (sector * 37) % (to - from);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (sector % 8);
            for (damaged, what) in [
                (zeroed, format!("zeroed at {from}")),
                (flipped, format!("flipped at {at}")),
            ] {
                refused += usize::from(!self.holds(name, &damaged, Witness::Exact, &what).await);
            }
        }
        refused
    }
}

/// What is known beside a torn store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Witness {
    /// Everything: the process was killed.
    Exact,
    /// The half of it: so long ago was the last flush before the power failed.
    Late,
    /// Nothing: somebody took the file away.
    Gone,
}

impl Witness {
    /// The oldest revision that may be served.
    fn tear(self, dir: &Path, torn: &Torn) -> Revision {
        let path = dir.join("hostler.newest");
        match self {
            Self::Exact => torn.newest(),
            Self::Late => {
                std::fs::write(&path, &torn.late.1).unwrap();
                torn.late.0
            }
            Self::Gone => {
                std::fs::remove_file(&path).unwrap();
                Revision(0)
            }
        }
    }
}

async fn until_closed(dir: &Path) {
    wait::until("the log is moved into the file", || async {
        (!dir.join("hostler.db-wal").exists()).then_some(())
    })
    .await;
}

async fn open_when_free(dir: &Path) -> Store {
    loop {
        // The writer's thread lets the lock go when it has ended.
        match Store::open(dir) {
            Ok(store) => return store,
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn list(store: &Store) -> (Records, Revision) {
    let range = Range {
        prefix: "/".into(),
        beyond: None,
        at_most: usize::MAX,
        order: Order::Ascending,
    };
    let (entries, revision) = store.list(range).await.unwrap();
    let records = entries.into_iter().map(|entry| (entry.key, entry.value));
    (records.collect(), revision)
}

async fn opened(dir: &Path) -> Opened {
    match Store::open(dir) {
        Err(error) => Opened::Refused(error),
        Ok(store) => {
            let (records, revision) = list(&store).await;
            Opened::Serves(revision, records)
        }
    }
}

/// Each length that is cut off: sector by sector, and all of it.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let sectors = (SECTOR..=TAIL.min(length)).step_by(SECTOR);
    sectors.map(move |cut| length - cut).chain([0])
}

#[tokio::test]
async fn a_log_cut_at_any_sector_is_refused_when_it_lost_what_was_acknowledged() {
    let torn = Torn::make().await;
    let log = torn.bytes("hostler.db-wal");
    let (mut served, mut refused) = (0, 0);
    for length in cuts(log.len()) {
        for witness in [Witness::Exact, Witness::Late, Witness::Gone] {
            let what = format!("cut to {length} of {}", log.len());
            let serves = torn.holds("hostler.db-wal", &log[..length], witness, &what).await;
            assert!(
                !(serves && witness == Witness::Exact),
                "{what}: it lacks a commit"
            );
            assert!(
                !(serves && witness == Witness::Gone),
                "{what}: a part that ends with a commit is whole to SQLite"
            );
            served += usize::from(serves);
            refused += usize::from(!serves);
        }
    }
    assert!(served > 10 && refused > 100, "{served} served, {refused} refused");
}

#[tokio::test]
async fn a_file_cut_at_any_sector_is_refused() {
    let torn = Torn::make().await;
    let file = torn.bytes("hostler.db");
    for length in cuts(file.len()) {
        for witness in [Witness::Exact, Witness::Gone] {
            let what = format!("cut to {length} of {}", file.len());
            torn.holds("hostler.db", &file[..length], witness, &what).await;
        }
    }
    // Without a log that has the missing pages, none of them opens.
    let closed = torn.closed().await;
    let file = closed.bytes("hostler.db");
    for length in cuts(file.len()) {
        let copy = TempDir::new().unwrap();
        copy_dir(closed.dir.path(), copy.path());
        std::fs::write(copy.path().join("hostler.db"), &file[..length]).unwrap();
        let opened = opened(copy.path()).await;
        assert!(
            matches!(opened, Opened::Refused(_)),
            "cut to {length}: {opened:?}"
        );
    }
}

#[tokio::test]
async fn zeroed_sectors_and_flipped_bits_never_change_what_is_served() {
    let torn = Torn::make().await;
    for name in ["hostler.db", "hostler.db-wal", "hostler.newest"] {
        torn.survives_damage(name).await;
    }
    // Without a log that is newer, what is read is what is in the file.
    let refused = torn.closed().await.survives_damage("hostler.db").await;
    assert!(refused > 100, "{refused} refused");
}

/// `hostler-coordinator` with these arguments, which do not make it serve: its exit code and what it said.
fn coordinator(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command("hostler-coordinator")
        .arg("--config")
        .arg(site.path("coordinator.toml"))
        .args(arguments)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn remove_store(site: &Site) {
    for name in ["hostler.db", "hostler.db-wal", "hostler.db-shm"] {
        let _ = std::fs::remove_file(site.path("data").join(name));
    }
}

#[tokio::test]
async fn a_coordinator_whose_store_has_vanished_serves_no_empty_list() {
    let site = Site::make();
    site.coordinator().await.kill();
    let data = site.path("data");
    for emptied in [false, true] {
        remove_store(&site);
        if emptied {
            std::fs::write(data.join("hostler.db"), "").unwrap();
        }
        let (code, said) = coordinator(&site, &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("is gone") && said.contains("--accept-loss"),
            "it says what to do: {said}"
        );
    }
    let (code, said) = coordinator(&site, &["--accept-loss"]);
    assert_eq!(code, Some(0), "{said}");
    site.coordinator().await.kill();
}

#[tokio::test]
async fn a_store_that_is_restored_while_the_fleet_went_on_begins_nothing_again() {
    let site = Site::make();
    let script = site.write(
        "activation.sh",
        "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 9\ncase $1 in\nstart) echo start >>turns; while [ ! -e go ]; do sleep 0.05; done; touch active ;;\nstop) rm -f active ;;\nstatus) test -e active ;;\nesac\n",
    );
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.display();
    // Without any domain: what runs would hold up the destroy.
    let libvirt = site.write(
        "libvirt.xml",
        "<node><network><name>default</name><bridge name='virbr7'/><ip address='192.168.77.1' netmask='255.255.255.0'/></network></node>",
    );
    site.configure_agent(
        &format!("test://{}", libvirt.display()),
        &format!("[[hypervisor]]\nid = 'hv1'\nkind = 'host'\nnetworks = [{{ name = 'default' }}]\nactivation_timeout = '60s'\nactivation = {{ type = 'exec', start = ['{script}', 'start'], stop = ['{script}', 'stop'], status = ['{script}', 'status'] }}\n"),
    );
    let serving = site.coordinator().await;
    let _agent = site.agent();
    site.until_state("hv1", "out_of_service").await;
    let mut create = site.hostler("operator");
    let mut create = Process::start(
        create.args(["hypervisors", "create", "hv1"]),
        &site.path("create.log"),
    );
    wait::until("the activation begins", || async {
        site.path("turns").exists().then_some(())
    })
    .await;
    let copy = site.path("copy.db");
    let copied = copy.display().to_string();
    let (code, said) = coordinator(&site, &["--backup-store", &copied]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = coordinator(&site, &["--backup-store", &copied]);
    assert_eq!(code, Some(1), "a copy is never replaced: {said}");
    // The fleet goes on: what was under way is done, and undone by somebody else.
    site.write("go", "");
    assert!(create.ended().await.success(), "{}", create.printed());
    let (code, out, err) = site
        .run_hostler("operator", &["hypervisors", "destroy", "hv1"])
        .await;
    assert_eq!(code, 0, "{out}{err}");
    serving.kill();
    remove_store(&site);
    std::fs::copy(&copy, site.path("data/hostler.db")).unwrap();
    let (code, said) = coordinator(&site, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("was acknowledged") && said.contains("--accept-loss"),
        "{said}"
    );
    let (code, said) = coordinator(&site, &["--accept-loss"]);
    assert_eq!(code, Some(0), "{said}");
    let _serving = site.coordinator().await;
    let (_, out, err) = site
        .run_hostler("viewer", &["--output", "json", "operations", "list"])
        .await;
    let history: serde_json::Value = serde_json::from_str(&out).unwrap();
    let restored = &history["operations"][0];
    let message = restored["message"].as_str().unwrap();
    assert!(
        message.contains("what became of this operation is not known"),
        "{out}{err}"
    );
    let id = restored["id"].as_str().unwrap();
    let (code, out, err) = site
        .run_hostler("admin", &["operations", "resolve", id, "--note", "looked"])
        .await;
    assert_eq!(code, 0, "{out}{err}");
    // The agent is back, and has been offered what there is to offer.
    site.until_state("hv1", "out_of_service").await;
    let (code, out, err) = site
        .run_hostler("operator", &["hypervisors", "destroy", "hv1"])
        .await;
    assert_eq!(code, 0, "{out}{err}");
    let turns = std::fs::read_to_string(site.path("turns")).unwrap();
    assert_eq!(turns.lines().count(), 1, "it was not done again");
    assert!(!site.path("active").exists());
}
