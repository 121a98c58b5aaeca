//! A crash at every step, before and after its work, in both directions: what goes on from the journal ends as if
//! nothing had happened, and what is undone is as before.
//!
//! A crash is a new plan from the same job and what was decided, as after a restart of the agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_common::operation::{Request, RestoreInto};
use serde_json::Value;

use crate::rig::{Rig, Story, job, undo};
use crate::tree::seen;

/// What others see: the pool, what was restored, the backups, and whether anything is in the way.
fn world(
    rig: &Rig,
) -> (
    BTreeMap<String, String>,
    BTreeMap<String, String>,
    usize,
    bool,
    usize,
) {
    (
        seen(&rig.settings.pool_path),
        seen(&rig.folder.path().join("restored")),
        rig.backups.list().unwrap().len(),
        rig.snapshot_is_taken(),
        rig.locks(),
    )
}

fn rig() -> Rig {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.pool("a/b")).unwrap();
    for (name, text) in [("a/b/one", "1"), ("a/two", "22"), ("three", "333")] {
        std::fs::write(rig.pool(name), text).unwrap();
    }
    rig.back_up();
    std::fs::remove_dir_all(rig.pool("a/b")).unwrap();
    std::fs::write(rig.pool("three"), "changed").unwrap();
    rig
}

fn requests(rig: &Rig) -> Vec<Request> {
    let id = rig.backups.list().unwrap()[0].id.clone();
    let restore = |into: RestoreInto, paths: &[&str]| Request::RestoreBackup {
        id: id.parse().unwrap(),
        into,
        paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
    };
    vec![
        Request::CreateBackup,
        restore(RestoreInto::Directory(rig.restored("x")), &[]),
        restore(RestoreInto::PlacesOverwriting, &["a/b/one", "three"]),
    ]
}

#[test]
fn a_crash_at_any_step_resumes_to_the_same_end() {
    let rig = rig();
    for request in requests(&rig) {
        let story = Arc::new(Story::default());
        let job = job(request.clone());
        let decided: Value = rig.plan(&job, None).unwrap().decided;
        let steps = rig.plan(&job, Some(&decided)).unwrap().steps.len();
        for place in 0..steps {
            // Each step is applied by one process, and again by the next one.
            let before = rig.plan(&job, Some(&decided)).unwrap().steps[place]
                .look()
                .unwrap();
            for _ in 0..2 {
                let again = rig.plan(&job, Some(&decided)).unwrap();
                again.steps[place].apply(before, &story.progress()).unwrap();
            }
        }
        assert!(!story.concluded().is_empty(), "{request:?}");
        let (_, _, _, taken, locks) = world(&rig);
        assert!(!taken && locks == 0);
    }
    assert_eq!(
        rig.backups.list().unwrap().len(),
        2,
        "a resumed backup is made once"
    );
    assert_eq!(std::fs::read_to_string(rig.restored("x/a/b/one")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(rig.pool("three")).unwrap(), "333");
}

#[test]
fn a_failure_after_any_step_unwinds_to_what_was_even_when_the_undo_runs_twice() {
    let rig = rig();
    for request in requests(&rig) {
        let job = job(request.clone());
        let decided = rig.plan(&job, None).unwrap().decided;
        let start = world(&rig);
        let steps = rig.plan(&job, Some(&decided)).unwrap().steps.len();
        // After the last one it is done.
        for last in 0..steps - 1 {
            let story = Arc::new(Story::default());
            let planned = rig.plan(&job, Some(&decided)).unwrap();
            let mut befores = Vec::new();
            for step in &planned.steps[..=last] {
                befores.push(step.look().unwrap());
                step.apply(*befores.last().unwrap(), &story.progress()).unwrap();
            }
            for _ in 0..2 {
                let again = rig.plan(&job, Some(&decided)).unwrap();
                undo(&again, &befores, &story);
            }
            assert_eq!(world(&rig), start, "{request:?} after step {}", last + 1);
        }
    }
}

#[test]
fn a_good_backup_for_which_others_may_have_gone_is_not_taken_back() {
    let rig = rig();
    let job = job(Request::CreateBackup);
    let story = Arc::new(Story::default());
    let planned = rig.plan(&job, None).unwrap();
    let mut befores = Vec::new();
    for step in &planned.steps[..5] {
        befores.push(step.look().unwrap());
        step.apply(*befores.last().unwrap(), &story.progress()).unwrap();
    }
    // As if the process had died while old backups were removed, and somebody cancelled then.
    let mark = rig.settings.cache_dir.join(format!("keeping-{}", job.operation));
    std::fs::write(&mark, "").unwrap();
    for _ in 0..2 {
        undo(&rig.plan(&job, None).unwrap(), &befores, &story);
        assert_eq!(rig.backups.list().unwrap().len(), 2);
        assert!(story.text().contains("stays: it is good"), "{}", story.text());
    }
    // Or right after the last step, before the journal says so.
    std::fs::remove_file(&mark).unwrap();
    let last = &planned.steps[5];
    befores.push(last.look().unwrap());
    last.apply(befores[5], &story.progress()).unwrap();
    undo(&rig.plan(&job, None).unwrap(), &befores, &story);
    assert_eq!(rig.backups.list().unwrap().len(), 2);

    rig.back_up();
    assert!(!mark.exists(), "the next backup clears it away");
}
