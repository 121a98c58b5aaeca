//! The laws of expand and shrink, with the real planner, steps, executor and journal over a pool in memory: each
//! succeeds, each step may run twice, a failure or a cancel anywhere unwinds to what was, a crash anywhere resumes to
//! the same end, and whatever happens in whatever order, no byte is lost and no floor is passed.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, its helpers included"
)]

mod storage_rig;

use std::time::Duration;

use hostler_agent::executor::cancel;
use hostler_agent::executor::state::Outcome;
use hostler_agent::hypervisor::Look;
use hostler_agent::storage::memory::{Call, Fail};
use hostler_agent::storage::pool::Profile;
use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;
use hostler_common::operation::Request;
use hostler_common::rpc::hostler::agent::v1::DeviceRole;
use storage_rig::{Act, At, GIB, Part, Rig, accepted, expand, shrink, view};

/// A pool in which both kinds have several changes to make.
fn rig() -> Rig {
    let rig = Rig::new(
        Profile::Single,
        &[("/dev/a", 4 * GIB), ("/dev/b", 3 * GIB), ("/dev/c", 3 * GIB)],
        &[("/dev/d", 2 * GIB), ("/dev/e", 3 * GIB)],
    );
    assert!(rig.pool.write("desktops", Bytes(5 * GIB / 2)));
    rig
}

/// One that a shrink has left with room to grow back into.
async fn shrunk() -> Rig {
    let rig = rig();
    let ending = rig.run(&accepted(shrink(GIB / 2))).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.message);
    rig
}

/// What is asked for, and of which pool. Each has a check, two changes and a reading back.
const STEPS: usize = 4;

async fn cases() -> [(Request, Rig); 2] {
    [(expand(5 * GIB / 2), shrunk().await), (shrink(5 * GIB), rig())]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_succeeds_and_says_what_it_came_to() {
    for ((request, rig), words) in cases().await.into_iter().zip([
        "default grew by 2.50 GiB to 12.00 GiB; used 2.50 GiB; spare 3.00 GiB",
        "default shrank by 5.00 GiB to 5.00 GiB; used 2.50 GiB; spare 10.00 GiB",
    ]) {
        let before = rig.pool.contents();
        let accepted = accepted(request);
        let executor = rig.executor();
        let outbox = executor.outbox.clone();
        let ending = rig.run_with(executor, &accepted).await;
        assert_eq!((ending.outcome, ending.message.as_str()), (Outcome::Done, words));
        assert_eq!(rig.pool.contents(), before);
        let said: Vec<_> = std::iter::from_fn(|| outbox.take(accepted.operation)).collect();
        assert!(said.iter().any(|line| line.contains("/dev/")), "{said:?}");
        // Ended is ended.
        let after = view(&rig.pool);
        assert_eq!(rig.run(&accepted).await.outcome, Outcome::Done);
        assert_eq!(view(&rig.pool), after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_runs_twice_changes_nothing_more() {
    for step in 0..STEPS {
        for (request, rig) in cases().await {
            let plain = Rig::like(&rig);
            plain.run(&accepted(request.clone())).await;
            rig.trap(step, Part::Apply, At::After, Act::Fail(Retry::ReadBack));
            let ending = rig.run(&accepted(request)).await;
            assert_eq!(ending.outcome, Outcome::Done, "{step}: {}", ending.message);
            assert_eq!(view(&rig.pool), view(&plain.pool), "{step}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_step_unwinds_to_what_was() {
    for step in 0..STEPS {
        for (part, at) in [
            (Part::Look, At::Before),
            (Part::Apply, At::Before),
            (Part::Apply, At::After),
        ] {
            for (request, rig) in cases().await {
                let before = view(&rig.pool);
                rig.trap(step, part, at, Act::Fail(Retry::Never));
                let ending = rig.run(&accepted(request)).await;
                let case = format!("{step} {part:?} {at:?}: {}", ending.message);
                assert_eq!(ending.outcome, Outcome::Failed, "{case}");
                assert_eq!(view(&rig.pool), before, "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_call_resumes_to_the_same_end() {
    for step in 0..STEPS {
        for part in [Part::Look, Part::Apply] {
            for at in [At::Before, At::After] {
                for (request, rig) in cases().await {
                    let plain = Rig::like(&rig);
                    plain.run(&accepted(request.clone())).await;
                    let accepted = accepted(request);
                    rig.trap(step, part, at, Act::Hang);
                    rig.crash(&accepted).await;
                    let ending = rig.run(&accepted).await;
                    let case = format!("{step} {part:?} {at:?}: {}", ending.message);
                    assert_eq!(ending.outcome, Outcome::Done, "{case}");
                    assert_eq!(view(&rig.pool), view(&plain.pool), "{case}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_undo_resumes_the_unwinding() {
    for step in 0..STEPS {
        for at in [At::Before, At::After] {
            for (request, rig) in cases().await {
                let before = view(&rig.pool);
                let accepted = accepted(request);
                rig.trap(STEPS - 1, Part::Apply, At::After, Act::Fail(Retry::Never));
                rig.trap(step, Part::Undo, at, Act::Hang);
                rig.crash(&accepted).await;
                let ending = rig.run(&accepted).await;
                let case = format!("{step} {at:?}: {}", ending.message);
                assert_eq!(ending.outcome, Outcome::Failed, "{case}");
                assert_eq!(view(&rig.pool), before, "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_at_any_step_unwinds_to_what_was() {
    for step in 0..STEPS {
        for at in [At::Before, At::After] {
            for (request, rig) in cases().await {
                let before = view(&rig.pool);
                let (canceller, cancel) = cancel::channel(None);
                rig.trap(step, Part::Apply, at, Act::Cancel(canceller));
                let ending = rig
                    .run_cancelled(rig.executor(), &accepted(request), cancel)
                    .await;
                let case = format!("{step} {at:?}: {}", ending.message);
                match step == STEPS - 1 {
                    // Everything is done by then.
                    true => assert_eq!(ending.outcome, Outcome::Done, "{case}"),
                    false => {
                        assert_eq!(ending.outcome, Outcome::Failed, "{case}");
                        assert!(ending.message.contains("cancelled by somebody"), "{case}");
                        assert_eq!(view(&rig.pool), before, "{case}");
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relocation_is_cancelled_in_its_middle_and_says_how_far_it_is() {
    let rig = rig();
    let before = view(&rig.pool);
    let accepted = accepted(shrink(4 * GIB));
    rig.pool.close_gate();
    let executor = rig.executor();
    let outbox = executor.outbox.clone();
    let (canceller, cancel) = cancel::channel(None);
    let (pool, storage) = (rig.pool.clone(), rig.storage.clone());
    let whole = rig.run_cancelled(executor, &accepted, cancel);
    let cancelling = async {
        #[allow(clippy::disallowed_methods, reason = "the test itself waits")]
        let held = tokio::task::spawn_blocking(move || pool.wait_until_held(Duration::from_secs(20)));
        assert!(held.await.unwrap(), "nothing was relocated");
        let seen = (
            storage.report(Look::Whole),
            [expand(1), shrink(GIB)].map(|request| storage.dry_run(&request)),
        );
        canceller.cancel("somebody");
        seen
    };
    let (ending, (report, dry_runs)) = tokio::join!(whole, cancelling);
    // It showed no share then, and was no device that was shrunk and could grow.
    assert_eq!((report.devices[0].share_bytes, report.spare_bytes), (0, 5 * GIB));
    assert_eq!(report.smallest_bytes, report.size_bytes);
    for refused in dry_runs.map(Result::unwrap_err) {
        assert!(refused.contains("/dev/a is being removed from it"), "{refused}");
    }
    assert_eq!(ending.outcome, Outcome::Failed, "{}", ending.message);
    assert!(
        ending.message.contains("cancelled by somebody"),
        "{}",
        ending.message
    );
    assert_eq!(view(&rig.pool), before);
    let measure = outbox.take_measure(accepted.operation);
    // Nothing had moved at the first gate, or the undo spoke last; either way it says of what.
    assert!(measure.is_none_or(|measure| measure.what == "relocate /dev/a"));
    rig.pool.open_gate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_carried_away_after_its_removal_does_not_undo_the_rest() {
    let rig = rig();
    // Before the removal it is asked twice whether it is made, and then at the end, when nobody can tell any more.
    rig.pool.fail(Call::IsDone, 2, Fail::Before, Retry::Never);
    let ending = rig.run(&accepted(shrink(4 * GIB))).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.message);
    assert!(
        ending.message.contains("shrank by 4.00 GiB"),
        "{}",
        ending.message
    );
    assert_eq!(rig.size(), Bytes(6 * GIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_arrives_meanwhile_stops_a_shrink_before_it_is_unsafe() {
    // Before the check, and before the second change.
    for step in [0, 2] {
        let rig = rig();
        rig.trap(step, Part::Apply, At::Before, Act::Write(Bytes(9 * GIB / 4)));
        let ending = rig.run(&accepted(shrink(5 * GIB))).await;
        assert_eq!(ending.outcome, Outcome::Failed, "{}", ending.message);
        assert!(
            ending.message.contains("the reserve of 10 % would be broken"),
            "{}",
            ending.message
        );
        let contents = rig.pool.contents();
        assert_eq!(contents["arrived"], Bytes(9 * GIB / 4));
        assert_eq!(rig.size(), Bytes(10 * GIB));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_fails_with_its_numbers_and_does_nothing() {
    let rig = rig();
    let before = view(&rig.pool);
    rig.pool
        .set_problem("/dev/e", Some("/dev/e is mounted on /mnt; unmount it"));
    for (request, says) in [
        (
            expand(3 * GIB),
            "pool default: it cannot grow by 3221225472 bytes (3.00 GiB): 2147483648 bytes (2.00 GiB) can be added",
        ),
        (expand(u64::MAX), "can be added (2.00 GiB on /dev/d)"),
        (
            expand(3 * GIB),
            "not taken: /dev/e is mounted on /mnt; unmount it",
        ),
        (shrink(1), "pool default: it has nothing to give"),
    ] {
        let ending = rig.run(&accepted(request)).await;
        assert_eq!(ending.outcome, Outcome::Failed);
        assert!(
            ending.message.contains(says) && ending.message.ends_with("nothing was done"),
            "{}",
            ending.message
        );
    }
    rig.pool.vanish("/dev/a");
    let ending = rig.run(&accepted(shrink(GIB))).await;
    assert!(
        ending.message.contains("it is degraded: /dev/a is missing"),
        "{}",
        ending.message
    );
    assert_eq!(view(&rig.pool).0, before.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_that_goes_after_the_decision_fails_the_operation_by_its_name() {
    let rig = rig();
    let before = view(&rig.pool);
    rig.trap(0, Part::Apply, At::Before, Act::Problem("/dev/d", "it is in use"));
    let ending = rig.run(&accepted(expand(GIB))).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(
        ending
            .message
            .contains("device /dev/d cannot be taken any more: it is in use"),
        "{}",
        ending.message
    );
    assert_eq!(view(&rig.pool).0, before.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pool_is_refused_by_its_name() {
    let rig = rig();
    let mut other = accepted(expand(GIB));
    other.resource = "other".parse().unwrap();
    let ending = rig.run(&other).await;
    assert_eq!(
        ending.message,
        "this host owns the pool default and not other; nothing was done"
    );
}

#[test]
fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let rig = rig();
    let before = view(&rig.pool);
    let answer = rig.storage.dry_run(&shrink(5 * GIB)).unwrap();
    assert_eq!(
        answer.lines,
        [
            "remove device /dev/a (4.00 GiB): 1.50 GiB on it move to the other devices first",
            "shrink device /dev/b from 3.00 GiB to 2.00 GiB: 1.00 GiB less; what lies beyond moves first"
        ]
    );
    assert_eq!(answer.outcome, "default would shrink by 5.00 GiB to 5.00 GiB");
    assert_eq!(answer.size_change_bytes, -(5 << 30));
    let answer = rig.storage.dry_run(&expand(1)).unwrap();
    assert_eq!(answer.outcome, "default would grow by 2.00 GiB to 12.00 GiB");
    let refused = rig.storage.dry_run(&Request::CreateBackup).unwrap_err();
    assert!(refused.contains("CreateBackup has no dry run"), "{refused}");
    assert_eq!(view(&rig.pool), before);
}

#[test]
fn a_report_has_the_figures_and_keeps_the_last_ones_when_there_are_none() {
    let rig = rig();
    assert_eq!(rig.storage.last().problem, "it has not been looked at yet");
    rig.pool.set_problem("/dev/e", Some("it is mounted"));
    let report = rig.storage.report(Look::Whole);
    assert_eq!(
        (
            report.problem.as_str(),
            report.size_bytes,
            report.used_bytes,
            report.spare_bytes
        ),
        ("", 10 * GIB, 5 * GIB / 2, 2 * GIB)
    );
    let smallest = rig
        .storage
        .dry_run(&shrink(u64::MAX))
        .unwrap()
        .size_change_bytes
        .unsigned_abs();
    assert_eq!(report.smallest_bytes, 10 * GIB - smallest);
    assert_eq!(
        (report.reserve_percent, report.data_profile.as_str()),
        (10, "single")
    );
    let roles: Vec<_> = report.devices.iter().map(|device| device.role()).collect();
    use DeviceRole::{Member, Refused, Spare};
    assert_eq!(roles, [Member, Member, Member, Spare, Refused]);
    rig.pool.fail(Call::Look, 0, Fail::Before, Retry::Later);
    let unknown = rig.storage.report(Look::Whole);
    assert_eq!(unknown.problem, "Look failed on purpose");
    assert_eq!(unknown.size_bytes, report.size_bytes);
    assert_eq!(rig.storage.report(Look::Quick).problem, unknown.problem);
    assert_eq!(rig.storage.report(Look::Whole), report);
}

/// Small and good enough, so that a seed says everything.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_in_whatever_order_no_byte_is_lost_and_no_floor_is_passed() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let profile = [Profile::Single, Profile::Single, Profile::Raid1][usize::try_from(seed % 3).unwrap()];
        let rig = Rig::new(
            profile,
            &[
                ("/dev/a", 4 * GIB),
                ("/dev/b", 3 * GIB + 777),
                ("/dev/c", 2 * GIB),
            ],
            &[("/dev/d", 2 * GIB), ("/dev/e", 3 * GIB), ("/dev/f", GIB + 4095)],
        );
        let mut written = Vec::new();
        for turn in 0..8 {
            let case = format!("seed {seed}, turn {turn}");
            let blob = format!("blob-{turn}");
            let bytes = Bytes((1 + dice.roll(12)) << 26);
            if rig.has_room_for(bytes) && rig.pool.write(&blob, bytes) {
                written.push((blob, bytes));
            }
            let amount = (1 + dice.roll(5 << 20)) << 10;
            let request = match dice.roll(2) {
                0 => expand(amount),
                _ => shrink(amount),
            };
            let accepted = accepted(request);
            let before = view(&rig.pool);
            let step = usize::try_from(dice.roll(4)).unwrap();
            let part = [Part::Look, Part::Apply, Part::Undo][usize::try_from(dice.roll(3)).unwrap()];
            let at = [At::Before, At::After][usize::try_from(dice.roll(2)).unwrap()];
            let (canceller, cancel) = cancel::channel(None);
            match dice.roll(4) {
                0 => rig.trap(step, part, at, Act::Fail(Retry::Never)),
                1 => rig.trap(step, part, at, Act::Cancel(canceller)),
                2 => {
                    rig.trap(step, part, at, Act::Hang);
                    rig.crash_if_it_hangs(&accepted).await;
                }
                _ => {}
            }
            let ending = rig.run_cancelled(rig.executor(), &accepted, cancel).await;
            rig.disarm();
            let case = format!("{case}: {}", ending.message);
            // An undo that fails for good is for a person.
            if ending.outcome == Outcome::Failed {
                assert_eq!(view(&rig.pool), before, "{case}");
            }
            rig.invariant_no_byte_is_lost(&written, &case);
            rig.invariant_used_and_reserve_fit(&case);
            rig.invariant_no_device_is_lost(6, &case);
            rig.invariant_no_share_is_overfull(&case);
            if ending.outcome == Outcome::NeedsAttention {
                break;
            }
        }
    }
}
