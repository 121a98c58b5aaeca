//! What is decided before a run and what it comes to: both outlive a crash after any record.

use std::fs;

use hostler_agent::executor::state::Outcome;
use hostler_agent::journal::record::{self, Entry, Record};
use hostler_common::operation::OperationKind;
use serde_json::{Value, json};

use crate::world::{Call, Rig, World, accepted};

const KIND: OperationKind = OperationKind::CreateHypervisor;

fn entries(rig: &Rig, accepted: &hostler_agent::executor::run::Accepted) -> Vec<Entry> {
    let records = rig.executor().state_dir.records(accepted.operation).unwrap();
    records.into_iter().map(|record| record.entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_is_written_before_the_first_step_and_said_once() {
    let rig = Rig::new(World::with(&[]));
    rig.world.decide(json!({"add": "/dev/sdb"}));
    let accepted = accepted(KIND);
    let executor = rig.executor();
    let outbox = executor.outbox.clone();
    rig.run_with(executor, &accepted).await;
    assert_eq!(rig.world.planned(), [None]);
    let entries = entries(&rig, &accepted);
    assert_eq!(
        entries[1],
        Entry::Planned {
            detail: json!({"add": "/dev/sdb"})
        }
    );
    assert!(matches!(entries[2], Entry::StepStarted { .. }), "{entries:?}");
    let lines: Vec<_> = std::iter::from_fn(|| outbox.take(accepted.operation)).collect();
    assert_eq!(lines[0], r#"decided: {"add":"/dev/sdb"}"#);
    assert!(lines[1].starts_with("step 1/4: "), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_decided_nothing_is_written() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(KIND);
    rig.run(&accepted).await;
    let entries = entries(&rig, &accepted);
    assert!(
        !entries.iter().any(|entry| matches!(entry, Entry::Planned { .. })),
        "{entries:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_at_any_record_the_plan_is_the_one_that_was_decided() {
    let rig = Rig::new(World::with(&[]));
    rig.world.decide(json!("first"));
    rig.world.conclude("volume", "4 GiB more");
    let accepted = accepted(KIND);
    let ending = rig.run(&accepted).await;
    assert_eq!(ending.message, "4 GiB more");
    let journal = format!("journal/{}.log", accepted.operation);
    let text = fs::read_to_string(rig.dir.path().join(&journal)).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    for kept in 1..=lines.len() {
        // The world looks different by now, and the steps that are left have nothing to say.
        let crashed = Rig::new(World::with(&[]));
        crashed.world.decide(json!("second"));
        fs::create_dir(crashed.dir.path().join("journal")).unwrap();
        fs::write(crashed.dir.path().join(&journal), lines[..kept].concat()).unwrap();
        let executor = crashed.executor();
        let outbox = executor.outbox.clone();
        let ending = crashed.run_with(executor, &accepted).await;
        let read = |line: &&str| record::decode(line.trim_end().as_bytes()).unwrap();
        let records: Vec<Record> = lines[..kept].iter().map(read).collect();
        let has = |wanted: fn(&Entry) -> bool| records.iter().any(|record| wanted(&record.entry));
        let given: &[Option<Value>] = if has(|entry| matches!(entry, Entry::Ended { .. })) {
            &[]
        } else if has(|entry| matches!(entry, Entry::Planned { .. })) {
            &[Some(json!("first"))]
        } else {
            &[None]
        };
        assert_eq!(crashed.world.planned(), given, "{kept} records");
        let said = std::iter::from_fn(|| outbox.take(accepted.operation));
        let decisions = said.filter(|line| line.starts_with("decided")).count();
        assert_eq!(decisions, usize::from(given == [None]), "{kept} records");
        let concluded = has(|entry| {
            matches!(
                entry,
                Entry::StepDone {
                    concluded: Some(_),
                    ..
                }
            )
        });
        let words = match concluded {
            true => "4 GiB more",
            false => "hv-1 is as asked",
        };
        assert_eq!(
            (ending.outcome, ending.message.as_str()),
            (Outcome::Done, words),
            "{kept} records"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_the_version_before_that_has_begun_is_gone_on_with() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(KIND);
    rig.run(&accepted).await;
    let journal = format!("journal/{}.log", accepted.operation);
    let text = fs::read_to_string(rig.dir.path().join(&journal)).unwrap();
    let kept: String = text.split_inclusive('\n').take(3).collect();
    let later = Rig::new(World::with(&["network"]));
    later.world.decide(json!("anything"));
    fs::create_dir(later.dir.path().join("journal")).unwrap();
    fs::write(later.dir.path().join(&journal), kept).unwrap();
    assert_eq!(later.run(&accepted).await.outcome, Outcome::Done);
    assert_eq!(later.world.planned(), [None]);
    assert_eq!(
        later.world.calls(Call::Apply),
        ["volume", "domain", "start"],
        "the plan is as it was"
    );
    let entries = entries(&later, &accepted);
    assert!(
        !entries.iter().any(|entry| matches!(entry, Entry::Planned { .. })),
        "{entries:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_try_that_failed_said_does_not_count() {
    use crate::world::Fault;
    use hostler_common::error::Retry;

    let rig = Rig::new(World::with(&[]));
    rig.world.conclude("start", "all of it");
    rig.world
        .fault("start", Call::Apply, Fault::FailBefore(Retry::Never), 1);
    let accepted = accepted(KIND);
    let ending = rig.run(&accepted).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(!ending.message.contains("all of it"), "{}", ending.message);
}
