//! A backup that succeeds: what is in it, what it costs the second time, what is kept.

use hostler_common::operation::{BackupId, Request};

use crate::rig::{Rig, Story};
use crate::tree::{odd_files, seen};

#[test]
fn plain_restic_restores_a_backup_byte_for_byte() {
    let rig = Rig::new();
    odd_files(&rig.settings.pool_path);
    std::fs::create_dir_all(rig.pool(".hostler/own")).unwrap();
    std::fs::write(rig.pool(".hostler/own/file"), "not to be backed up").unwrap();
    let said = rig.back_up();
    assert!(
        said.starts_with("backup ") && said.contains(" of pool default: 13 files, 5.00 MiB, "),
        "{said}"
    );
    assert!(
        said.ends_with("new; checked, 20 % read back; 1 kept, 0 removed"),
        "{said}"
    );
    assert!(!rig.snapshot_is_taken());
    assert_eq!(rig.locks(), 0);

    let target = rig.restored("plain");
    rig.restic(&["check", "--read-data"]);
    rig.restic(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(seen(&target), seen(&rig.settings.pool_path));

    let listed = rig.backups.list().unwrap();
    assert_eq!((listed.len(), listed[0].files), (1, 13));
    assert!(listed[0].time_unix_ms > 1_700_000_000_000 && !listed[0].operation_id.is_empty());
}

#[test]
fn a_second_backup_of_the_same_files_adds_next_to_nothing_and_says_how_far_it_is() {
    let rig = Rig::new();
    let noise = std::fs::File::open("/dev/urandom").unwrap();
    let mut file = std::fs::File::create(rig.pool("noise")).unwrap();
    std::io::copy(&mut std::io::Read::take(noise, 20 << 20), &mut file).unwrap();
    let story = std::sync::Arc::new(Story::default());
    rig.tell(Request::CreateBackup, &story).unwrap();
    assert!(story.concluded().contains("20.0"), "{}", story.concluded());
    assert!(
        story.text().contains("backing up 1 file, 20.00 MiB"),
        "{}",
        story.text()
    );
    let again = rig.back_up();
    assert!(
        again.contains(" 0 bytes new;") && again.contains("2 kept"),
        "{again}"
    );
    let measures = story.measures.lock().unwrap();
    assert!(
        measures
            .iter()
            .all(|m| m.done_bytes <= m.total_bytes && m.total_bytes == 20 << 20)
    );
    assert!(measures.iter().any(|m| m.what == "back up pool default"));
}

#[test]
fn the_rules_thin_out_old_backups_and_never_the_newest_nor_those_of_others() {
    let mut rig = Rig::new();
    rig.change(|settings| settings.keep.last = 0);
    std::fs::write(rig.pool("file"), "1").unwrap();
    rig.restic(&[
        "backup",
        rig.settings.pool_path.to_str().unwrap(),
        "--tag",
        "pool:default",
    ]);
    rig.restic(&[
        "backup",
        rig.settings.pool_path.to_str().unwrap(),
        "--tag",
        "hostler,pool:other",
    ]);
    rig.back_up();
    let said = rig.back_up();
    assert!(said.contains("1 kept, 1 removed"), "{said}");
    let all = rig.restic(&["snapshots", "--json"]);
    assert_eq!(all.matches("\"short_id\"").count(), 3, "{all}");
    assert_eq!(rig.backups.list().unwrap().len(), 1);
    assert!(
        rig.verify()
            .unwrap()
            .contains("(the only one) is whole: 1 file, 1 byte")
    );
}

#[test]
fn what_a_dead_operation_left_is_removed_and_said() {
    use hostler_agent::storage::Backend as _;
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    rig.backend.take_snapshot().unwrap();
    let story = std::sync::Arc::new(Story::default());
    rig.tell(Request::CreateBackup, &story).unwrap();
    assert!(story.text().contains("removed the snapshot"), "{}", story.text());
}

#[test]
fn a_snapshot_that_cannot_be_removed_does_not_cost_the_backup() {
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    rig.backend
        .sticks
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let said = rig.back_up();
    assert!(
        said.contains("1 kept") && said.contains("could not be removed"),
        "{said}"
    );
}

#[test]
fn a_backup_is_deleted_by_its_id_but_never_the_last_one() {
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), "1").unwrap();
    rig.back_up();
    let first = rig.backups.list().unwrap()[0].id.clone();
    let id: BackupId = first[..8].parse().unwrap();
    let delete = Request::DeleteBackup { id: id.clone() };
    let refused = rig.run(delete.clone()).unwrap_err();
    assert!(
        refused.contains("is the last backup of pool default"),
        "{refused}"
    );
    assert_eq!(rig.backups.dry_run_delete(&id).unwrap_err(), refused);

    rig.back_up();
    let dry = rig.backups.dry_run_delete(&id).unwrap();
    assert!(
        dry.lines[0].contains(&first[..8]) && dry.lines[0].contains("1 file"),
        "{dry:?}"
    );
    assert!(
        dry.outcome
            .contains("of pool default would be deleted; 1 backup would stay, the newest of them"),
        "{dry:?}"
    );
    rig.run(delete.clone()).unwrap();
    let left = rig.backups.list().unwrap();
    assert!(left.len() == 1 && left[0].id != first);
    assert!(rig.run(delete).unwrap_err().contains("has no backup"));
    rig.verify().unwrap();
}
