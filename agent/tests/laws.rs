//! The laws of every operation, with the real steps of both kinds on libvirt's test driver, through the executor
//! and its journal: it succeeds, it may run twice, a failure at any step unwinds to what was, and a crash at any
//! step, in either direction, resumes to the same end.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, its helpers included"
)]

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hostler_agent::blocking::Blocking;
use hostler_agent::executor::cancel::Cancel;
use hostler_agent::executor::leave::Leave;
use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::run::{Accepted, Executor, Lease, RunEnd};
use hostler_agent::executor::state::{Ending, Outcome};
use hostler_agent::executor::step::{Before, Progress, Step, StepError};
use hostler_agent::journal::state_dir::StateDir;
use hostler_common::error::Retry;
use hostler_common::id::{Fence, HypervisorId, OperationId, ProcessToken};
use hostler_common::operation::OperationKind;
use hostler_common::rpc::hostler::agent::v1::Observed;
use support::{Fleet, config, guest_world, network, packed, pool};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const OBJECTS: &str = "<node><network><name>lan</name></network>\
    <pool type='dir'><name>images</name><target><path>/images</path></target>\
    <volume type='file'><name>base.qcow2</name><capacity>1048576</capacity>\
    <target><path>/images/base.qcow2</path><format type='qcow2'/></target></volume></pool></node>";

const GUEST: &str = "[[hypervisor]]\nid = \"g1\"\nkind = \"guest\"\ncpu = 1\nmemory_mb = 64\n\
    pool = \"images\"\nbase_image = \"base.qcow2\"\nnetworks = [\"lan\"]\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Apply,
    Undo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    FailBefore,
    FailAfter,
    HangBefore,
    HangAfter,
}

#[derive(Default)]
struct Traps {
    /// The step's place, the call, and what it does once.
    set: Mutex<Vec<(usize, Call, Fault)>>,
    hanging: Mutex<bool>,
    changed: Condvar,
}

impl Traps {
    fn spring(
        &self,
        place: usize,
        call: Call,
        act: impl FnOnce() -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let fault = {
            let mut set = self.set.lock().unwrap();
            let found = set.iter().position(|(at, on, _)| (*at, *on) == (place, call));
            found.map(|index| set.remove(index).2)
        };
        match fault {
            None => act(),
            Some(Fault::FailBefore) => Err(StepError::message("on purpose", Retry::Never)),
            Some(Fault::FailAfter) => {
                act()?;
                Err(StepError::message("on purpose", Retry::Never))
            }
            Some(fault) => {
                if fault == Fault::HangAfter {
                    act()?;
                }
                let mut hanging = self.hanging.lock().unwrap();
                *hanging = true;
                self.changed.notify_all();
                let _released = self
                    .changed
                    .wait_timeout_while(hanging, Duration::from_secs(60), |hanging| *hanging)
                    .unwrap();
                Err(StepError::message("released", Retry::Never))
            }
        }
    }

    fn wait_for_a_hang(&self) {
        let hanging = self.hanging.lock().unwrap();
        let (_hanging, timeout) = self
            .changed
            .wait_timeout_while(hanging, Duration::from_secs(20), |hanging| !*hanging)
            .unwrap();
        assert!(!timeout.timed_out(), "nothing hangs");
    }

    fn release(&self) {
        *self.hanging.lock().unwrap() = false;
        self.changed.notify_all();
    }
}

/// A real step that may misbehave once.
struct Trapped {
    inner: Box<dyn Step>,
    place: usize,
    traps: Arc<Traps>,
}

impl Step for Trapped {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn deadline(&self) -> Duration {
        self.inner.deadline()
    }

    fn look(&self) -> Result<Before, StepError> {
        self.inner.look()
    }

    fn apply(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        self.traps
            .spring(self.place, Call::Apply, || self.inner.apply(before, progress))
    }

    fn undo(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        self.traps
            .spring(self.place, Call::Undo, || self.inner.undo(before, progress))
    }
}

/// A host with its libvirt, in which `id` is as it is before an operation of `kind`.
struct Rig {
    folder: TempDir,
    fleet: Arc<Fleet>,
    id: &'static str,
    traps: Arc<Traps>,
}

const CASES: [(&str, OperationKind); 4] = [
    ("g1", OperationKind::CreateHypervisor),
    ("g1", OperationKind::DestroyHypervisor),
    ("h1", OperationKind::CreateHypervisor),
    ("h1", OperationKind::DestroyHypervisor),
];

fn opposite(kind: OperationKind) -> OperationKind {
    match kind {
        OperationKind::CreateHypervisor => OperationKind::DestroyHypervisor,
        OperationKind::DestroyHypervisor => OperationKind::CreateHypervisor,
        other => panic!("{other:?} is not on a hypervisor"),
    }
}

impl Rig {
    /// In the state that only the opposite operation leaves; from it `kind` has everything to do.
    async fn before(id: &'static str, kind: OperationKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("node.xml"), OBJECTS).unwrap();
        std::fs::write(path("net.xml"), "<network><name>fresh</name></network>").unwrap();
        let uri = format!("test://{}", path("node.xml").display());
        let flag = path("active").display().to_string();
        let host = format!(
            "[[hypervisor]]\nid = \"h1\"\nkind = \"host\"\n\
             networks = [ {{ name = \"lan\" }}, {{ name = \"fresh\", xml = \"{}\" }} ]\n\
             pools = [ {{ name = \"images\" }} ]\n\
             activation = {{ type = \"exec\", start = [\"/usr/bin/touch\", \"{flag}\"], \
             stop = [\"/usr/bin/rm\", \"-f\", \"{flag}\"], status = [\"/usr/bin/test\", \"-e\", \"{flag}\"] }}\n\
             readiness = {{ type = \"exec\", command = [\"/usr/bin/true\"] }}\n",
            path("net.xml").display()
        );
        let hypervisors = if id == "g1" { GUEST } else { &host };
        let fleet = Arc::new(Fleet::new(&config(folder.path(), &uri, hypervisors)));
        let rig = Self {
            folder,
            fleet,
            id,
            traps: Arc::default(),
        };
        let ending = rig.run(&rig.accepted(opposite(kind))).await;
        assert_eq!(ending.outcome, Outcome::Done, "{}", ending.message);
        rig
    }

    fn flag(&self) -> PathBuf {
        self.folder.path().join("active")
    }

    fn seen(&self) -> String {
        let libvirt = &self.fleet.libvirt;
        match self.id {
            "g1" => guest_world(libvirt, "images", "g1"),
            _ => format!(
                "lan {:?}, fresh {:?}, images {:?}, active {}",
                network(libvirt, "lan"),
                network(libvirt, "fresh"),
                pool(libvirt, "images"),
                self.flag().exists()
            ),
        }
    }

    fn steps(&self, kind: OperationKind) -> usize {
        self.fleet.plan(kind, self.id).len()
    }

    fn trap(&self, place: usize, call: Call, fault: Fault) {
        self.traps.set.lock().unwrap().push((place, call, fault));
    }

    fn accepted(&self, kind: OperationKind) -> Accepted {
        let id: HypervisorId = self.id.parse().unwrap();
        Accepted {
            operation: OperationId::generate(),
            resource: (&id).into(),
            request: packed(kind, self.id),
            attempt: 1,
        }
    }

    /// As in a new process: only the directory and the host are the same.
    fn start(&self, accepted: &Accepted) -> impl Future<Output = RunEnd> + use<> {
        let (fleet, traps) = (Arc::clone(&self.fleet), Arc::clone(&self.traps));
        let executor = Executor {
            plans: Arc::new(move |job, _| {
                let mut planned = fleet
                    .hypervisors
                    .plan(&job.request)
                    .map_err(|error| error.to_string())?;
                let trapped = planned.steps.into_iter().enumerate().map(|(place, inner)| {
                    let traps = Arc::clone(&traps);
                    Box::new(Trapped { inner, place, traps }) as Box<dyn Step>
                });
                planned.steps = trapped.collect();
                Ok(planned)
            }),
            steps: Blocking::new(2),
            files: Blocking::new(2),
            state_dir: Arc::new(StateDir::open(&self.folder.path().join("state")).unwrap()),
            outbox: Outbox::default(),
        };
        let (tell, lease) = watch::channel(Lease {
            fence: Fence(1),
            token: ProcessToken::generate(),
        });
        let accepted = accepted.clone();
        async move {
            let _tell = tell;
            executor
                .run(
                    accepted,
                    lease,
                    Cancel::never(),
                    Leave::unlimited(),
                    CancellationToken::new(),
                )
                .await
        }
    }

    async fn run(&self, accepted: &Accepted) -> Ending {
        match self.start(accepted).await {
            RunEnd::Ended(ending) => ending,
            RunEnd::Halted => panic!("halted untold"),
        }
    }

    /// Runs until a trap hangs, and then dies as a process does.
    async fn crash(&self, accepted: &Accepted) {
        let task = tokio::spawn(self.start(accepted));
        let traps = Arc::clone(&self.traps);
        #[allow(clippy::disallowed_methods, reason = "the test itself waits")]
        tokio::task::spawn_blocking(move || traps.wait_for_a_hang())
            .await
            .unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        self.traps.release();
    }
}

fn wanted(kind: OperationKind) -> Observed {
    match kind {
        OperationKind::CreateHypervisor => Observed::InService,
        OperationKind::DestroyHypervisor => Observed::OutOfService,
        other => panic!("{other:?} is not on a hypervisor"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_succeeds_and_may_be_run_again() {
    for (id, kind) in CASES {
        let rig = Rig::before(id, kind).await;
        assert_eq!(rig.fleet.observed(id), wanted(opposite(kind)));
        let ending = rig.run(&rig.accepted(kind)).await;
        assert_eq!(ending.outcome, Outcome::Done, "{}", ending.message);
        assert_eq!(rig.fleet.observed(id), wanted(kind));
        let there = rig.seen();
        let again = rig.run(&rig.accepted(kind)).await;
        assert_eq!(again.outcome, Outcome::Done, "{}", again.message);
        assert_eq!(rig.seen(), there);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_step_unwinds_to_what_was() {
    for (id, kind) in CASES {
        let rig = Rig::before(id, kind).await;
        let before = rig.seen();
        for place in 0..rig.steps(kind) {
            for fault in [Fault::FailBefore, Fault::FailAfter] {
                rig.trap(place, Call::Apply, fault);
                let ending = rig.run(&rig.accepted(kind)).await;
                let case = format!("{id} {kind:?} step {place} {fault:?}: {}", ending.message);
                assert_eq!(ending.outcome, Outcome::Failed, "{case}");
                assert_eq!(rig.seen(), before, "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_resumes_to_the_same_end() {
    for (id, kind) in CASES {
        let steps = Rig::before(id, kind).await.steps(kind);
        for place in 0..steps {
            for fault in [Fault::HangBefore, Fault::HangAfter] {
                let rig = Rig::before(id, kind).await;
                let accepted = rig.accepted(kind);
                rig.trap(place, Call::Apply, fault);
                rig.crash(&accepted).await;
                let ending = rig.run(&accepted).await;
                let case = format!("{id} {kind:?} step {place} {fault:?}: {}", ending.message);
                assert_eq!(ending.outcome, Outcome::Done, "{case}");
                assert_eq!(rig.fleet.observed(id), wanted(kind), "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_undo_resumes_the_unwinding() {
    for (id, kind) in CASES {
        let steps = Rig::before(id, kind).await.steps(kind);
        for place in 0..steps {
            for fault in [Fault::HangBefore, Fault::HangAfter] {
                let rig = Rig::before(id, kind).await;
                let before = rig.seen();
                let accepted = rig.accepted(kind);
                rig.trap(steps - 1, Call::Apply, Fault::FailAfter);
                rig.trap(place, Call::Undo, fault);
                rig.crash(&accepted).await;
                let ending = rig.run(&accepted).await;
                let case = format!("{id} {kind:?} undo {place} {fault:?}: {}", ending.message);
                assert_eq!(ending.outcome, Outcome::Failed, "{case}");
                assert_eq!(rig.seen(), before, "{case}");
            }
        }
    }
}
