//! The session: what an agent says to a coordinator, in which order, and what it does when the stream, the lease
//! or the process is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hostler_agent::executor::run::Executor;
use hostler_agent::identity::line::Line;
use hostler_agent::session::desk::Desk;
use hostler_agent::session::dial::Dial;
use hostler_agent::session::pulse::Pulse;
use hostler_agent::session::questions::Answerer;
use hostler_agent::session::report;
use hostler_agent::session::task::SessionTask;
use hostler_common::error::Retry;
use hostler_common::id::{Fence, OperationId};
use hostler_common::operation::OperationKind;
use hostler_common::rpc::hostler::agent::v1::session_request::Message as Request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message as Response;
use hostler_common::rpc::hostler::agent::v1::{
    Cancel, Heartbeat, HostReport, Inventory, Measure, Offer, Outcome, Refused, Welcome,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{self, soon};
use crate::world::{Call, Fault, Rig, World, request};

/// An agent process over a fake world.
pub(crate) struct Agent {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    executor: Executor,
    reporter: report::Reporter,
    memory: Arc<AtomicU64>,
}

impl Agent {
    fn start(rig: &Rig, dial: &Dial) -> Self {
        Self::start_answering(rig, dial, Arc::new(|_, pool| Err(format!("no pool {pool} here"))))
    }

    pub(crate) fn start_answering(rig: &Rig, dial: &Dial, answerer: Answerer) -> Self {
        Self::start_with(rig, dial, answerer, Line::nobody())
    }

    pub(crate) fn start_with(rig: &Rig, dial: &Dial, answerer: Answerer, identity: Line) -> Self {
        let executor = rig.executor();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let memory = Arc::new(AtomicU64::new(0));
        let (world, shown) = (rig.world.clone(), Arc::clone(&memory));
        // A report that shows the world: as many threads as there are objects.
        let observe = move |_| HostReport {
            inventory: Some(Inventory {
                cpu_threads: u32::try_from(world.objects().len()).unwrap(),
                memory_mb: shown.load(Ordering::SeqCst),
                ..Inventory::default()
            }),
            hypervisors: vec![],
            pools: vec![],
        };
        let reporter = report::spawn(
            &mut tasks,
            Arc::new(observe),
            HostReport::default(),
            Duration::from_secs(20),
            stop.clone(),
        );
        let found = executor.state_dir.found().unwrap();
        let desk = Desk::new(
            "host-1".parse().unwrap(),
            executor.state_dir.clone(),
            executor.outbox.clone(),
            stop.clone(),
            &found,
        );
        let session = SessionTask::new(
            desk,
            dial.clone(),
            executor.clone(),
            reporter.clone(),
            answerer,
            Pulse::default(),
            stop.clone(),
        )
        .with_identity(identity);
        tasks.spawn(session.run());
        Self {
            tasks,
            stop,
            executor,
            reporter,
            memory,
        }
    }

    /// Dies as a process does. What its tasks held is given back.
    async fn crash(mut self) {
        self.tasks.shutdown().await;
        let state_dir = Arc::downgrade(&self.executor.state_dir);
        drop(self);
        // The runs of operations are dropped by other threads of the runtime.
        until("end of the runs", || state_dir.strong_count() == 0).await;
    }

    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        soon("end of the tasks", async {
            while let Some(task) = self.tasks.join_next().await {
                task.unwrap();
            }
        })
        .await;
    }

    fn has_journal(&self, offer: &Offer) -> bool {
        !self.executor.state_dir.records(id(offer)).unwrap().is_empty()
    }
}

fn id(offer: &Offer) -> OperationId {
    offer.operation_id.parse().unwrap()
}

fn offer(fence: u64) -> Offer {
    Offer {
        operation_id: OperationId::generate().to_string(),
        resource: "hv-1".into(),
        fence,
        request: Some(request(OperationKind::CreateHypervisor, "hv-1")),
        attempt: 1,
    }
}

fn journal(rig: &Rig, offer: &Offer, suffix: &str) -> PathBuf {
    rig.dir
        .path()
        .join(format!("journal/{}.{suffix}", offer.operation_id))
}

pub(crate) async fn until(what: &str, predicate: impl Fn() -> bool) {
    soon(what, async {
        while !predicate() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn hang(world: &World) {
    let world = world.clone();
    #[allow(clippy::disallowed_methods, reason = "the test itself waits")]
    tokio::task::spawn_blocking(move || world.wait_for_a_hang())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_goes_from_offer_to_answer() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let agent = Agent::start(&rig, &dial);
    let (mut talk, hello) = coordinator.welcome(&[]).await;
    assert_eq!((hello.host.as_str(), hello.protocol), ("host-1", 1));
    assert!(hello.journaled_operation_ids.is_empty());
    assert_eq!(talk.report().await.inventory.unwrap().cpu_threads, 0);

    let offer = offer(7);
    talk.offer(&offer).await;
    let first = talk.proposal().await;
    let proposal = first.proposal.clone().unwrap();
    assert_eq!(first.fence, 0);
    assert_eq!(proposal.name, "hv-1");
    assert_eq!(proposal.lock_for_seconds, 3);
    assert_eq!(proposal.log_message, "taken by host-1");
    assert_eq!(proposal.proposing_peer_token, hello.process_token);
    assert!(
        rig.world.calls(Call::Look).is_empty(),
        "it ran before it was ours"
    );
    talk.accept(&first, 8).await;

    let finish = talk.finish(8).await;
    assert_eq!(finish.outcome(), Outcome::Done, "{}", finish.message);
    assert_eq!((finish.fence, &finish.process_token), (8, &hello.process_token));
    // The coordinator knows the new state before the end.
    let last = talk.reports.last().unwrap();
    assert_eq!(last.inventory.as_ref().unwrap().cpu_threads, 4);
    assert_eq!(talk.lines.len(), 9, "{:?}", talk.lines);
    assert_eq!(talk.lines[1], "step 1/4: make network");

    assert!(agent.has_journal(&offer));
    talk.answer(&finish).await;
    until("removal of the journal", || {
        !journal(&rig, &offer, "log").exists()
    })
    .await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_repeated_until_it_is_answered() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let agent = Agent::start(&rig, &dial);
    let offer = offer(0);
    let first = {
        let (mut talk, _) = coordinator.welcome(&[]).await;
        talk.offer(&offer).await;
        let propose = talk.proposal().await;
        talk.accept(&propose, 1).await;
        talk.finish(1).await
    };
    // The stream broke before the answer. The next session hears it again, and so does the next process.
    let second = {
        let (mut talk, hello) = coordinator.welcome(&[]).await;
        assert_eq!(
            hello.journaled_operation_ids,
            std::slice::from_ref(&offer.operation_id)
        );
        let finish = talk.finish(1).await;
        agent.crash().await;
        finish
    };
    assert_eq!(first, second);
    let agent = Agent::start(&rig, &dial);
    let (mut talk, hello) = coordinator.welcome(&[]).await;
    assert_eq!(
        hello.journaled_operation_ids,
        std::slice::from_ref(&offer.operation_id)
    );
    let third = talk.finish(1).await;
    assert_eq!(
        third, first,
        "the end carries the fence and token of the process that held it"
    );
    assert_ne!(third.process_token, hello.process_token);
    // And within one session, without a new one.
    assert_eq!(talk.finish(1).await, first);
    talk.answer(&third).await;
    until("removal of the journal", || {
        !journal(&rig, &offer, "log").exists()
    })
    .await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_is_reported_at_once_and_an_unchanged_one_is_not() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    talk.report().await;
    let look = agent.reporter.want();
    soon(
        "look",
        agent.reporter.latest().wait_for(|seen| seen.number >= look),
    )
    .await
    .unwrap();
    agent.memory.store(5, Ordering::SeqCst);
    agent.reporter.changed();
    let changed = talk.report().await;
    assert_eq!(changed.inventory.unwrap().memory_mb, 5);
    assert_eq!(talk.reports.len(), 2);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_goes_on_while_no_session_is_up_and_is_not_run_twice() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("volume", Call::Apply, Fault::HangAfter, 1);
    let agent = Agent::start(&rig, &dial);
    let offer = offer(0);
    {
        let (mut talk, _) = coordinator.welcome(&[]).await;
        talk.offer(&offer).await;
        let propose = talk.proposal().await;
        talk.accept(&propose, 1).await;
        hang(&rig.world).await;
    }
    // The lease lapsed meanwhile: the renewal is refused while the new offer is on its way.
    let (mut talk, _) = coordinator.welcome(&[]).await;
    talk.offer(&Offer {
        attempt: 2,
        fence: 1,
        ..offer.clone()
    })
    .await;
    let mut taken = false;
    while !taken {
        let propose = talk.proposal().await;
        taken = propose.fence == 0;
        match taken {
            true => talk.accept(&propose, 2).await,
            false => assert_eq!(propose.fence, 1),
        }
    }
    rig.world.release();
    let finish = talk.finish(2).await;
    assert_eq!(finish.fence, 2);
    assert_eq!(finish.outcome(), Outcome::Failed, "the release is a failure");
    let applied = rig.world.calls(Call::Apply);
    assert_eq!(applied, ["network", "volume"], "a step ran twice");
    assert!(
        talk.lines.iter().any(|line| line == "still with host-1"),
        "{:?}",
        talk.lines
    );
    talk.answer(&finish).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_stops_the_operation_at_the_next_step_and_a_new_one_goes_on() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("volume", Call::Apply, Fault::HangAfter, 1);
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    let offer = offer(0);
    talk.offer(&offer).await;
    let propose = talk.proposal().await;
    talk.accept(&propose, 1).await;
    hang(&rig.world).await;
    // Lines first, then the renewal at a third of the lease, which is refused.
    loop {
        let propose = talk.proposal().await;
        assert_eq!(propose.fence, 1);
        if propose.proposal.as_ref().unwrap().log_message.is_empty() {
            talk.refuse(&propose).await;
            break;
        }
        talk.accept(&propose, 1).await;
    }
    // What is answered after the refusal shows that it was heard.
    talk.say(Response::Heartbeat(Heartbeat {})).await;
    while !matches!(talk.next().await, Request::Heartbeat(_)) {}
    rig.world.release();

    // Somebody else held it, and is gone.
    talk.offer(&Offer {
        attempt: 2,
        fence: 2,
        ..offer.clone()
    })
    .await;
    let again = talk.proposal().await;
    assert_eq!(again.fence, 0);
    talk.accept(&again, 3).await;
    let finish = talk.finish(3).await;
    assert_eq!(finish.outcome(), Outcome::Failed);
    assert_eq!(finish.fence, 3);
    assert!(rig.world.objects().is_empty());
    assert_eq!(
        agent.executor.state_dir.fences().newest(&"hv-1".parse().unwrap()),
        Fence(3)
    );
    talk.answer(&finish).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_next_offer_resumes_the_operation() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("domain", Call::Apply, Fault::HangBefore, 1);
    let agent = Agent::start(&rig, &dial);
    let offer = offer(0);
    {
        let (mut talk, _) = coordinator.welcome(&[]).await;
        talk.offer(&offer).await;
        let propose = talk.proposal().await;
        talk.accept(&propose, 1).await;
        hang(&rig.world).await;
        agent.crash().await;
        rig.world.release();
    }
    let agent = Agent::start(&rig, &dial);
    let (mut talk, hello) = coordinator.welcome(&[]).await;
    assert_eq!(
        hello.journaled_operation_ids,
        std::slice::from_ref(&offer.operation_id)
    );
    talk.report().await;
    talk.offer(&Offer {
        attempt: 2,
        fence: 1,
        ..offer.clone()
    })
    .await;
    let propose = talk.proposal().await;
    assert_eq!(
        propose.proposal.clone().unwrap().log_message,
        "taken up again by host-1"
    );
    talk.accept(&propose, 2).await;
    let finish = talk.finish(2).await;
    assert_eq!(finish.outcome(), Outcome::Done, "{}", finish.message);
    let applied = rig.world.calls(Call::Apply);
    assert_eq!(applied, ["network", "volume", "domain", "domain", "start"]);
    talk.answer(&finish).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_the_coordinator_holds_for_ended_is_set_aside() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("domain", Call::Apply, Fault::HangBefore, 1);
    let agent = Agent::start(&rig, &dial);
    let offer = offer(0);
    {
        let (mut talk, _) = coordinator.welcome(&[]).await;
        talk.offer(&offer).await;
        let propose = talk.proposal().await;
        talk.accept(&propose, 1).await;
        hang(&rig.world).await;
        agent.crash().await;
        rig.world.release();
    }
    let agent = Agent::start(&rig, &dial);
    let (_talk, _) = coordinator
        .welcome(std::slice::from_ref(&offer.operation_id))
        .await;
    until("journal set aside", || {
        journal(&rig, &offer, "log.abandoned").exists()
    })
    .await;
    assert!(!journal(&rig, &offer, "log").exists());
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_reported_and_kept() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("domain", Call::Apply, Fault::HangBefore, 1);
    let agent = Agent::start(&rig, &dial);
    let offer = offer(0);
    {
        let (mut talk, _) = coordinator.welcome(&[]).await;
        talk.offer(&offer).await;
        let propose = talk.proposal().await;
        talk.accept(&propose, 1).await;
        hang(&rig.world).await;
        agent.crash().await;
        rig.world.release();
    }
    let path = journal(&rig, &offer, "log");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("volume", "vulome", 1)).unwrap();
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    let finish = talk.finish(1).await;
    assert_eq!(finish.outcome(), Outcome::NeedsAttention);
    assert_eq!(finish.fence, 1);
    assert!(finish.message.contains("is damaged"), "{}", finish.message);
    talk.answer(&finish).await;
    until("journal set aside", || {
        journal(&rig, &offer, "log.damaged").exists()
    })
    .await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_with_an_old_fence_is_proposed_for_and_begun_only_under_a_newer_one() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let agent = Agent::start(&rig, &dial);
    let state_dir = agent.executor.state_dir.clone();
    state_dir.fences().see(&"hv-1".parse().unwrap(), Fence(9));
    let (mut talk, _) = coordinator.welcome(&[]).await;
    let old = offer(3);
    for fence in [4, 9] {
        talk.offer(&old).await;
        let propose = talk.proposal().await;
        assert_eq!((propose.fence, propose.newest_fence), (0, 9));
        talk.accept(&propose, fence).await;
    }
    talk.offer(&old).await;
    let propose = talk.proposal().await;
    assert!(!agent.has_journal(&old), "it was begun under an old fence");
    talk.accept(&propose, 10).await;
    let finish = talk.finish(10).await;
    assert_eq!(finish.outcome(), Outcome::Done, "{}", finish.message);
    talk.answer(&finish).await;
    drop(state_dir);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_proposal_leaves_nothing_behind() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    let refused = offer(0);
    talk.offer(&refused).await;
    let propose = talk.proposal().await;
    talk.refuse(&propose).await;
    let taken = offer(0);
    talk.offer(&taken).await;
    let propose = talk.proposal().await;
    assert_eq!(propose.operation_id, taken.operation_id);
    talk.accept(&propose, 1).await;
    let finish = talk.finish(1).await;
    assert_eq!(finish.operation_id, taken.operation_id);
    assert!(!agent.has_journal(&refused));
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_answered_and_a_silent_coordinator_is_left() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.conversation().await;
    talk.say(Response::Welcome(Welcome {
        epoch: 1,
        heartbeat_interval_ms: 300,
        lease_seconds: 3,
        ..Welcome::default()
    }))
    .await;
    talk.say(Response::Heartbeat(Heartbeat {})).await;
    while !matches!(talk.next().await, Request::Heartbeat(_)) {}
    talk.ends().await;
    let (_talk, _) = coordinator.welcome(&[]).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_session_is_dialled_again() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.conversation().await;
    talk.say(Response::Refused(Refused {
        reason: "another agent speaks for host-1".into(),
    }))
    .await;
    talk.ends().await;
    drop(talk);
    let (_talk, _) = coordinator.welcome(&[]).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_asked_for_lets_the_running_step_end_and_no_other_begin() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("volume", Call::Apply, Fault::HangAfter, 1);
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    let offer = offer(0);
    talk.offer(&offer).await;
    let propose = talk.proposal().await;
    talk.accept(&propose, 1).await;
    hang(&rig.world).await;
    agent.stop.cancel();
    talk.ends().await;
    rig.world.release();
    agent.end().await;
    assert!(rig.world.calls(Call::Undo).is_empty());
    assert!(journal(&rig, &offer, "log").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_what_was_undone() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world
        .fault("domain", Call::Apply, Fault::FailAfter(Retry::Never), 1);
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    talk.offer(&offer(0)).await;
    let propose = talk.proposal().await;
    talk.accept(&propose, 1).await;
    let finish = talk.finish(1).await;
    assert_eq!(finish.outcome(), Outcome::Failed);
    assert_eq!(
        finish.message,
        "step 'make domain' failed: on purpose; undone: make domain, make volume, make network"
    );
    assert!(
        talk.lines.iter().any(|line| line == "undoing: make volume"),
        "{:?}",
        talk.lines
    );
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_stops_the_running_step_and_is_told_as_the_end() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("domain", Call::Apply, Fault::ListenAfter, 1);
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    let offer = offer(0);
    talk.offer(&offer).await;
    let propose = talk.proposal().await;
    assert!(!propose.proposal.as_ref().unwrap().is_disabled_cancel);
    talk.accept(&propose, 1).await;
    hang(&rig.world).await;
    let cancel = Cancel {
        operation_id: offer.operation_id.clone(),
        by: "ann: the wrong disk".into(),
    };
    // It is repeated until the operation has ended.
    for _ in 0..3 {
        talk.say(Response::Cancel(cancel.clone())).await;
    }
    let finish = talk.finish(1).await;
    assert_eq!(finish.outcome(), Outcome::Failed);
    assert_eq!(
        finish.message,
        "cancelled by ann: the wrong disk in step 'make domain'; undone: make domain, make volume, make network"
    );
    assert!(rig.world.objects().is_empty());
    talk.say(Response::Cancel(cancel)).await;
    talk.answer(&finish).await;
    until("removal of the journal", || {
        !journal(&rig, &offer, "log").exists()
    })
    .await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_comes_while_a_crashed_operation_waits_is_obeyed_when_it_is_taken_up() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("domain", Call::Apply, Fault::HangBefore, 1);
    let agent = Agent::start(&rig, &dial);
    let offer = offer(0);
    {
        let (mut talk, _) = coordinator.welcome(&[]).await;
        talk.offer(&offer).await;
        let propose = talk.proposal().await;
        talk.accept(&propose, 1).await;
        hang(&rig.world).await;
        agent.crash().await;
        rig.world.release();
    }
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    talk.say(Response::Cancel(Cancel {
        operation_id: offer.operation_id.clone(),
        by: "ann".into(),
    }))
    .await;
    talk.offer(&Offer {
        attempt: 2,
        fence: 1,
        ..offer.clone()
    })
    .await;
    let propose = talk.proposal().await;
    talk.accept(&propose, 2).await;
    let finish = talk.finish(2).await;
    assert!(
        finish
            .message
            .starts_with("cancelled by ann in step 'make domain'; undone: "),
        "{}",
        finish.message
    );
    assert!(rig.world.objects().is_empty());
    assert_eq!(
        rig.world.calls(Call::Apply),
        ["network", "volume", "domain"],
        "it was not begun again"
    );
    talk.answer(&finish).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_running_operation_is_goes_out_and_is_not_kept() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    rig.world.fault("domain", Call::Apply, Fault::HangAfter, 1);
    let agent = Agent::start(&rig, &dial);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    let offer = offer(0);
    talk.offer(&offer).await;
    let propose = talk.proposal().await;
    talk.accept(&propose, 1).await;
    hang(&rig.world).await;
    let measure = Measure {
        what: "relocate".into(),
        done_bytes: 7,
        ..Measure::default()
    };
    let outbox = &agent.executor.outbox;
    outbox.measure(id(&offer), measure.clone());
    let measured = loop {
        match talk.next().await {
            Request::Measured(measured) => break measured,
            Request::Propose(propose) => talk.accept(&propose, 1).await,
            _ => {}
        }
    };
    assert_eq!((measured.fence, measured.measure), (1, Some(measure.clone())));
    // One that nobody took says nothing of what comes after the step.
    outbox.measure(id(&offer), measure);
    rig.world.succeed();
    let finish = talk.finish(1).await;
    assert_eq!(finish.outcome(), Outcome::Done);
    assert!(!outbox.has_measure(id(&offer)));
    agent.end().await;
}
