//! The desk by itself: bounds, and what a coordinator that makes no sense can bring about.

use std::sync::Arc;
use std::time::Duration;

use hostler_agent::executor::outbox::{LINES_BOUND, Outbox};
use hostler_agent::executor::run::RunEnd;
use hostler_agent::executor::state::{Ending, Outcome};
use hostler_agent::journal::state_dir::StateDir;
use hostler_agent::session::desk::{Desk, Do, RUNNING_BOUND};
use hostler_common::id::OperationId;
use hostler_common::operation::OperationKind;
use hostler_common::rpc::hostler::agent::v1::session_request::Message;
use hostler_common::rpc::hostler::agent::v1::{
    Cancel, FinishAnswer, Measure, Measured, Offer, Propose, ProposeAnswer, Welcome,
};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::request;

struct Rig {
    desk: Desk,
    outbox: Outbox,
    now: Instant,
    _dir: TempDir,
}

fn rig() -> Rig {
    let dir = TempDir::new().unwrap();
    let state_dir = Arc::new(StateDir::open(dir.path()).unwrap());
    let outbox = Outbox::default();
    let mut desk = Desk::new(
        "host-1".parse().unwrap(),
        state_dir,
        outbox.clone(),
        CancellationToken::new(),
        &[],
    );
    let now = Instant::now();
    let welcome = Welcome {
        lease_seconds: 30,
        ..Welcome::default()
    };
    desk.welcomed(&welcome, now);
    Rig {
        desk,
        outbox,
        now,
        _dir: dir,
    }
}

fn offer(number: usize) -> Offer {
    let id = format!("hv-{number}");
    Offer {
        operation_id: OperationId::generate().to_string(),
        request: Some(request(OperationKind::CreateHypervisor, &id)),
        resource: id,
        fence: 0,
        attempt: 1,
    }
}

fn accept(propose: &Propose) -> ProposeAnswer {
    ProposeAnswer {
        request_id: propose.request_id,
        accepted: true,
        fence: 1,
        reason: String::new(),
    }
}

impl Rig {
    fn todo(&mut self) -> Vec<Do> {
        self.desk.todo(self.now, usize::MAX)
    }

    fn proposals(&mut self) -> Vec<Propose> {
        let sent = self.todo().into_iter().filter_map(|action| match action {
            Do::Send(request) => request.message,
            _ => None,
        });
        sent.filter_map(|message| match message {
            Message::Propose(propose) => Some(propose),
            _ => None,
        })
        .collect()
    }
}

#[test]
fn no_more_operations_than_the_bound_are_taken_and_the_rest_follow() {
    let mut rig = rig();
    for number in 0..RUNNING_BOUND + 8 {
        rig.desk.offered(offer(number), rig.now);
    }
    let taken = rig.proposals();
    assert_eq!(taken.len(), RUNNING_BOUND);
    for propose in &taken {
        rig.desk.proposal_answered(accept(propose), rig.now);
    }
    let started = rig.todo();
    assert_eq!(
        started
            .iter()
            .filter(|action| matches!(action, Do::Start { .. }))
            .count(),
        RUNNING_BOUND
    );
    let ended: OperationId = taken[0].operation_id.parse().unwrap();
    let ending = Ending {
        outcome: Outcome::Done,
        message: "done".into(),
    };
    rig.desk.run_ended(ended, RunEnd::Ended(ending), 1, rig.now);
    assert_eq!(rig.proposals().len(), 1, "one place, one more operation");
}

#[test]
fn the_lease_is_kept_until_the_look_before_the_end_is_over() {
    let mut rig = rig();
    rig.desk.offered(offer(1), rig.now);
    let taken = rig.proposals();
    rig.desk.proposal_answered(accept(&taken[0]), rig.now);
    rig.todo();
    let operation: OperationId = taken[0].operation_id.parse().unwrap();
    let ending = Ending {
        outcome: Outcome::Failed,
        message: "libvirt hangs".into(),
    };
    rig.desk.run_ended(operation, RunEnd::Ended(ending), 7, rig.now);
    for renewal in 1..=20 {
        assert!(rig.todo().is_empty(), "nothing is due before its time");
        let due = rig.desk.next_due();
        rig.now += Duration::from_secs(10);
        assert_eq!(due, Some(rig.now), "a third of the lease");
        let renewals = rig.proposals();
        assert_eq!(renewals.len(), 1, "renewal {renewal}");
        assert_eq!(
            (renewals[0].fence, &renewals[0].operation_id),
            (1, &taken[0].operation_id)
        );
        rig.desk.proposal_answered(accept(&renewals[0]), rig.now);
    }
    rig.desk.reported(7);
    let sent: Vec<_> = rig.todo().into_iter().collect();
    let is_end =
        |action: &Do| matches!(action, Do::Send(sent) if matches!(sent.message, Some(Message::Finish(_))));
    assert!(matches!(&sent[..], [only] if is_end(only)), "{sent:?}");
}

#[test]
fn an_offer_that_comes_twice_is_proposed_for_once() {
    let mut rig = rig();
    let offer = offer(1);
    rig.desk.offered(offer.clone(), rig.now);
    rig.desk.offered(offer.clone(), rig.now);
    let first = rig.proposals();
    assert_eq!(first.len(), 1);
    rig.desk.offered(offer, rig.now);
    assert!(rig.proposals().is_empty(), "it is asked for already");
    rig.desk.proposal_answered(accept(&first[0]), rig.now);
    rig.desk.proposal_answered(accept(&first[0]), rig.now);
    let starts = rig.todo();
    assert_eq!(starts.len(), 1, "{starts:?}");
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mut rig = rig();
    let ill = |id: &str, resource: &str| Offer {
        operation_id: id.into(),
        resource: resource.into(),
        ..offer(1)
    };
    let good = OperationId::generate().to_string();
    for bad in [
        ill("", "hv-1"),
        ill("x", "hv-1"),
        ill(&good, "../etc"),
        ill(&good, ""),
    ] {
        rig.desk.offered(bad, rig.now);
    }
    rig.desk.proposal_answered(
        ProposeAnswer {
            request_id: 77,
            accepted: true,
            fence: 9,
            reason: String::new(),
        },
        rig.now,
    );
    for id in ["", good.as_str()] {
        rig.desk.finish_answered(&FinishAnswer {
            operation_id: id.into(),
            accepted: true,
            reason: String::new(),
        });
    }
    rig.desk.welcomed(
        &Welcome {
            ended_operation_ids: vec![String::new(), good],
            ..Welcome::default()
        },
        rig.now,
    );
    assert!(rig.todo().is_empty());
}

#[test]
fn lines_that_no_answer_came_to_are_said_again_and_only_the_oldest_are_dropped() {
    let mut rig = rig();
    rig.desk.offered(offer(1), rig.now);
    let taking = rig.proposals().remove(0);
    rig.desk.proposal_answered(accept(&taking), rig.now);
    let operation: OperationId = taking.operation_id.parse().unwrap();
    rig.todo();
    rig.outbox.say(operation, "one".into());
    rig.outbox.say(operation, "two".into());
    let line = |propose: &Propose| propose.proposal.clone().unwrap().log_message;
    let said: Vec<_> = rig.proposals().iter().map(line).collect();
    assert_eq!(said, ["one", "two"]);
    rig.desk.disconnected();
    for number in 0..LINES_BOUND {
        rig.outbox.say(operation, number.to_string());
    }
    let welcome = Welcome {
        lease_seconds: 30,
        ..Welcome::default()
    };
    rig.desk.welcomed(&welcome, rig.now);
    let said: Vec<_> = rig.proposals().iter().map(line).collect();
    assert_eq!(said.len(), LINES_BOUND);
    assert_eq!(said[0], "0");
    assert_eq!(rig.desk.unanswered_since(), Some(rig.now));
}

/// One operation that runs under fence 1.
fn running(rig: &mut Rig) -> (Offer, OperationId) {
    let offer = offer(1);
    rig.desk.offered(offer.clone(), rig.now);
    let taking = rig.proposals().remove(0);
    rig.desk.proposal_answered(accept(&taking), rig.now);
    assert!(matches!(rig.todo().as_slice(), [Do::Start { .. }]));
    let operation = taking.operation_id.parse().unwrap();
    (offer, operation)
}

fn reconnect(rig: &mut Rig) {
    rig.desk.disconnected();
    let welcome = Welcome {
        lease_seconds: 30,
        ..Welcome::default()
    };
    rig.desk.welcomed(&welcome, rig.now);
    rig.desk.reported(2);
}

fn finishes(todo: Vec<Do>) -> Vec<u64> {
    let sent = todo.into_iter().filter_map(|action| match action {
        Do::Send(request) => request.message,
        _ => None,
    });
    sent.filter_map(|message| match message {
        Message::Finish(finish) => Some(finish.fence),
        _ => None,
    })
    .collect()
}

#[test]
fn an_end_waits_for_the_fence_of_a_proposal_whose_answer_was_lost() {
    let mut rig = rig();
    let (offer, operation) = running(&mut rig);
    let ending = Ending {
        outcome: Outcome::Failed,
        message: "failed".into(),
    };
    rig.desk.run_ended(operation, RunEnd::Ended(ending), 1, rig.now);
    // The lease ran out meanwhile, so the coordinator offers it again. It takes the proposal, and the stream breaks.
    rig.desk.offered(offer, rig.now);
    assert_eq!(rig.proposals().len(), 1);
    reconnect(&mut rig);
    let again = rig.todo();
    assert_eq!(again.len(), 1, "{again:?}");
    let Do::Send(request) = &again[0] else {
        panic!("{again:?}")
    };
    let Some(Message::Propose(propose)) = &request.message else {
        panic!("an end under the old fence would not count: {request:?}")
    };
    assert_eq!(propose.fence, 0);
    let answer = ProposeAnswer {
        fence: 2,
        ..accept(propose)
    };
    rig.desk.proposal_answered(answer, rig.now);
    assert_eq!(finishes(rig.todo()), [2]);
}

#[test]
fn a_first_proposal_whose_answer_was_lost_is_made_again() {
    let mut rig = rig();
    rig.desk.offered(offer(1), rig.now);
    assert_eq!(rig.proposals().len(), 1);
    reconnect(&mut rig);
    let again = rig.proposals();
    assert_eq!(
        again.len(),
        1,
        "the coordinator may hold it for taken and offer it to nobody"
    );
    let refusal = ProposeAnswer {
        accepted: false,
        ..accept(&again[0])
    };
    rig.desk.proposal_answered(refusal, rig.now);
    reconnect(&mut rig);
    assert!(rig.todo().is_empty(), "it is not ours");
}

#[test]
fn a_refusal_under_an_older_fence_does_not_stop_what_has_a_newer_one() {
    let mut rig = rig();
    let (_, operation) = running(&mut rig);
    rig.outbox.say(operation, "one".into());
    rig.outbox.say(operation, "two".into());
    let said = rig.proposals();
    // The lease ran out meanwhile: the first takes the operation anew, and the second comes under the old fence.
    let taken = ProposeAnswer {
        fence: 2,
        ..accept(&said[0])
    };
    rig.desk.proposal_answered(taken, rig.now);
    let refusal = ProposeAnswer {
        accepted: false,
        ..accept(&said[1])
    };
    rig.desk.proposal_answered(refusal, rig.now);
    let again = rig.proposals();
    assert_eq!(again.len(), 1, "still held, and the line is not lost");
    assert_eq!(again[0].fence, 2);
    assert_eq!(again[0].proposal.clone().unwrap().log_message, "two");
}

#[test]
fn a_running_operation_is_renewed_at_a_third_of_its_lease() {
    let mut rig = rig();
    rig.desk.offered(offer(1), rig.now);
    let taking = rig.proposals().remove(0);
    rig.desk.proposal_answered(accept(&taking), rig.now);
    rig.todo();
    let third = rig.now + Duration::from_secs(10);
    assert_eq!(rig.desk.next_due(), Some(third));
    assert!(rig.proposals().is_empty());
    rig.now = third;
    let renewal = rig.proposals().remove(0);
    assert_eq!(
        (renewal.fence, renewal.proposal.unwrap().lock_for_seconds),
        (1, 30)
    );
}

fn measure(done_bytes: u64) -> Measure {
    Measure {
        what: "relocate".into(),
        done_bytes,
        ..Measure::default()
    }
}

fn measured(todo: Vec<Do>) -> Vec<Measured> {
    let sent = todo.into_iter().filter_map(|action| match action {
        Do::Send(request) => request.message,
        _ => None,
    });
    sent.filter_map(|message| match message {
        Message::Measured(measured) => Some(measured),
        _ => None,
    })
    .collect()
}

#[test]
fn the_newest_measure_is_said_once_a_second_at_most() {
    let mut rig = rig();
    let (offer, operation) = running(&mut rig);
    for done in 0..5 {
        rig.outbox.measure(operation, measure(done));
    }
    let first = measured(rig.todo());
    assert_eq!(
        first,
        [Measured {
            operation_id: offer.operation_id,
            fence: 1,
            measure: Some(measure(4)),
        }]
    );
    rig.outbox.measure(operation, measure(5));
    assert!(measured(rig.todo()).is_empty());
    let due = rig.now + Duration::from_secs(1);
    assert_eq!(rig.desk.next_due(), Some(due));
    rig.now = due;
    assert_eq!(measured(rig.todo())[0].measure, Some(measure(5)));
    rig.now += Duration::from_secs(1);
    assert!(measured(rig.todo()).is_empty(), "it is said once");
}

#[test]
fn a_measure_waits_while_there_is_no_room_and_never_makes_the_desk_turn() {
    let mut rig = rig();
    let (_, operation) = running(&mut rig);
    rig.outbox.say(operation, "a line".into());
    rig.outbox.measure(operation, measure(1));
    let sent = rig.desk.todo(rig.now, 1);
    assert_eq!(sent.len(), 1, "the line goes first: {sent:?}");
    assert!(measured(sent).is_empty());
    assert!(rig.desk.next_due().unwrap() > rig.now);
    rig.outbox.measure(operation, measure(2));
    rig.now += Duration::from_secs(1);
    assert_eq!(measured(rig.todo())[0].measure, Some(measure(2)));
}

#[test]
fn what_does_not_run_is_not_measured() {
    let mut rig = rig();
    let (_, operation) = running(&mut rig);
    rig.outbox.measure(operation, measure(1));
    let ending = Ending {
        outcome: Outcome::Done,
        message: "done".into(),
    };
    rig.desk.run_ended(operation, RunEnd::Ended(ending), 1, rig.now);
    assert!(measured(rig.todo()).is_empty());
}

fn cancel(operation_id: &str, by: &str) -> Cancel {
    Cancel {
        operation_id: operation_id.into(),
        by: by.into(),
    }
}

/// Who cancelled the operation that starts, as it hears it.
fn started(todo: Vec<Do>) -> Option<Option<String>> {
    todo.into_iter().find_map(|action| match action {
        Do::Start { cancel, .. } => Some(cancel.by()),
        _ => None,
    })
}

#[test]
fn a_cancel_of_what_waits_is_heard_when_it_starts() {
    let mut rig = rig();
    let offer = offer(1);
    rig.desk.offered(offer.clone(), rig.now);
    let taking = rig.proposals().remove(0);
    rig.desk.cancelled(&cancel(&offer.operation_id, "ann"));
    rig.desk.cancelled(&cancel(&offer.operation_id, "bob"));
    rig.desk.proposal_answered(accept(&taking), rig.now);
    assert_eq!(started(rig.todo()), Some(Some("ann".into())));
}

#[test]
fn a_cancel_of_what_halted_is_heard_when_it_starts_again() {
    let mut rig = rig();
    let (offer, operation) = running(&mut rig);
    rig.desk.cancelled(&cancel(&offer.operation_id, "ann"));
    rig.outbox.say(operation, "a line".into());
    let said = rig.proposals().remove(0);
    let refusal = ProposeAnswer {
        accepted: false,
        ..accept(&said)
    };
    rig.desk.proposal_answered(refusal, rig.now);
    rig.desk.run_ended(operation, RunEnd::Halted, 1, rig.now);
    rig.desk.offered(offer, rig.now);
    let taking = rig.proposals().remove(0);
    let again = ProposeAnswer {
        fence: 2,
        ..accept(&taking)
    };
    rig.desk.proposal_answered(again, rig.now);
    assert_eq!(started(rig.todo()), Some(Some("ann".into())));
}

#[test]
fn a_cancel_reaches_what_runs_unless_it_cannot_be_cancelled() {
    for (kind, disabled) in [
        (OperationKind::CreateHypervisor, false),
        (OperationKind::DeleteBackup, true),
    ] {
        let mut rig = rig();
        let offer = Offer {
            request: Some(request(kind, "hv-1")),
            ..offer(1)
        };
        // Before it starts, too.
        rig.desk.offered(offer.clone(), rig.now);
        let taking = rig.proposals().remove(0);
        let proposal = taking.proposal.clone().unwrap();
        assert_eq!(proposal.is_disabled_cancel, disabled, "{kind:?}");
        if disabled {
            rig.desk.cancelled(&cancel(&offer.operation_id, "ann"));
        }
        rig.desk.proposal_answered(accept(&taking), rig.now);
        let todo = rig.todo();
        let [Do::Start { cancel: heard, .. }] = todo.as_slice() else {
            panic!("{todo:?}")
        };
        assert_eq!(heard.by(), None);
        rig.desk.cancelled(&cancel(&offer.operation_id, "ann"));
        let wanted = (!disabled).then(|| "ann".to_owned());
        assert_eq!(heard.by(), wanted, "{kind:?}");
    }
}

#[test]
fn what_is_malformed_cannot_be_cancelled_and_foreign_cancels_change_nothing() {
    let mut rig = rig();
    let malformed = Offer {
        request: None,
        ..offer(1)
    };
    rig.desk.offered(malformed, rig.now);
    let proposal = rig.proposals().remove(0).proposal.unwrap();
    assert!(proposal.is_disabled_cancel);
    for id in ["", "x", &OperationId::generate().to_string()] {
        rig.desk.cancelled(&cancel(id, "ann"));
    }
    assert!(rig.todo().is_empty());
}

#[test]
fn an_end_that_waits_for_an_answer_never_makes_the_desk_turn() {
    let mut rig = rig();
    let (offer, operation) = running(&mut rig);
    let ending = Ending {
        outcome: Outcome::Failed,
        message: "failed".into(),
    };
    rig.desk.run_ended(operation, RunEnd::Ended(ending), 1, rig.now);
    rig.desk.reported(1);
    rig.desk.offered(offer, rig.now);
    let proposed = rig.proposals();
    assert_eq!(proposed.len(), 1);
    assert_eq!(rig.desk.next_due(), None, "an answer brings it on, and no clock");
    rig.desk.proposal_answered(accept(&proposed[0]), rig.now);
    assert!(rig.desk.next_due().is_some());
}

#[test]
fn an_end_that_nobody_asked_for_stops_what_runs_and_keeps_its_journal_aside() {
    let mut rig = rig();
    let (_, operation) = running(&mut rig);
    let ended = FinishAnswer {
        operation_id: operation.to_string(),
        accepted: false,
        reason: "its lease ran out".into(),
    };
    rig.desk.finish_answered(&ended);
    assert!(
        dropped(rig.todo()).is_empty(),
        "the step that runs is not left alone"
    );
    rig.desk.run_ended(operation, RunEnd::Halted, 1, rig.now);
    assert_eq!(dropped(rig.todo()), ["SetAside(Abandoned)"]);
    rig.desk.dropped(operation, rig.now);
    rig.desk.finish_answered(&ended);
    assert!(rig.todo().is_empty());
}

#[test]
fn what_follows_on_a_resource_is_not_taken_while_the_step_before_it_runs() {
    let mut rig = rig();
    let (_, operation) = running(&mut rig);
    let ended = FinishAnswer {
        operation_id: operation.to_string(),
        accepted: false,
        reason: "somebody resolved it".into(),
    };
    rig.desk.finish_answered(&ended);
    let next = offer(1);
    rig.desk.offered(next.clone(), rig.now);
    rig.desk.offered(offer(2), rig.now);
    let taken: Vec<_> = rig.proposals().into_iter().map(resource_of).collect();
    assert_eq!(taken, ["hv-2"], "the other resource is nobody's");
    rig.desk.run_ended(operation, RunEnd::Halted, 1, rig.now);
    let taken = rig.proposals();
    assert_eq!(taken[0].operation_id, next.operation_id);
}

fn resource_of(propose: Propose) -> String {
    propose.proposal.unwrap_or_default().name
}

fn dropped(todo: Vec<Do>) -> Vec<String> {
    let fates = todo.into_iter().filter_map(|action| match action {
        Do::Drop { fate, .. } => Some(format!("{fate:?}")),
        _ => None,
    });
    fates.collect()
}
