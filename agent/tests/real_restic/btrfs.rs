//! One backup of a real btrfs: the snapshot is what is backed up, not the pool as it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_agent::backup::Backups;
use hostler_agent::storage::Backend;
use hostler_agent::storage::btrfs::{Btrfs, Settings};
use hostler_common::bytes::Bytes;
use hostler_common::operation::Request;

use crate::rig::{Rig, Story, job, tool};
use crate::tree::{odd_files, seen};

/// A btrfs in a file, mounted. The loop device goes with the mount.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: &Path, image: &Path) -> Self {
        std::fs::File::create(image).unwrap().set_len(400 << 20).unwrap();
        tool("mkfs.btrfs", &["-q", image.to_str().unwrap()]);
        tool(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), path.to_str().unwrap()],
        );
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tool("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[test]
fn what_is_written_after_the_snapshot_is_not_in_the_backup_and_the_second_one_adds_next_to_nothing() {
    let rig = Rig::new();
    let pool = rig.settings.pool_path.clone();
    let _mounted = Mounted::at(&pool, &rig.folder.path().join("image"));
    let backend: Arc<dyn Backend> = Arc::new(
        Btrfs::new(Settings {
            pool: rig.settings.pool.clone(),
            path: pool.clone(),
            spares: Vec::new(),
            left_out: Vec::new(),
        })
        .unwrap(),
    );
    let backups = Backups::new(rig.settings.clone(), Arc::clone(&backend)).unwrap();
    odd_files(&pool);
    let before = seen(&pool);
    for round in ["first", "second"] {
        let story = Arc::new(Story::default());
        let planned = backups.plan(&job(Request::CreateBackup), None).unwrap();
        for step in &planned.steps {
            let looked = step.look().unwrap();
            step.apply(looked, &story.progress()).unwrap();
            if step.name().starts_with("take a snapshot") {
                std::fs::write(pool.join(".hostler/late"), "not to be backed up").unwrap();
            }
        }
        // The snapshot has the same path each time, and its files the same inodes, so nothing is read again. restic
        // before 0.17 keeps the snapshot's device number in its trees: they are new, a few KiB.
        let said = story.concluded();
        let (_, new) = said.split_once("MiB, ").unwrap();
        let new: Bytes = new
            .split_once(" new")
            .unwrap()
            .0
            .replace("bytes", "b")
            .parse()
            .unwrap();
        assert_eq!(new < Bytes(50 << 10), round == "second", "{said}");
        assert_eq!(backend.found_snapshot().unwrap(), None);
        let target = rig.restored(round);
        rig.restic(&["restore", "latest", "--target", target.to_str().unwrap()]);
        assert_eq!(seen(&target), before);
    }
    let planned = backups.plan(&job(Request::CreateBackup), None).unwrap();
    for step in &planned.steps {
        let looked = step.look().unwrap();
        step.apply(looked, &Arc::new(Story::default()).progress())
            .unwrap();
        if step.name().starts_with("take a snapshot") {
            std::fs::write(pool.join("late"), "written since").unwrap();
            std::fs::write(pool.join("-rf"), "changed").unwrap();
        }
    }
    let target = rig.restored("third");
    rig.restic(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(seen(&target), before, "what came after the snapshot is not in it");
}
