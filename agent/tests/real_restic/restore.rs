//! Files come back: into a directory, to their places, or not at all and nothing has changed.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hostler_common::operation::RestoreInto::{Directory, Places, PlacesOverwriting};

use hostler_agent::executor::step::Before;

use crate::rig::{Rig, Story, job, restore, undo};
use crate::tree::{odd_files, seen};

fn backed_up() -> Rig {
    let rig = Rig::new();
    odd_files(&rig.settings.pool_path);
    rig.back_up();
    rig
}

/// Nothing but the pool's files is in the pool, and nothing is beside a target.
fn nothing_is_left(rig: &Rig) {
    for folder in [rig.pool(".hostler"), rig.folder.path().join("restored")] {
        let left: Vec<_> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            left.iter()
                .all(|name| !name.to_string_lossy().contains("restore-")),
            "{left:?}"
        );
    }
    assert_eq!(rig.locks(), 0);
}

#[test]
fn everything_comes_back_into_an_absent_or_empty_directory_with_names_that_nobody_likes() {
    let rig = backed_up();
    std::fs::create_dir(rig.restored("empty")).unwrap();
    for target in [rig.restored("absent"), rig.restored("empty"), rig.pool("copy")] {
        let before = seen(&rig.settings.pool_path);
        let said = rig.restore(Directory(target.clone()), &[]).unwrap();
        assert!(
            said.starts_with("restored 13 files, 5.00 MiB of backup "),
            "{said}"
        );
        let (is, was) = (seen(&target), before);
        assert_eq!(is, was);
        nothing_is_left(&rig);
    }
}

#[test]
fn an_emptied_pool_is_filled_again_as_a_whole() {
    let rig = backed_up();
    let before = seen(&rig.settings.pool_path);
    let refused = rig
        .restore(Directory(rig.settings.pool_path.clone()), &[])
        .unwrap_err();
    assert!(refused.contains("holds files"), "{refused}");
    for entry in std::fs::read_dir(&rig.settings.pool_path).unwrap() {
        let path = entry.unwrap().path();
        match path.symlink_metadata().unwrap().is_dir() {
            true => std::fs::remove_dir_all(path).unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
    }
    let said = rig
        .restore(Directory(rig.settings.pool_path.clone()), &[])
        .unwrap();
    assert!(said.ends_with("into pool default"), "{said}");
    assert_eq!(seen(&rig.settings.pool_path), before);
    nothing_is_left(&rig);
}

#[test]
fn a_target_that_is_in_use_or_out_of_bounds_is_refused_and_untouched() {
    let rig = backed_up();
    std::fs::create_dir(rig.restored("full")).unwrap();
    std::fs::write(rig.restored("full/file"), "1").unwrap();
    std::fs::write(rig.restored("file"), "1").unwrap();
    symlink("/tmp", rig.restored("way-out")).unwrap();
    symlink(rig.restored("full"), rig.restored("link")).unwrap();
    std::fs::create_dir_all(rig.pool(".hostler/x")).unwrap();
    for (target, why) in [
        (rig.restored("full"), "is not empty"),
        (rig.restored("file"), "is not a directory"),
        (rig.restored("link"), "is not a directory"),
        (rig.restored("no/where"), "make it first"),
        (
            rig.restored("way-out/x"),
            "/tmp/x is outside of what may be restored into",
        ),
        (rig.restored(""), "is one of the folders"),
        (rig.folder.path().join("elsewhere"), "is outside of"),
        ("/etc/restored".into(), "/etc/restored is outside of"),
        (rig.pool(".hostler/x"), "own folder"),
        (rig.pool(".hostler"), "own folder"),
    ] {
        let cause = rig
            .restore(Directory(target.components().collect()), &[])
            .unwrap_err();
        assert!(cause.contains(why), "{}: {cause}", target.display());
    }
    assert_eq!(std::fs::read_dir(rig.restored("full")).unwrap().count(), 1);
    nothing_is_left(&rig);
}

#[test]
fn files_come_back_to_their_places_with_the_directories_above_them() {
    let rig = backed_up();
    let before = seen(&rig.settings.pool_path);
    std::fs::remove_dir_all(rig.pool("desk tops")).unwrap();
    std::fs::remove_file(rig.pool("g[lo]b*?{a,b}")).unwrap();
    std::fs::remove_file(rig.pool("back\\slash")).unwrap();
    std::fs::remove_file(rig.pool("-rf")).unwrap();
    let paths = ["desk tops/.hostler/deep", "g[lo]b*?{a,b}", "back\\slash", "/-rf"];
    let said = rig.restore(Places, &paths).unwrap();
    assert!(said.starts_with("restored 4 files, 25 bytes"), "{said}");
    let after = seen(&rig.settings.pool_path);
    for path in paths.map(|path| path.trim_start_matches('/')).into_iter().chain([
        "desk tops",
        "desk tops/.hostler",
        "glob",
    ]) {
        assert_eq!(after.get(path), before.get(path), "{path}");
    }
    assert!(!rig.pool("desk tops/a.qcow2").exists(), "only what was asked for");
    rig.restore(Places, &["desk tops/a.qcow2"]).unwrap();
    nothing_is_left(&rig);
}

#[test]
fn what_is_there_is_replaced_only_on_demand() {
    let rig = backed_up();
    std::fs::write(rig.pool("glob"), "changed").unwrap();
    std::fs::write(rig.pool("desk tops/new"), "since then").unwrap();
    std::fs::remove_file(rig.pool("-rf")).unwrap();
    let before = seen(&rig.settings.pool_path);
    let cause = rig.restore(Places, &["glob", "desk tops", "-rf"]).unwrap_err();
    assert!(
        cause.contains("desk tops, glob: there already; nothing was changed"),
        "{cause}"
    );
    assert_eq!(seen(&rig.settings.pool_path), before);

    rig.restore(PlacesOverwriting, &["glob", "desk tops", "-rf"])
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(rig.pool("glob")).unwrap(),
        "not the other one"
    );
    assert!(
        !rig.pool("desk tops/new").exists(),
        "a directory is replaced as a whole"
    );
    assert_eq!(std::fs::read_to_string(rig.pool("-rf")).unwrap(), "dash");
    nothing_is_left(&rig);
}

#[test]
fn a_path_that_the_backup_does_not_hold_is_named() {
    let rig = backed_up();
    let cause = rig
        .restore(Places, &["-rf", "desk tops/b.qcow2", "g*"])
        .unwrap_err();
    assert!(
        cause.contains("holds no \"desk tops/b.qcow2\" and no \"g*\""),
        "{cause}"
    );
    let cause = rig.restore(Places, &[".hostler"]).unwrap_err();
    assert!(cause.contains("holds no \".hostler\""), "{cause}");
    nothing_is_left(&rig);
}

#[test]
fn a_link_in_the_pool_does_not_lead_a_restore_out_of_it() {
    let rig = backed_up();
    std::fs::remove_dir_all(rig.pool("desk tops")).unwrap();
    let outside = rig.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, rig.pool("desk tops")).unwrap();
    for into in [Places, PlacesOverwriting] {
        let cause = rig.restore(into, &["desk tops/a.qcow2"]).unwrap_err();
        assert!(cause.contains("leads over a symbolic link"), "{cause}");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    std::fs::remove_file(rig.pool("desk tops")).unwrap();
    std::fs::write(rig.pool("desk tops"), "a file").unwrap();
    let cause = rig.restore(Places, &["desk tops/a.qcow2"]).unwrap_err();
    assert!(cause.contains("there is a file, not a directory"), "{cause}");
}

#[test]
fn a_restore_that_is_cancelled_while_it_reads_leaves_nothing() {
    let rig = Rig::new();
    let noise = std::fs::File::open("/dev/urandom").unwrap();
    let mut noise = std::io::Read::take(noise, 300 << 20);
    std::io::copy(&mut noise, &mut std::fs::File::create(rig.pool("noise")).unwrap()).unwrap();
    rig.back_up();
    let before = seen(&rig.settings.pool_path);
    for into in [Directory(rig.restored("x")), PlacesOverwriting] {
        let story = Story::cancelled_when(|story| !story.measures.lock().unwrap().is_empty());
        let cause = rig.tell(restore(into, &["noise"]), &story).unwrap_err();
        assert!(
            cause.starts_with("step 2") && cause.ends_with("cancelled by somebody"),
            "{cause}"
        );
        assert_eq!(seen(&rig.settings.pool_path), before);
        nothing_is_left(&rig);
    }
    assert!(!rig.restored("x").exists());
}

#[test]
fn a_restore_says_how_far_it_is() {
    let rig = Rig::new();
    std::fs::write(rig.pool("file"), vec![7; 30 << 20]).unwrap();
    rig.back_up();
    let story = Arc::new(Story::default());
    rig.tell(restore(Directory(rig.restored("x")), &[]), &story)
        .unwrap();
    let measures = story.measures.lock().unwrap();
    assert!(
        measures
            .iter()
            .all(|m| m.what == "restore" && m.done_bytes <= m.total_bytes)
    );
}

#[test]
fn a_restore_that_goes_on_after_a_reboot_finds_out_that_the_pool_is_not_mounted() {
    let rig = backed_up();
    std::fs::write(rig.pool("glob"), "changed").unwrap();
    let before = seen(&rig.settings.pool_path);
    let job = job(restore(PlacesOverwriting, &["glob"]));
    let story = Arc::new(Story::default());
    let planned = rig.plan(&job, None).unwrap();
    let [check, fetch, put, _clear] = planned.steps.as_slice() else {
        panic!("other steps")
    };
    let mounted = |is: bool| rig.backend.unmounted.store(!is, Ordering::Relaxed);
    check.apply(Before::Nothing, &story.progress()).unwrap();
    mounted(false);
    let cause = fetch.apply(Before::Absent, &story.progress()).unwrap_err();
    assert!(cause.to_string().contains("is not mounted"), "{cause}");
    fetch.undo(Before::Absent, &story.progress()).unwrap();
    assert!(story.text().contains("may stay in"), "{}", story.text());
    mounted(true);
    fetch.apply(Before::Absent, &story.progress()).unwrap();
    put.apply(Before::Nothing, &story.progress()).unwrap();
    mounted(false);
    let cause = put.undo(Before::Nothing, &story.progress()).unwrap_err();
    assert!(
        cause.to_string().contains("is not mounted"),
        "not taken for undone: {cause}"
    );
    mounted(true);
    undo(
        &planned,
        &[Before::Nothing, Before::Absent, Before::Nothing],
        &story,
    );
    assert_eq!(seen(&rig.settings.pool_path), before);
    nothing_is_left(&rig);
}

#[test]
fn what_was_replaced_is_kept_when_its_place_is_gone_or_taken() {
    let rig = backed_up();
    std::fs::write(rig.pool("desk tops/a.qcow2"), "the only copy").unwrap();
    let story = Arc::new(Story::default());
    for away in [true, false] {
        let job = job(restore(PlacesOverwriting, &["desk tops/a.qcow2"]));
        let planned = rig.plan(&job, None).unwrap();
        for step in &planned.steps[..3] {
            step.apply(step.look().unwrap(), &story.progress()).unwrap();
        }
        let put = &planned.steps[2];
        let folder = rig.pool("desk tops");
        match away {
            true => std::fs::rename(&folder, rig.pool("away")).unwrap(),
            false => {
                // As when a crash came between the two renames, and then a person.
                std::fs::remove_file(folder.join("a.qcow2")).unwrap();
                symlink("x", folder.join("a.qcow2")).unwrap();
                let staging = rig.pool(&format!(".hostler/restore-{}", job.operation));
                std::fs::write(staging.join("new/desk tops/a.qcow2"), "restored").unwrap();
            }
        }
        let cause = put
            .undo(Before::Nothing, &story.progress())
            .unwrap_err()
            .to_string();
        let (_, kept) = cause.split_once("is kept at ").expect(&cause);
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "the only copy");
        match away {
            true => std::fs::rename(rig.pool("away"), &folder).unwrap(),
            false => std::fs::remove_file(folder.join("a.qcow2")).unwrap(),
        }
        undo(
            &planned,
            &[Before::Nothing, Before::Absent, Before::Nothing],
            &story,
        );
        let back = std::fs::read_to_string(folder.join("a.qcow2")).unwrap();
        assert_eq!(back, "the only copy");
        nothing_is_left(&rig);
    }
}

#[test]
fn nothing_is_restored_to_where_the_pool_is_not_mounted() {
    let rig = backed_up();
    std::fs::remove_file(rig.pool("-rf")).unwrap();
    rig.backend.unmounted.store(true, Ordering::Relaxed);
    for (into, paths) in [(Directory(rig.pool("x")), &[][..]), (Places, &["-rf"][..])] {
        let cause = rig.restore(into, paths).unwrap_err();
        assert!(cause.contains("is not mounted"), "{cause}");
    }
    rig.restore(Directory(rig.restored("x")), &[]).unwrap();
    assert!(!rig.pool("x").exists() && !rig.pool("-rf").exists());
}

#[test]
fn a_link_that_a_user_of_the_pool_puts_in_the_way_leads_nothing_out_of_it() {
    let rig = backed_up();
    let outside = rig.folder.path().join("outside");
    let empty = || std::fs::read_dir(&outside).unwrap().count() == 0;
    std::fs::create_dir(&outside).unwrap();

    // In the place of the pool's own folder: a link, then a folder that is somebody else's.
    let _ = std::fs::remove_dir(rig.pool(".hostler"));
    symlink(&outside, rig.pool(".hostler")).unwrap();
    std::fs::remove_file(rig.pool("nothing")).unwrap();
    let story = Arc::new(Story::default());
    let refused = rig.tell(restore(Places, &["nothing"]), &story).unwrap_err();
    assert!(
        refused.contains("must be a folder of root with mode 0700"),
        "{refused}"
    );
    assert!(refused.starts_with("step 2 "), "restic ran: {refused}");
    assert!(empty());
    std::fs::remove_file(rig.pool(".hostler")).unwrap();
    std::fs::create_dir(rig.pool(".hostler")).unwrap();
    let refused = rig.restore(Places, &["nothing"]).unwrap_err();
    assert!(refused.contains("must be a folder of root"), "{refused}");
    std::fs::remove_dir(rig.pool(".hostler")).unwrap();
    rig.restore(Places, &["nothing"]).unwrap();

    // In the place of the folder that a target is in, after it was looked at.
    std::fs::create_dir(rig.pool("mine")).unwrap();
    let job = job(restore(Directory(rig.pool("mine/copy")), &[]));
    let planned = rig.plan(&job, None).unwrap();
    planned.steps[0]
        .apply(Before::Nothing, &story.progress())
        .unwrap();
    std::fs::rename(rig.pool("mine"), rig.pool("moved")).unwrap();
    symlink(&outside, rig.pool("mine")).unwrap();
    let refused = planned.steps[1].apply(Before::Absent, &story.progress());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("leads over a symbolic link"), "{refused}");
    assert!(empty());
    // And while restic runs, or between it and the renames.
    std::fs::remove_file(rig.pool("mine")).unwrap();
    std::fs::rename(rig.pool("moved"), rig.pool("mine")).unwrap();
    planned.steps[1].apply(Before::Absent, &story.progress()).unwrap();
    std::fs::rename(rig.pool("mine"), rig.pool("moved")).unwrap();
    symlink(&outside, rig.pool("mine")).unwrap();
    assert!(planned.steps[2].apply(Before::Absent, &story.progress()).is_err());
    assert!(empty());
}
