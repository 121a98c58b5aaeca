//! The laws of every operation, over the fake world: it succeeds, each step may run twice, a failure anywhere
//! unwinds to what was, a crash anywhere resumes to the same end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hostler_agent::executor::cancel::Cancel;
use hostler_agent::executor::leave::Leave;
use hostler_agent::executor::run::{Accepted, RunEnd};
use hostler_agent::executor::state::Outcome;
use hostler_agent::executor::step::Before;
use hostler_agent::journal::record::{self, Entry, Record};
use hostler_common::error::Retry;
use hostler_common::id::Fence;
use hostler_common::operation::OperationKind;
use tokio_util::sync::CancellationToken;

use crate::world::{Call, Fault, Rig, STEPS, World, accepted, lease};

const KINDS: [OperationKind; 2] = [OperationKind::CreateHypervisor, OperationKind::DestroyHypervisor];

/// A world in which `kind` has something to do at every step but one, which is as it should be already.
fn initial(kind: OperationKind) -> World {
    match kind {
        OperationKind::CreateHypervisor => World::with(&["network", "bystander"]),
        _ => World::with(&["volume", "domain", "start", "bystander"]),
    }
}

fn wanted(kind: OperationKind) -> BTreeSet<String> {
    let made: &[&str] = match kind {
        OperationKind::CreateHypervisor => &STEPS,
        _ => &[],
    };
    made.iter()
        .chain(&["bystander"])
        .map(ToString::to_string)
        .collect()
}

/// Runs until a call hangs, and then dies there as a process would.
async fn crash(rig: &Rig, accepted: &Accepted) {
    let executor = rig.executor();
    let (_tell, lease) = lease(1);
    let task = tokio::spawn(executor.run(
        accepted.clone(),
        lease,
        Cancel::never(),
        Leave::unlimited(),
        CancellationToken::new(),
    ));
    let world = rig.world.clone();
    #[allow(clippy::disallowed_methods, reason = "the test itself waits")]
    tokio::task::spawn_blocking(move || world.wait_for_a_hang())
        .await
        .unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    rig.world.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_succeeds_and_says_each_step() {
    for kind in KINDS {
        let rig = Rig::new(initial(kind));
        let executor = rig.executor();
        let outbox = executor.outbox.clone();
        let accepted = accepted(kind);
        let ending = rig.run_with(executor, &accepted).await;
        assert_eq!(ending.outcome, Outcome::Done, "{}", ending.message);
        assert_eq!(rig.world.objects(), wanted(kind));
        let lines: Vec<_> = std::iter::from_fn(|| outbox.take(accepted.operation)).collect();
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert!(lines[0].starts_with("step 1/4: "), "{lines:?}");
        assert!(lines[1].starts_with("working on "), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_run_again_changes_nothing() {
    for kind in KINDS {
        let rig = Rig::new(initial(kind));
        rig.run(&accepted(kind)).await;
        let again = rig.run(&accepted(kind)).await;
        assert_eq!(again.outcome, Outcome::Done);
        assert_eq!(rig.world.objects(), wanted(kind));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_step_unwinds_to_what_was() {
    for kind in KINDS {
        for step in STEPS {
            for (call, fault) in [
                (Call::Look, Fault::FailBefore(Retry::Never)),
                (Call::Apply, Fault::FailBefore(Retry::Never)),
                (Call::Apply, Fault::FailAfter(Retry::Never)),
            ] {
                let world = initial(kind);
                let before = world.objects();
                let rig = Rig::new(world);
                rig.world.fault(step, call, fault, u32::MAX);
                let ending = rig.run(&accepted(kind)).await;
                let case = format!("{kind:?} {step} {call:?} {fault:?}: {}", ending.message);
                assert_eq!(ending.outcome, Outcome::Failed, "{case}");
                assert_eq!(rig.world.objects(), before, "{case}");
                assert!(
                    ending.message.contains(step) && ending.message.contains("on purpose"),
                    "{case}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_apply_resumes_to_the_same_end() {
    for kind in KINDS {
        for step in STEPS {
            for (call, fault) in [
                (Call::Look, Fault::HangBefore),
                (Call::Apply, Fault::HangBefore),
                (Call::Apply, Fault::HangAfter),
            ] {
                let rig = Rig::new(initial(kind));
                let accepted = accepted(kind);
                rig.world.fault(step, call, fault, 1);
                crash(&rig, &accepted).await;
                let ending = rig.run(&accepted).await;
                let case = format!("{kind:?} {step} {call:?} {fault:?}: {}", ending.message);
                assert_eq!(ending.outcome, Outcome::Done, "{case}");
                assert_eq!(rig.world.objects(), wanted(kind), "{case}");
            }
        }
    }
}

/// The world as it was when the last of `records` was written.
fn world_after(kind: OperationKind, records: &[Record]) -> World {
    let mut objects = initial(kind).objects();
    let mut befores = BTreeMap::new();
    let object = |step: &str| step.split_once(' ').unwrap().1.to_owned();
    let mut put = |step: &str, there: bool| match there {
        true => objects.insert(object(step)),
        false => objects.remove(&object(step)),
    };
    for record in records {
        match &record.entry {
            Entry::StepStarted { step, before } => {
                befores.insert(step.clone(), *before);
            }
            // The fault of the failing step comes after its effect.
            Entry::StepDone { step, .. } | Entry::StepFailed { step, .. } => {
                put(step, kind == OperationKind::CreateHypervisor);
            }
            Entry::UndoDone { step } => {
                put(step, befores[step] == Before::Active);
            }
            _ => {}
        }
    }
    World::with(&objects.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_any_record_resumes_to_the_same_end() {
    for kind in KINDS {
        for fails in [false, true] {
            let rig = Rig::new(initial(kind));
            let accepted = accepted(kind);
            let last = match kind {
                OperationKind::CreateHypervisor => STEPS[3],
                _ => STEPS[0],
            };
            let times = u32::from(fails);
            rig.world
                .fault(last, Call::Apply, Fault::FailAfter(Retry::Never), times);
            rig.run(&accepted).await;
            let journal = format!("journal/{}.log", accepted.operation);
            let text = std::fs::read_to_string(rig.dir.path().join(&journal)).unwrap();
            let lines: Vec<_> = text.split_inclusive('\n').collect();
            assert!(lines.len() > 2 * STEPS.len(), "{text}");
            for kept in 1..=lines.len() {
                let read = |line: &&str| record::decode(line.trim_end().as_bytes()).unwrap();
                let records: Vec<_> = lines[..kept].iter().map(read).collect();
                let crashed = Rig::new(world_after(kind, &records));
                std::fs::create_dir(crashed.dir.path().join("journal")).unwrap();
                std::fs::write(crashed.dir.path().join(&journal), lines[..kept].concat()).unwrap();
                let ending = crashed.run(&accepted).await;
                let failed = records
                    .iter()
                    .any(|record| matches!(record.entry, Entry::StepFailed { .. }));
                let (outcome, objects) = match failed {
                    true => (Outcome::Failed, initial(kind).objects()),
                    false => (Outcome::Done, wanted(kind)),
                };
                let case = format!("{kind:?}, {kept} records: {}", ending.message);
                assert_eq!(ending.outcome, outcome, "{case}");
                assert_eq!(crashed.world.objects(), objects, "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fence_of_a_lease_that_arrives_during_a_run_is_remembered() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(OperationKind::CreateHypervisor);
    rig.world.fault("volume", Call::Apply, Fault::HangAfter, 1);
    let (tell, told) = lease(1);
    let task = tokio::spawn(rig.executor().run(
        accepted.clone(),
        told,
        Cancel::never(),
        Leave::unlimited(),
        CancellationToken::new(),
    ));
    let world = rig.world.clone();
    #[allow(clippy::disallowed_methods, reason = "the test itself waits")]
    tokio::task::spawn_blocking(move || world.wait_for_a_hang())
        .await
        .unwrap();
    tell.send_modify(|lease| lease.fence = Fence(5));
    rig.world.release();
    task.await.unwrap();
    let after = rig.executor().state_dir;
    assert_eq!(after.fences().newest(&accepted.resource), Fence(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_and_then_a_failure_restores_what_was_before_the_crash() {
    for kind in KINDS {
        for step in STEPS {
            let world = initial(kind);
            let before = world.objects();
            let rig = Rig::new(world);
            let accepted = accepted(kind);
            rig.world.fault(step, Call::Apply, Fault::HangAfter, 1);
            crash(&rig, &accepted).await;
            let last = if kind == OperationKind::CreateHypervisor {
                STEPS[3]
            } else {
                STEPS[0]
            };
            rig.world
                .fault(last, Call::Apply, Fault::FailAfter(Retry::Never), 1);
            let ending = rig.run(&accepted).await;
            assert_eq!(
                ending.outcome,
                Outcome::Failed,
                "{kind:?} {step}: {}",
                ending.message
            );
            assert_eq!(rig.world.objects(), before, "{kind:?} {step}: {}", ending.message);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_undo_resumes_the_unwinding() {
    for kind in KINDS {
        let last = match kind {
            OperationKind::CreateHypervisor => STEPS[3],
            _ => STEPS[0],
        };
        for step in STEPS {
            for fault in [Fault::HangBefore, Fault::HangAfter] {
                let world = initial(kind);
                let before = world.objects();
                let rig = Rig::new(world);
                let accepted = accepted(kind);
                rig.world
                    .fault(last, Call::Apply, Fault::FailAfter(Retry::Never), 1);
                rig.world.fault(step, Call::Undo, fault, 1);
                crash(&rig, &accepted).await;
                let applied = rig.world.calls(Call::Apply).len();
                let ending = rig.run(&accepted).await;
                let case = format!("{kind:?} {step} {fault:?}: {}", ending.message);
                assert_eq!(ending.outcome, Outcome::Failed, "{case}");
                assert_eq!(rig.world.objects(), before, "{case}");
                assert_eq!(rig.world.calls(Call::Apply).len(), applied, "{case}");
                assert!(ending.message.contains("on purpose"), "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_fails_leaves_the_rest_and_needs_attention() {
    let rig = Rig::new(World::with(&[]));
    rig.world
        .fault("start", Call::Apply, Fault::FailAfter(Retry::Never), 1);
    rig.world
        .fault("volume", Call::Undo, Fault::FailBefore(Retry::Never), u32::MAX);
    let ending = rig.run(&accepted(OperationKind::CreateHypervisor)).await;
    assert_eq!(ending.outcome, Outcome::NeedsAttention);
    assert_eq!(
        ending.message,
        "step 'make start' failed: on purpose; undoing 'make volume' failed: on purpose; \
         undone: make start, make domain; not undone: make volume, make network"
    );
    assert_eq!(rig.world.calls(Call::Undo), ["start", "domain", "volume"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_tried_again_is_and_no_more_than_allowed() {
    for (retry, fails, outcome, calls) in [
        (Retry::Later, 2, Outcome::Done, 3),
        (Retry::Later, 3, Outcome::Failed, 3),
        (Retry::ReadBack, 1, Outcome::Done, 2),
        (Retry::ReadBack, 2, Outcome::Failed, 2),
        (Retry::Never, 1, Outcome::Failed, 1),
    ] {
        let rig = Rig::new(World::with(&["network", "volume", "domain"]));
        rig.world
            .fault("start", Call::Apply, Fault::FailBefore(retry), fails);
        let ending = rig.run(&accepted(OperationKind::CreateHypervisor)).await;
        let applied = rig.world.calls(Call::Apply);
        let tries = applied.iter().filter(|name| *name == "start").count();
        assert_eq!((ending.outcome, tries), (outcome, calls), "{retry:?} {fails}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_waits_for_a_daemon_that_comes_back() {
    for retry in [Retry::Later, Retry::ReadBack] {
        let rig = Rig::new(World::with(&["network"]));
        rig.world
            .fault("domain", Call::Apply, Fault::FailBefore(Retry::Never), 1);
        rig.world.fault("volume", Call::Undo, Fault::FailBefore(retry), 4);
        let ending = rig.run(&accepted(OperationKind::CreateHypervisor)).await;
        assert_eq!(ending.outcome, Outcome::Failed, "{}", ending.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_hangs_past_its_deadline_needs_attention_and_is_not_undone() {
    let mut rig = Rig::new(World::with(&[]));
    rig.deadline = Duration::from_millis(200);
    rig.world.fault("domain", Call::Apply, Fault::HangAfter, 1);
    let ending = rig.run(&accepted(OperationKind::CreateHypervisor)).await;
    rig.world.release();
    assert_eq!(ending.outcome, Outcome::NeedsAttention);
    assert!(
        ending
            .message
            .starts_with("step 'make domain' has an unknown outcome"),
        "{}",
        ending.message
    );
    assert!(rig.world.calls(Call::Undo).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_hangs_fails_the_step_and_undoes_what_was_done() {
    let mut rig = Rig::new(World::with(&[]));
    rig.deadline = Duration::from_millis(500);
    rig.world.fault("domain", Call::Look, Fault::HangBefore, 1);
    let ending = rig.run(&accepted(OperationKind::CreateHypervisor)).await;
    rig.world.release();
    assert_eq!(ending.outcome, Outcome::Failed, "{}", ending.message);
    assert_eq!(rig.world.objects(), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halt_stops_between_steps_and_a_new_lease_goes_on_from_there() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(OperationKind::CreateHypervisor);
    let halt = CancellationToken::new();
    rig.world.fault("volume", Call::Apply, Fault::HangAfter, 1);
    let (tell, told) = lease(1);
    let task = tokio::spawn(rig.executor().run(
        accepted.clone(),
        told,
        Cancel::never(),
        Leave::unlimited(),
        halt.clone(),
    ));
    let world = rig.world.clone();
    #[allow(clippy::disallowed_methods, reason = "the test itself waits")]
    tokio::task::spawn_blocking(move || world.wait_for_a_hang())
        .await
        .unwrap();
    halt.cancel();
    rig.world.release();
    // The step failed by its release; unwinding has not begun.
    assert_eq!(task.await.unwrap(), RunEnd::Halted);
    assert!(rig.world.calls(Call::Undo).is_empty());
    drop(tell);

    let executor = rig.executor();
    let state_dir = executor.state_dir.clone();
    let ending = rig.run_with(executor, &accepted).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(rig.world.objects(), BTreeSet::new());
    let records = state_dir.records(accepted.operation).unwrap();
    assert!(
        records
            .iter()
            .any(|record| matches!(record.entry, Entry::Took { .. })),
        "{records:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_operation_is_not_run_again() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(OperationKind::CreateHypervisor);
    let first = rig.run(&accepted).await;
    let calls = rig.world.calls(Call::Look).len();
    let second = rig.run(&accepted).await;
    assert_eq!(first, second);
    assert_eq!(rig.world.calls(Call::Look).len(), calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_another_configuration_needs_attention() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(OperationKind::CreateHypervisor);
    rig.world.fault("volume", Call::Apply, Fault::HangAfter, 1);
    crash(&rig, &accepted).await;
    let mut executor = rig.executor();
    let plans = executor.plans.clone();
    executor.plans = std::sync::Arc::new(move |job, decided| {
        let mut planned = plans(job, decided)?;
        planned.steps.remove(1);
        Ok(planned)
    });
    let ending = rig.run_with(executor, &accepted).await;
    assert_eq!(ending.outcome, Outcome::NeedsAttention);
    assert!(
        ending.message.contains("the configuration changed"),
        "{}",
        ending.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_cannot_be_planned_fails_without_having_done_anything() {
    let rig = Rig::new(World::with(&[]));
    let mut executor = rig.executor();
    executor.plans =
        std::sync::Arc::new(|job, _| Err(format!("hypervisor {} is not configured here", job.resource)));
    let ending = rig
        .run_with(executor, &accepted(OperationKind::CreateHypervisor))
        .await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(
        ending.message,
        "hypervisor hv-1 is not configured here; nothing was done"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_opened_stops_the_operation_before_its_first_step() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(OperationKind::CreateHypervisor);
    let path = rig.dir.path().join(format!("journal/{}.log", accepted.operation));
    let executor = rig.executor();
    // A directory in its place can be neither read nor written.
    std::fs::create_dir(&path).unwrap();
    let ending = rig.run_with(executor, &accepted).await;
    assert_eq!(ending.outcome, Outcome::NeedsAttention);
    assert!(
        ending.message.contains("cannot read the journal"),
        "{}",
        ending.message
    );
    assert!(rig.world.calls(Call::Look).is_empty());
}
