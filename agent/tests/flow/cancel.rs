//! A cancel: before a step, in one that listens, in one that does not, between tries, during the undo, and after a
//! crash. It always comes to what was before, and says who.

use std::collections::BTreeSet;

use hostler_agent::executor::cancel::{self, Cancel, Canceller};
use hostler_agent::executor::leave::Leave;
use hostler_agent::executor::run::{Accepted, RunEnd};
use hostler_agent::executor::state::{Ending, Outcome};
use hostler_agent::journal::record::Entry;
use hostler_common::error::Retry;
use hostler_common::operation::OperationKind;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::coordinator::soon;
use crate::world::{Call, Fault, Rig, STEPS, World, accepted, lease};

const KIND: OperationKind = OperationKind::CreateHypervisor;

/// Starts the operation; it runs until a call hangs.
async fn until_a_hang(rig: &Rig, accepted: &Accepted) -> (JoinHandle<RunEnd>, Canceller) {
    let (canceller, cancel) = cancel::channel(None);
    let (tell, told) = lease(1);
    let run = rig.executor().run(
        accepted.clone(),
        told,
        cancel,
        Leave::unlimited(),
        CancellationToken::new(),
    );
    let task = tokio::spawn(async move {
        let _tell = tell;
        run.await
    });
    let world = rig.world.clone();
    #[allow(clippy::disallowed_methods, reason = "the test itself waits")]
    tokio::task::spawn_blocking(move || world.wait_for_a_hang())
        .await
        .unwrap();
    (task, canceller)
}

async fn ending(task: JoinHandle<RunEnd>) -> Ending {
    match soon("end of the run", task).await.unwrap() {
        RunEnd::Ended(ending) => ending,
        RunEnd::Halted => panic!("halted without being told"),
    }
}

fn cancelled() -> Cancel {
    cancel::channel(Some("ann".into())).1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_before_it_starts_does_nothing() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(KIND);
    let executor = rig.executor();
    let outbox = executor.outbox.clone();
    let ending = rig.run_cancelled(executor, &accepted, cancelled()).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(
        ending.message,
        "cancelled by ann before step 'make network'; nothing to undo"
    );
    assert!(rig.world.calls(Call::Look).is_empty());
    let said: Vec<_> = std::iter::from_fn(|| outbox.take(accepted.operation)).collect();
    assert_eq!(said, ["cancelled by ann before step 'make network'"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_listens_stops_and_is_undone_with_those_before_it() {
    for (place, step) in STEPS.iter().enumerate() {
        let rig = Rig::new(World::with(&["bystander"]));
        rig.world.fault(step, Call::Apply, Fault::ListenAfter, 1);
        let (task, canceller) = until_a_hang(&rig, &accepted(KIND)).await;
        canceller.cancel("ann");
        canceller.cancel("bob");
        let ending = ending(task).await;
        assert_eq!(ending.outcome, Outcome::Failed);
        let undone: Vec<_> = STEPS[..=place]
            .iter()
            .rev()
            .map(|step| format!("make {step}"))
            .collect();
        assert_eq!(
            ending.message,
            format!(
                "cancelled by ann in step 'make {step}'; undone: {}",
                undone.join(", ")
            )
        );
        assert_eq!(rig.world.objects(), BTreeSet::from(["bystander".to_owned()]));
        assert_eq!(
            rig.world.calls(Call::Apply).len(),
            place + 1,
            "it was not tried again"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_step_that_does_not_listen_the_next_one_is_not_begun() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(KIND);
    rig.world.fault("volume", Call::Look, Fault::HangBefore, 1);
    let (task, canceller) = until_a_hang(&rig, &accepted).await;
    canceller.cancel("ann");
    rig.world.release();
    // A look that fails is a failure, whoever cancelled meanwhile.
    let ended = ending(task).await;
    assert!(
        ended.message.starts_with("step 'make volume' failed"),
        "{}",
        ended.message
    );
    assert_eq!(rig.world.calls(Call::Apply), ["network"]);

    let rig = Rig::new(World::with(&[]));
    rig.world.fault("volume", Call::Apply, Fault::HangAfter, 1);
    let (task, canceller) = until_a_hang(&rig, &accepted).await;
    canceller.cancel("ann");
    rig.world.succeed();
    assert_eq!(
        ending(task).await.message,
        "cancelled by ann before step 'make domain'; undone: make volume, make network"
    );
    assert_eq!(rig.world.calls(Call::Look), ["network", "volume"]);
    assert!(rig.world.objects().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn once_every_step_is_done_a_cancel_is_too_late() {
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("start", Call::Apply, Fault::HangAfter, 1);
    let (task, canceller) = until_a_hang(&rig, &accepted(KIND)).await;
    canceller.cancel("ann");
    rig.world.succeed();
    let ending = ending(task).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_undone_goes_on_being_undone() {
    let rig = Rig::new(World::with(&[]));
    rig.world
        .fault("domain", Call::Apply, Fault::FailAfter(Retry::Never), 1);
    rig.world.fault("volume", Call::Undo, Fault::ListenAfter, 1);
    let (task, canceller) = until_a_hang(&rig, &accepted(KIND)).await;
    canceller.cancel("ann");
    // The undo hears nothing of it: only a release ends it.
    rig.world.release();
    let ending = ending(task).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(
        ending.message,
        "step 'make domain' failed: on purpose; undone: make domain, make volume, make network"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_another_try_of_what_is_cancelled() {
    let rig = Rig::new(World::with(&[]));
    rig.world
        .fault("domain", Call::Apply, Fault::FailBefore(Retry::Later), u32::MAX);
    let accepted = accepted(KIND);
    let executor = rig.executor();
    let outbox = executor.outbox.clone();
    let (canceller, cancel) = cancel::channel(None);
    let (_tell, told) = lease(1);
    let task = tokio::spawn(executor.run(
        accepted.clone(),
        told,
        cancel,
        Leave::unlimited(),
        CancellationToken::new(),
    ));
    soon("first try", async {
        let follows =
            || std::iter::from_fn(|| outbox.take(accepted.operation)).any(|line| line.ends_with("follows"));
        while !follows() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    canceller.cancel("ann");
    let ending = ending(task).await;
    assert_eq!(
        ending.message,
        "cancelled by ann in step 'make domain'; undone: make domain, make volume, make network"
    );
    let tries = rig.world.calls(Call::Apply);
    assert_eq!(tries.iter().filter(|step| *step == "domain").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_is_journaled_unwinds_after_a_crash_without_being_heard_again() {
    let rig = Rig::new(World::with(&[]));
    let accepted = accepted(KIND);
    rig.world.fault("domain", Call::Apply, Fault::ListenAfter, 1);
    rig.world.fault("volume", Call::Undo, Fault::HangBefore, 1);
    let (task, canceller) = until_a_hang(&rig, &accepted).await;
    canceller.cancel("ann");
    soon("undo", async {
        while !rig.world.calls(Call::Undo).contains(&"volume".to_owned()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    rig.world.release();

    let ending = rig.run(&accepted).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(
        ending.message,
        "cancelled by ann in step 'make domain'; undone: make domain, make volume, make network"
    );
    assert!(rig.world.objects().is_empty());
    let records = rig.executor().state_dir.records(accepted.operation).unwrap();
    let cancels = records
        .iter()
        .filter(|record| matches!(record.entry, Entry::StepFailed { cancelled: true, .. }));
    assert_eq!(cancels.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_a_crash_interrupted_is_undone_when_it_is_cancelled_meanwhile() {
    let rig = Rig::new(World::with(&["network"]));
    let accepted = accepted(KIND);
    rig.world.fault("volume", Call::Apply, Fault::HangAfter, 1);
    let (task, _canceller) = until_a_hang(&rig, &accepted).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    rig.world.release();

    let ending = rig.run_cancelled(rig.executor(), &accepted, cancelled()).await;
    assert_eq!(
        ending.message,
        "cancelled by ann in step 'make volume'; undone: make volume; as before: make network"
    );
    assert_eq!(rig.world.objects(), BTreeSet::from(["network".to_owned()]));
    assert_eq!(rig.world.calls(Call::Apply), ["network", "volume"]);
}
