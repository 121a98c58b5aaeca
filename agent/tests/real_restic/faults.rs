//! What is wrong with the repository, the pool or the files, and what is said of it. Nothing is left behind.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hostler_agent::command::Program;
use hostler_common::operation::Request;

use crate::rig::{LONG, Rig, Story, job, restore, tool, undo};

fn fails(rig: &Rig) -> String {
    let cause = rig.run(Request::CreateBackup).unwrap_err();
    assert!(!rig.snapshot_is_taken(), "{cause}");
    assert!(!cause.contains("s3cret-p4ss"), "{cause}");
    cause
}

#[test]
fn a_repository_that_is_not_there_is_never_made() {
    let rig = Rig::without_repository();
    std::fs::write(rig.pool("file"), "1").unwrap();
    for _ in 0..2 {
        let cause = fails(&rig);
        assert!(
            cause.starts_with("step 1 (check the backup repository): there is no restic repository at"),
            "{cause}"
        );
        assert!(cause.contains(" init`"), "{cause}");
        assert!(!rig.repository().join("config").exists());
        // The second time as an empty mount point.
        std::fs::create_dir_all(rig.repository()).unwrap();
    }
    assert!(
        rig.backups
            .list()
            .unwrap_err()
            .contains("there is no restic repository")
    );
}

#[test]
fn a_wrong_password_and_a_missing_password_file_are_told_apart() {
    let rig = Rig::new();
    std::fs::write(&rig.settings.password_file, "other").unwrap();
    assert!(fails(&rig).contains("is not that of the repository"));
    std::fs::remove_file(&rig.settings.password_file).unwrap();
    assert!(fails(&rig).contains("cannot be used"));
}

#[test]
fn a_server_that_does_not_answer_is_named_without_its_credentials() {
    let mut rig = Rig::new();
    rig.change(|settings| settings.repository = "rest:http://user:s3cret-p4ss@127.0.0.1:1/x".into());
    let cause = fails(&rig);
    assert!(
        cause.contains("the repository rest:http://127.0.0.1:1/x cannot be reached"),
        "{cause}"
    );
    assert_eq!(rig.backups.repository_for_people(), "rest:http://127.0.0.1:1/x");
}

#[test]
fn an_empty_pool_is_not_backed_up() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.pool("only/folders")).unwrap();
    assert!(fails(&rig).contains("pool default is empty"));
    assert!(
        rig.verify()
            .unwrap_err()
            .contains("there is no backup of pool default yet")
    );
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        tool("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn mount(arguments: &[&str], at: &Path) -> Mounted {
    let mut all = arguments.to_vec();
    all.push(at.to_str().unwrap());
    tool("mount", &all);
    Mounted(at.to_owned())
}

fn fill(path: &Path, megabytes: u64) {
    let noise = std::io::Read::take(std::fs::File::open("/dev/urandom").unwrap(), megabytes << 20);
    let mut noise = noise;
    std::io::copy(&mut noise, &mut std::fs::File::create(path).unwrap()).unwrap();
}

#[test]
fn a_full_target_fails_the_backup_and_keeps_the_old_one() {
    let rig = Rig::without_repository();
    std::fs::create_dir(rig.repository()).unwrap();
    let _mounted = mount(&["-t", "tmpfs", "-o", "size=24m", "none"], rig.repository());
    rig.restic(&["init"]);
    std::fs::write(rig.pool("small"), "1").unwrap();
    rig.back_up();
    fill(&rig.pool("large"), 60);
    let cause = fails(&rig);
    assert!(
        cause.starts_with("step 3") && cause.contains("is full"),
        "{cause}"
    );
    assert_eq!(rig.locks(), 0);
    std::fs::remove_file(rig.pool("large")).unwrap();
    assert_eq!(rig.backups.list().unwrap().len(), 1);
    rig.restic(&["check", "--read-data"]);
}

#[test]
fn a_file_that_cannot_be_read_fails_the_backup_and_is_named() {
    let rig = Rig::new();
    std::fs::write(rig.pool("good"), "1").unwrap();
    std::fs::write(rig.pool("bad file"), "").unwrap();
    // A regular file whose reading ends in EIO.
    let _mounted = mount(&["--bind", "/proc/self/mem"], &rig.pool("bad file"));
    let cause = fails(&rig);
    assert!(
        cause.contains("some files could not be read: ") && cause.contains("bad file"),
        "{cause}"
    );
    assert_eq!(rig.backups.list().unwrap(), []);
}

/// A restic that reads a backup's data from a pipe, so that it holds its lock until it is killed.
struct Holder(std::process::Child);

impl Holder {
    fn of(rig: &Rig) -> Self {
        #[allow(clippy::disallowed_methods, reason = "it must outlive the call")]
        let child = std::process::Command::new("/usr/bin/restic")
            .args(["-r", &rig.settings.repository, "--no-cache", "-p"])
            .arg(&rig.settings.password_file)
            .args(["backup", "--stdin"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let holder = Self(child);
        let begun = Instant::now();
        while rig.locks() == 0 {
            assert!(begun.elapsed() < LONG, "no lock");
            std::thread::yield_now();
        }
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_restic_is_waited_for_and_then_named_and_its_lock_is_left_alone() {
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    let holder = Holder::of(&rig);
    let story = Arc::new(Story::default());
    // A check needs the repository for itself.
    let cause = rig.tell(Request::CreateBackup, &story).unwrap_err();
    let pid = format!("PID {}", holder.0.id());
    assert!(
        cause.starts_with("step 4") && cause.contains(&pid) && cause.contains("since "),
        "{cause}"
    );
    assert!(story.text().contains("waiting for up to 3 s"), "{}", story.text());
    assert_eq!(rig.locks(), 1);
    assert_eq!(
        rig.backups.list().unwrap(),
        [],
        "what could not be checked is not kept"
    );
}

#[test]
fn the_lock_of_a_dead_restic_is_removed_and_said() {
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    let holder = Holder::of(&rig);
    let pid = holder.0.id();
    drop(holder);
    assert_eq!(rig.locks(), 1);
    let story = Arc::new(Story::default());
    rig.tell(Request::CreateBackup, &story).unwrap();
    assert!(
        story.text().contains("removed the stale lock"),
        "{}",
        story.text()
    );
    assert!(
        story.text().contains(&format!("of process {pid} on ")),
        "{}",
        story.text()
    );
    assert_eq!(rig.locks(), 0);
}

#[test]
fn what_is_undone_after_a_crash_leaves_no_lock_of_a_dead_restic() {
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    rig.back_up();
    let verify = Request::VerifyBackup {
        id: None,
        read: hostler_common::operation::ReadShare::ALL,
    };
    let into = hostler_common::operation::RestoreInto::Directory(rig.restored("x"));
    for request in [Request::CreateBackup, restore(into, &[]), verify] {
        let job = job(request.clone());
        let planned = rig.plan(&job, None).unwrap();
        let story = Arc::new(Story::default());
        let before = planned.steps[0].look().unwrap();
        planned.steps[0].apply(before, &story.progress()).unwrap();
        drop(Holder::of(&rig));
        assert_eq!(rig.locks(), 1);
        // The next process has the same steps.
        let again = rig.plan(&job, Some(&planned.decided)).unwrap();
        undo(&again, &[before], &story);
        assert_eq!(rig.locks(), 0, "{request:?}");
    }
}

#[test]
fn what_goes_on_after_a_crash_leaves_no_lock_of_a_dead_restic() {
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    rig.back_up();
    let restore = |name: &str| {
        let into = hostler_common::operation::RestoreInto::Directory(rig.restored(name));
        restore(into, &[])
    };
    // The steps in which restic runs, but for the first, which looks for locks anyway.
    let backup = || Request::CreateBackup;
    for (request, crashed) in [(backup(), 2), (backup(), 3), (backup(), 5), (restore("x"), 1)] {
        let job = job(request.clone());
        let story = Arc::new(Story::default());
        let mut planned = rig.plan(&job, None).unwrap();
        let decided = planned.decided.clone();
        for place in 0..planned.steps.len() {
            if place == crashed {
                drop(Holder::of(&rig));
                assert_eq!(rig.locks(), 1);
                // The next process has the same steps.
                planned = rig.plan(&job, Some(&decided)).unwrap();
            }
            let before = planned.steps[place].look().unwrap();
            planned.steps[place].apply(before, &story.progress()).unwrap();
        }
        assert_eq!(
            rig.locks(),
            0,
            "{request:?} after a crash in step {}",
            crashed + 1
        );
    }
}

fn flip_a_byte(rig: &Rig) {
    let found = tool(
        "find",
        &[
            rig.repository().join("data").to_str().unwrap(),
            "-type",
            "f",
            "-size",
            "+1M",
        ],
    );
    let pack = found.lines().next().unwrap();
    let mut bytes = std::fs::read(pack).unwrap();
    bytes[1000] ^= 0xff;
    tool("chmod", &["u+w", pack]);
    std::fs::write(pack, bytes).unwrap();
}

#[test]
fn one_wrong_byte_in_the_repository_is_found_and_old_backups_are_doubted() {
    let mut rig = Rig::new();
    rig.change(|settings| settings.read_back = hostler_common::operation::ReadShare::ALL);
    fill(&rig.pool("noise"), 8);
    rig.back_up();
    let id = rig.backups.list().unwrap();
    rig.verify().unwrap();
    flip_a_byte(&rig);
    let cause = rig.verify().unwrap_err();
    assert!(
        cause.contains("is damaged, so that older backups may be damaged too: "),
        "{cause}"
    );
    assert!(
        cause.contains("Pack ID does not match") || cause.contains("pack "),
        "{cause}"
    );
    let cause = fails(&rig);
    assert!(
        cause.starts_with("step 4 (check the backup): ") && cause.contains("damaged"),
        "{cause}"
    );
    assert_eq!(
        rig.backups.list().unwrap(),
        id,
        "the new one is taken back, the old one stays"
    );
    assert_eq!(rig.locks(), 0);
}

/// Whether a backup is being made: restic holds its lock, and has all of the data before it.
fn restic_writes(rig: &Rig) -> impl Fn(&Story) -> bool + Send + Sync + use<> {
    let locks = rig.repository().join("locks");
    move |story| {
        let mut names = locks.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        names.any(|name| name.len() == 64) && story.text().contains("backing up")
    }
}

#[test]
fn a_backup_that_is_cancelled_in_the_middle_leaves_nothing() {
    let rig = Rig::new();
    fill(&rig.pool("noise"), 400);
    let writing = restic_writes(&rig);
    let story = Story::cancelled_when(writing);
    let cause = rig.tell(Request::CreateBackup, &story).unwrap_err();
    assert!(
        cause.starts_with("step 3") && cause.ends_with("cancelled by somebody"),
        "{cause}"
    );
    assert!(!rig.snapshot_is_taken());
    assert_eq!((rig.locks(), rig.backups.list().unwrap().len()), (0, 0));
    rig.back_up();
}

#[test]
fn restic_is_found_by_name_and_told_apart_from_what_is_not_restic() {
    let said = Program::find("restic")
        .unwrap()
        .command(["version"])
        .succeed(Duration::from_secs(20));
    assert!(said.unwrap().stdout.starts_with("restic "));
}

#[test]
fn a_restic_that_is_killed_fails_the_backup_and_its_lock_is_removed_by_the_next() {
    let rig = Rig::new();
    fill(&rig.pool("noise"), 400);
    let killed = AtomicBool::new(false);
    let writing = restic_writes(&rig);
    // Nobody cancels: the question is only a moment to strike in, on the thread that is restic's parent.
    let story = Story::cancelled_when(move |story| {
        if writing(story) && !killed.swap(true, Ordering::Relaxed) {
            let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
            for pid in children.split_whitespace() {
                tool("kill", &["-9", pid]);
            }
        }
        false
    });
    let cause = rig.tell(Request::CreateBackup, &story).unwrap_err();
    assert!(
        cause.starts_with("step 3") && cause.contains("signal: 9"),
        "{cause}"
    );
    assert!(!rig.snapshot_is_taken());
    assert_eq!(rig.locks(), 1);
    let story = Arc::new(Story::default());
    rig.tell(Request::CreateBackup, &story).unwrap();
    assert!(
        story.text().contains("removed the stale lock"),
        "{}",
        story.text()
    );
    assert_eq!((rig.locks(), rig.backups.list().unwrap().len()), (0, 1));
}

#[test]
fn a_place_without_room_is_told_before_anything_is_restored() {
    let rig = Rig::new();
    fill(&rig.pool("noise"), 20);
    rig.back_up();
    let small = rig.restored("small");
    std::fs::create_dir(&small).unwrap();
    let _mounted = mount(&["-t", "tmpfs", "-o", "size=4m", "none"], &small);
    let into = hostler_common::operation::RestoreInto::Directory(small.join("x"));
    let cause = rig.restore(into, &[]).unwrap_err();
    assert!(
        cause.starts_with("step 1") && cause.contains("and the files take 20971520 bytes (20.00 MiB)"),
        "{cause}"
    );
    assert_eq!(std::fs::read_dir(&small).unwrap().count(), 0);
}

#[test]
fn a_repository_that_never_answers_does_not_hold_up_a_cancel() {
    // It takes connections and says nothing.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    rig.back_up();
    let id = rig.backups.list().unwrap()[0].id.clone();
    rig.change(|settings| settings.repository = format!("rest:http://{address}/"));
    let soon = Instant::now() + Duration::from_secs(1);
    let delete = job(Request::DeleteBackup {
        id: id.parse().unwrap(),
    });
    let decided = serde_json::json!({ "backup": id });
    for (job, decided) in [(job(Request::CreateBackup), None), (delete, Some(&decided))] {
        let begun = Instant::now();
        let story = Story::cancelled_when(move |_| Instant::now() > soon);
        let planned = rig.plan(&job, decided).unwrap();
        let step = &planned.steps[0];
        let end = step.apply(step.look().unwrap(), &story.progress()).unwrap_err();
        assert!(end.is_cancelled(), "{end}");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn a_damaged_snapshot_is_missed_in_the_list_and_an_older_backup_is_not_the_latest() {
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    rig.back_up();
    rig.back_up();
    let ids: Vec<_> = rig
        .backups
        .list()
        .unwrap()
        .into_iter()
        .map(|backup| backup.id)
        .collect();
    let [older, newest] = &ids[..] else {
        panic!("{ids:?}")
    };
    std::fs::write(rig.repository().join("snapshots").join(newest), "rotten").unwrap();
    // restic itself takes it for good as long as its cache holds the snapshot.
    for entry in std::fs::read_dir(&rig.settings.cache_dir).unwrap().flatten() {
        let _ = std::fs::remove_dir_all(entry.path());
    }
    let restored = || hostler_common::operation::RestoreInto::Directory(rig.restored("x"));
    for refused in [
        rig.backups.list().unwrap_err(),
        rig.restore(restored(), &[]).unwrap_err(),
    ] {
        assert!(refused.contains(&newest[..8]), "{refused}");
        assert!(refused.contains(&format!("{} of 20", &older[..8])), "{refused}");
    }
    rig.run(Request::RestoreBackup {
        id: older.parse().unwrap(),
        into: restored(),
        paths: Vec::new(),
    })
    .unwrap();
}
