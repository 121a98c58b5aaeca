//! The real programs on a real btrfs pool and a real restic repository: what people do, what they do wrong, and
//! what breaks under them. Whatever happens, every file of the pool is as it was.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_tests::pool::{Backups, LoopPool, checksums, must};
use hostler_tests::programs::{Process, Site};
use hostler_tests::wait;

const MIB: u64 = 1 << 20;

/// One coordinator, one agent, one pool.
struct Storage {
    site: Site,
    pool: LoopPool,
    agent: Option<Process>,
    _coordinator: Process,
}

impl Storage {
    async fn begin(pool: LoopPool, backups: Backups) -> Self {
        let site = Site::make();
        if backups == Backups::Yes {
            pool.init_repository();
        }
        site.configure_agent("test:///default", &pool.configuration(backups));
        let coordinator = site.coordinator().await;
        let mut storage = Self {
            site,
            pool,
            agent: None,
            _coordinator: coordinator,
        };
        storage.start_agent().await;
        storage
    }

    async fn start_agent(&mut self) {
        self.agent = Some(self.site.agent());
        wait::until("the pool is listed and its owner connected", || async {
            (self.listed().await?["connected"] == true).then_some(())
        })
        .await;
    }

    async fn listed(&self) -> Option<serde_json::Value> {
        let (code, out, _) = self
            .site
            .run_hostler("viewer", &["--output", "json", "storage", "list"])
            .await;
        let list: serde_json::Value = serde_json::from_str(&out).ok().filter(|_| code == 0)?;
        list["pools"].as_array()?.first().cloned()
    }

    /// Runs `hostler` as an operator; what it printed must hold every word.
    async fn says(&self, code: i32, arguments: &[&str], words: &[&str]) -> String {
        let (found, out, err) = self.site.run_hostler("operator", arguments).await;
        let said = format!("{out}{err}");
        assert_eq!(found, code, "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
        }
        said
    }

    /// Starts an operation and kills the agent as soon as its log holds `when`; the new agent ends it.
    async fn killed_at(&mut self, when: &str, arguments: &[&str]) -> (i32, String) {
        let log = self.site.path("agent.log");
        let seen = std::fs::read_to_string(&log).unwrap().len();
        let mut command = self.site.hostler("operator");
        let mut client = Process::start(command.args(arguments), &self.site.path("client.log"));
        let agent = self.agent.take().unwrap();
        wait::until(&format!("the agent says {when:?}"), || async {
            let said = std::fs::read_to_string(&log).unwrap();
            said[seen..].contains(when).then_some(())
        })
        .await;
        agent.kill();
        self.start_agent().await;
        let code = client.ended().await.code().unwrap_or(-1);
        (code, client.printed())
    }

    /// No snapshot, lock or staging directory of an operation is left.
    fn assert_nothing_is_left(&self) {
        let own = self.pool.mount_point().join(".hostler");
        let left: Vec<_> = std::fs::read_dir(&own)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
        let locks = self.pool.repository().join("locks");
        let locks = std::fs::read_dir(locks).map_or(0, Iterator::count);
        assert_eq!(locks, 0, "the repository is locked");
    }
}

#[tokio::test]
async fn a_pool_grows_is_backed_up_restored_and_shrinks_without_losing_a_byte() {
    let pool = LoopPool::make(&[400], &[300, 500]);
    pool.fill("desktops", &[8_000, 1, 0, 20_000]);
    let before = pool.checksums();
    let mut storage = Storage::begin(pool, Backups::Yes).await;
    let size = storage.pool.size();
    let listed = storage.listed().await.unwrap();
    assert_eq!(listed["size_bytes"], size, "{listed}");

    // The spare with the least excess, not the first or the largest.
    storage
        .says(0, &["storage", "expand", "250MiB", "--dry-run"], &["disk-1"])
        .await;
    assert_eq!(storage.pool.size(), size, "a dry run changes nothing");
    storage
        .says(0, &["storage", "expand", "250MiB"], &["disk-1"])
        .await;
    assert_eq!(storage.pool.size(), size + 300 * MIB);

    storage.says(0, &["backups", "create"], &["4 files"]).await;
    let thesis = storage.pool.mount_point().join("desktops/file-1");
    std::fs::remove_file(&thesis).unwrap();
    storage
        .says(
            0,
            &["backups", "restore", "latest", "--path", "desktops/file-1"],
            &[],
        )
        .await;
    assert_eq!(storage.pool.checksums(), before);

    storage
        .says(0, &["storage", "shrink", "310MiB", "--dry-run"], &["disk-1"])
        .await;
    storage
        .says(0, &["storage", "shrink", "310MiB"], &["disk-1"])
        .await;
    let after = storage.pool.size();
    assert!(after >= size - 10 * MIB && after <= size, "{size} became {after}");
    assert_eq!(storage.pool.checksums(), before);
    storage.pool.scrub();
    storage.assert_nothing_is_left();

    // Anyone with the password reads it.
    storage.pool.restic(&["check", "--read-data"]);
    let restored = storage.pool.path("restored");
    let target = restored.to_str().unwrap();
    storage.pool.restic(&["restore", "latest", "--target", target]);
    assert_eq!(checksums(&restored), before);
    storage.agent.take().unwrap().signal("TERM");
}

#[tokio::test]
async fn amounts_that_make_no_sense_change_nothing_and_say_why() {
    let pool = LoopPool::make(&[300], &[300]);
    let storage = Storage::begin(pool, Backups::No).await;
    let size = storage.pool.size();
    storage.says(2, &["storage", "expand", "0"], &["zero"]).await;
    storage.says(2, &["storage", "shrink", "0"], &["zero"]).await;
    storage.says(2, &["storage", "expand", "ten"], &["10GiB"]).await;
    storage
        .says(2, &["storage", "expand", "--", "-1"], &["10GiB"])
        .await;
    let enough = ["can be added", "300.00 MiB"];
    storage
        .says(1, &["storage", "expand", "16777215TiB"], &enough)
        .await;
    storage.says(1, &["storage", "expand", "301MiB"], &enough).await;
    storage
        .says(1, &["storage", "expand", "301MiB", "--dry-run"], &enough)
        .await;
    // Nothing that can be taken away is as small as that.
    storage.says(1, &["storage", "shrink", "1"], &["reserve"]).await;
    assert_eq!(storage.pool.size(), size);
    assert_eq!(storage.pool.members().len(), 1);
}

#[tokio::test]
async fn a_spare_that_holds_something_is_refused_by_name_and_not_touched() {
    let mut pool = LoopPool::make(&[300], &[]);
    let ext4 = pool.add_disk("disk-ext4", 300);
    must("mkfs.ext4", &["-q", &ext4]);
    let table = pool.add_disk("disk-table", 300);
    must(
        "sh",
        &["-c", &format!("echo 'label: gpt' | sfdisk --quiet {table}")],
    );
    let before: Vec<_> = ["disk-ext4", "disk-table"]
        .map(|name| std::fs::read(pool.path("files").join(name)).unwrap())
        .into();
    let storage = Storage::begin(pool, Backups::No).await;
    storage
        .says(
            1,
            &["storage", "expand", "100MiB"],
            &["disk-ext4", "ext4", "disk-table", "gpt"],
        )
        .await;
    let after: Vec<_> = ["disk-ext4", "disk-table"]
        .map(|name| std::fs::read(storage.pool.path("files").join(name)).unwrap())
        .into();
    assert!(before == after, "a refused device was written to");
    assert_eq!(storage.pool.members().len(), 1);
}

#[tokio::test]
async fn a_pool_that_is_not_mounted_or_read_only_is_listed_with_the_reason_and_left_alone() {
    let pool = LoopPool::make(&[300], &[300]);
    pool.fill("a", &[100]);
    let storage = Storage::begin(pool, Backups::No).await;
    storage.pool.unmount();
    storage
        .says(1, &["storage", "expand", "100MiB"], &["not mounted"])
        .await;
    storage.pool.mount(&["-o", "ro"]);
    storage
        .says(1, &["storage", "expand", "100MiB"], &["read-only"])
        .await;
    storage
        .says(1, &["storage", "shrink", "100MiB"], &["read-only"])
        .await;
    wait::until("the list says why", || async {
        let pool = storage.listed().await?;
        pool["problem"].as_str()?.contains("read-only").then_some(())
    })
    .await;
    storage.pool.unmount();
    storage.pool.mount(&[]);
    storage.says(0, &["storage", "expand", "100MiB"], &[]).await;
}

#[tokio::test]
async fn an_expand_survives_kill_9_of_the_agent_at_every_step() {
    let pool = LoopPool::make(&[300], &[200, 200, 200]);
    pool.fill("a", &[5_000]);
    let before = pool.checksums();
    let mut storage = Storage::begin(pool, Backups::No).await;
    for (number, step) in ["step 1/", "step 2/", "step 3/"].into_iter().enumerate() {
        let (code, said) = storage.killed_at(step, &["storage", "expand", "150MiB"]).await;
        assert_eq!(code, 0, "{said}");
        // Once, not twice.
        assert_eq!(storage.pool.members().len(), 2 + number, "{said}");
        assert_eq!(storage.pool.checksums(), before);
    }
}

#[tokio::test]
async fn a_shrink_survives_kill_9_of_the_agent_at_every_step() {
    let pool = LoopPool::make(&[400, 300, 300, 300], &[]);
    pool.fill("a", &[20_000, 20_000, 20_000]);
    let before = pool.checksums();
    let mut storage = Storage::begin(pool, Backups::No).await;
    for step in ["step 1/", "step 2/", "step 3/"] {
        let size = storage.pool.size();
        let (code, said) = storage.killed_at(step, &["storage", "shrink", "300MiB"]).await;
        assert_eq!(code, 0, "{said}");
        // Once, not twice.
        let given = size - storage.pool.size();
        assert!(given > 0 && given <= 300 * MIB, "{given}: {said}");
        assert_eq!(storage.pool.checksums(), before);
    }
    storage.pool.scrub();
}

#[tokio::test]
async fn a_backup_survives_kill_9_of_the_agent_at_every_step() {
    let pool = LoopPool::make(&[500], &[]);
    pool.fill("a", &[30_000, 1_000]);
    let before = pool.checksums();
    let mut storage = Storage::begin(pool, Backups::Yes).await;
    for step in 1..=6 {
        let (code, said) = storage
            .killed_at(&format!("step {step}/"), &["backups", "create"])
            .await;
        assert_eq!(code, 0, "{said}");
        storage.assert_nothing_is_left();
    }
    assert_eq!(storage.pool.checksums(), before);
    storage.pool.restic(&["check", "--read-data"]);
    let snapshots: serde_json::Value =
        serde_json::from_str(&storage.pool.restic(&["snapshots", "--json"])).unwrap();
    assert_eq!(snapshots.as_array().unwrap().len(), 3, "keep = {{ last = 3 }}");
}

#[tokio::test]
async fn a_repository_that_is_missing_full_or_of_another_password_is_told_apart() {
    let pool = LoopPool::make(&[400], &[]);
    pool.fill("a", &[20_000]);
    let storage = Storage::begin(pool, Backups::Yes).await;
    let pool = &storage.pool;

    pool.write_password("another password");
    storage.says(1, &["backups", "create"], &["password"]).await;
    pool.write_password("a good password");

    let aside = pool.path("aside");
    std::fs::rename(pool.repository(), &aside).unwrap();
    storage.says(1, &["backups", "create"], &["restic", "init"]).await;
    assert!(
        !pool.repository().join("config").exists(),
        "no repository is made by itself"
    );

    std::fs::create_dir_all(pool.repository()).unwrap();
    let repository = pool.repository();
    let repository = repository.to_str().unwrap();
    must("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", repository]);
    pool.restic(&["init"]);
    let said = storage.site.run_hostler("operator", &["backups", "create"]).await;
    must("umount", &[repository]);
    assert_eq!(said.0, 1, "{said:?}");
    assert!(format!("{said:?}").contains("is full"), "{said:?}");

    std::fs::remove_dir(pool.repository()).unwrap();
    std::fs::rename(&aside, pool.repository()).unwrap();
    storage.says(0, &["backups", "create"], &[]).await;
    storage.assert_nothing_is_left();
}

#[tokio::test]
async fn two_expands_and_a_shrink_beside_a_backup_take_their_turns() {
    let pool = LoopPool::make(&[300], &[200, 200]);
    pool.fill("a", &[30_000]);
    let before = pool.checksums();
    let storage = Storage::begin(pool, Backups::Yes).await;
    let first = ["storage", "expand", "150MiB"];
    let second = ["storage", "expand", "160MiB"];
    let (one, two) = tokio::join!(storage.says(0, &first, &[]), storage.says(0, &second, &[]));
    assert_eq!(storage.pool.members().len(), 3, "{one}{two}");
    let shrink = ["storage", "shrink", "200MiB"];
    let backup = ["backups", "create"];
    let (one, two) = tokio::join!(storage.says(0, &backup, &[]), storage.says(0, &shrink, &[]));
    assert_eq!(storage.pool.members().len(), 2, "{one}{two}");
    assert_eq!(storage.pool.checksums(), before);
    storage.assert_nothing_is_left();
}

#[tokio::test]
async fn a_restore_changes_nothing_that_is_there() {
    let pool = LoopPool::make(&[400], &[]);
    pool.fill("a", &[1_000, 1_000]);
    let storage = Storage::begin(pool, Backups::Yes).await;
    storage.says(0, &["backups", "create"], &[]).await;
    let before = storage.pool.checksums();
    let full = storage.pool.mount_point().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "mine").unwrap();
    let full = full.to_str().unwrap();
    storage
        .says(1, &["backups", "restore", "latest", "--to", full], &["not empty"])
        .await;
    storage
        .says(
            1,
            &["backups", "restore", "latest", "--to", "/etc/hostler-test"],
            &["restore_into"],
        )
        .await;
    storage
        .says(
            1,
            &["backups", "restore", "latest", "--path", "a/file-0"],
            &["a/file-0", "overwrite"],
        )
        .await;
    storage
        .says(
            1,
            &["backups", "restore", "latest", "--path", "a/no-such"],
            &["a/no-such"],
        )
        .await;
    storage
        .says(
            1,
            &["backups", "restore", "abcdef12", "--to", full],
            &["abcdef12"],
        )
        .await;
    std::fs::remove_file(storage.pool.mount_point().join("full/mine")).unwrap();
    storage
        .says(0, &["backups", "restore", "latest", "--to", full], &[])
        .await;
    assert_eq!(checksums(&storage.pool.mount_point().join("full")), before);
    storage.assert_nothing_is_left();
}

/// Counts in two files, the left one always first and on its way to the disk before the right one.
fn count(left: &std::path::Path, right: &std::path::Path, go_on: &std::sync::atomic::AtomicBool) -> u64 {
    let mut number = 0_u64;
    while go_on.load(std::sync::atomic::Ordering::Relaxed) {
        number += 1;
        for path in [left, right] {
            let mut options = std::fs::File::options();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .unwrap();
            std::io::Write::write_all(&mut file, format!("{number:020}").as_bytes()).unwrap();
            file.sync_data().unwrap();
        }
    }
    number
}

#[tokio::test]
async fn a_backup_is_of_one_instant_though_files_change_meanwhile() {
    let pool = LoopPool::make(&[500], &[]);
    pool.fill("a", &[40_000]);
    pool.fill("z", &[40_000]);
    let storage = Storage::begin(pool, Backups::Yes).await;
    let mount = storage.pool.mount_point();
    let (left, right) = (mount.join("a/left"), mount.join("z/right"));
    let go_on = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let counting = go_on.clone();
    let counter = std::thread::spawn(move || count(&left, &right, &counting));
    for _ in 0..3 {
        storage.says(0, &["backups", "create"], &[]).await;
    }
    go_on.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(counter.join().unwrap() > 3, "nothing changed meanwhile");
    let list = storage.pool.restic(&["snapshots", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    for backup in list.as_array().unwrap() {
        let id = backup["id"].as_str().unwrap();
        let read = |path: &str| -> u64 { storage.pool.restic(&["dump", id, path]).trim().parse().unwrap() };
        let (left, right) = (read("a/left"), read("z/right"));
        assert!(
            left == right || left == right + 1,
            "{left} and {right} are not of one instant"
        );
    }
}
