//! A fake world of named objects, steps over it, and faults to inject into them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hostler_agent::blocking::Blocking;
use hostler_agent::executor::cancel::Cancel;
use hostler_agent::executor::leave::Leave;
use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::plan::{PlanSource, Planned};
use hostler_agent::executor::run::{Accepted, Executor, Lease, RunEnd};
use hostler_agent::executor::state::Ending;
use hostler_agent::executor::step::{Before, Progress, Step, StepError};
use hostler_agent::journal::state_dir::StateDir;
use hostler_common::error::Retry;
use hostler_common::id::{Fence, HypervisorId, OperationId, ProcessToken};
use hostler_common::operation::{OperationKind, pack};
use hostler_common::rpc::{hostler::fleet::v1 as fleet, operations::v1 as operations};
use prost_types::Any;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const STEPS: [&str; 4] = ["network", "volume", "domain", "start"];

/// What a step does when it is told to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Fails without effect.
    FailBefore(Retry),
    /// Fails after its effect.
    FailAfter(Retry),
    /// Hangs without effect, and never has one.
    HangBefore,
    /// Hangs after its effect.
    HangAfter,
    /// Has its effect, and hangs until it hears of a cancel, as a long step does.
    ListenAfter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Look,
    Apply,
    Undo,
}

#[derive(Default)]
struct Inner {
    objects: BTreeSet<String>,
    faults: BTreeMap<(String, Call), (Fault, u32)>,
    calls: Vec<(String, Call)>,
    hanging: usize,
    /// How hanging calls end, once they may.
    released: Option<Result<(), StepError>>,
    /// What a step says that the operation came to.
    conclusions: BTreeMap<String, String>,
    /// What a planner decides who looks at this world.
    deciding: Value,
    /// What each planner was given that was decided before.
    planned: Vec<Option<Value>>,
}

#[derive(Clone, Default)]
pub(crate) struct World(Arc<(Mutex<Inner>, Condvar)>);

impl World {
    pub(crate) fn with(objects: &[&str]) -> Self {
        let world = Self::default();
        world.0.0.lock().unwrap().objects = objects.iter().map(ToString::to_string).collect();
        world
    }

    pub(crate) fn objects(&self) -> BTreeSet<String> {
        self.0.0.lock().unwrap().objects.clone()
    }

    pub(crate) fn calls(&self, what: Call) -> Vec<String> {
        let inner = self.0.0.lock().unwrap();
        let calls = inner.calls.iter().filter(|(_, call)| *call == what);
        calls.map(|(name, _)| name.clone()).collect()
    }

    /// The next `times` calls misbehave.
    pub(crate) fn fault(&self, step: &str, call: Call, fault: Fault, times: u32) {
        let mut inner = self.0.0.lock().unwrap();
        inner.faults.insert((step.to_owned(), call), (fault, times));
    }

    /// What `step` says that the operation came to.
    pub(crate) fn conclude(&self, step: &str, words: &str) {
        let mut inner = self.0.0.lock().unwrap();
        inner.conclusions.insert(step.to_owned(), words.to_owned());
    }

    /// What a planner decides who looks at this world now.
    pub(crate) fn decide(&self, detail: Value) {
        self.0.0.lock().unwrap().deciding = detail;
    }

    /// What each planner was given that was decided before.
    pub(crate) fn planned(&self) -> Vec<Option<Value>> {
        self.0.0.lock().unwrap().planned.clone()
    }

    /// Blocks until a call hangs.
    pub(crate) fn wait_for_a_hang(&self) {
        let (lock, changed) = &*self.0;
        let inner = lock.lock().unwrap();
        let (inner, timeout) = changed
            .wait_timeout_while(inner, Duration::from_secs(20), |inner| inner.hanging == 0)
            .unwrap();
        assert!(!timeout.timed_out(), "nothing hangs; calls: {:?}", inner.calls);
    }

    /// Ends hanging calls as failures.
    pub(crate) fn release(&self) {
        self.end_hangs(Err(StepError::message("released", Retry::Never)));
    }

    /// Ends hanging calls as successes.
    pub(crate) fn succeed(&self) {
        self.end_hangs(Ok(()));
    }

    fn end_hangs(&self, result: Result<(), StepError>) {
        let (lock, changed) = &*self.0;
        let mut inner = lock.lock().unwrap();
        inner.released = Some(result);
        inner.hanging = 0;
        inner.faults.clear();
        changed.notify_all();
    }

    fn call(
        &self,
        step: &str,
        call: Call,
        progress: Option<&Progress>,
        act: impl FnOnce(&mut BTreeSet<String>),
    ) -> Result<(), StepError> {
        let (lock, changed) = &*self.0;
        let mut inner = lock.lock().unwrap();
        inner.calls.push((step.to_owned(), call));
        let fault = match inner.faults.get_mut(&(step.to_owned(), call)) {
            Some((fault, times)) if *times > 0 => {
                *times -= 1;
                Some(*fault)
            }
            _ => None,
        };
        if !matches!(fault, Some(Fault::FailBefore(_) | Fault::HangBefore)) {
            act(&mut inner.objects);
        }
        match fault {
            None => Ok(()),
            Some(Fault::ListenAfter) => {
                inner.hanging += 1;
                inner.released = None;
                changed.notify_all();
                let progress = progress.expect("a look hears nothing");
                while inner.released.is_none() {
                    progress.check_cancelled()?;
                    inner = changed.wait_timeout(inner, Duration::from_millis(5)).unwrap().0;
                }
                Ok(())
            }
            Some(Fault::FailBefore(retry) | Fault::FailAfter(retry)) => {
                Err(StepError::message("on purpose", retry))
            }
            Some(Fault::HangBefore | Fault::HangAfter) => {
                inner.hanging += 1;
                inner.released = None;
                changed.notify_all();
                let (inner, _) = changed
                    .wait_timeout_while(inner, Duration::from_secs(60), |inner| inner.released.is_none())
                    .unwrap();
                inner.released.clone().expect("nobody released a call that hangs")
            }
        }
    }
}

/// Makes an object be there, or not.
pub(crate) struct FakeStep {
    pub(crate) object: String,
    pub(crate) create: bool,
    pub(crate) world: World,
    pub(crate) deadline: Duration,
}

impl Step for FakeStep {
    fn name(&self) -> String {
        let verb = if self.create { "make" } else { "remove" };
        format!("{verb} {}", self.object)
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn look(&self) -> Result<Before, StepError> {
        let mut there = false;
        self.world.call(&self.object, Call::Look, None, |objects| {
            there = objects.contains(&self.object);
        })?;
        Ok(if there { Before::Active } else { Before::Absent })
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        progress.say(format!("working on {}", self.object));
        let inner = self.world.0.0.lock().unwrap();
        if let Some(words) = inner.conclusions.get(&self.object) {
            progress.conclude(words);
        }
        drop(inner);
        self.world
            .call(&self.object, Call::Apply, Some(progress), |objects| {
                match self.create {
                    true => objects.insert(self.object.clone()),
                    false => objects.remove(&self.object),
                };
            })
    }

    fn undo(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        self.world
            .call(&self.object, Call::Undo, Some(progress), |objects| {
                match before {
                    Before::Active | Before::Inactive => objects.insert(self.object.clone()),
                    Before::Absent => objects.remove(&self.object),
                    Before::Nothing => false,
                };
            })
    }
}

pub(crate) fn plans(world: &World, deadline: Duration) -> PlanSource {
    let world = world.clone();
    Arc::new(move |job, decided| {
        let create = job.request.kind() != OperationKind::DestroyHypervisor;
        let mut objects = STEPS.to_vec();
        if !create {
            objects.reverse();
        }
        let mut inner = world.0.0.lock().unwrap();
        inner.planned.push(decided.cloned());
        let step = |object: &str| -> Box<dyn Step> {
            Box::new(FakeStep {
                object: object.to_owned(),
                create,
                world: world.clone(),
                deadline,
            })
        };
        let decided = decided.unwrap_or(&inner.deciding).clone();
        Ok(Planned {
            steps: objects.into_iter().map(step).collect(),
            success: format!("{} is as asked", job.resource),
            says: match &decided {
                Value::Null => vec![],
                detail => vec![format!("decided: {detail}")],
            },
            decided,
        })
    })
}

/// An agent's executor on a directory that outlives it.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) world: World,
    pub(crate) deadline: Duration,
}

impl Rig {
    pub(crate) fn new(world: World) -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            world,
            deadline: Duration::from_secs(60),
        }
    }

    /// What a new agent process has.
    pub(crate) fn executor(&self) -> Executor {
        Executor {
            plans: plans(&self.world, self.deadline),
            steps: Blocking::new(4),
            files: Blocking::new(4),
            state_dir: Arc::new(StateDir::open(self.dir.path()).unwrap()),
            outbox: Outbox::default(),
        }
    }

    pub(crate) async fn run(&self, accepted: &Accepted) -> Ending {
        self.run_with(self.executor(), accepted).await
    }

    pub(crate) async fn run_with(&self, executor: Executor, accepted: &Accepted) -> Ending {
        self.run_cancelled(executor, accepted, Cancel::never()).await
    }

    pub(crate) async fn run_cancelled(
        &self,
        executor: Executor,
        accepted: &Accepted,
        cancel: Cancel,
    ) -> Ending {
        let (_tell, lease) = lease(1);
        match executor
            .run(
                accepted.clone(),
                lease,
                cancel,
                Leave::unlimited(),
                CancellationToken::new(),
            )
            .await
        {
            RunEnd::Ended(ending) => ending,
            RunEnd::Halted => panic!("halted without being told"),
        }
    }
}

pub(crate) fn lease(fence: u64) -> (watch::Sender<Lease>, watch::Receiver<Lease>) {
    watch::channel(Lease {
        fence: Fence(fence),
        token: ProcessToken::generate(),
    })
}

pub(crate) fn accepted(kind: OperationKind) -> Accepted {
    let id: HypervisorId = "hv-1".parse().unwrap();
    Accepted {
        operation: OperationId::generate(),
        resource: (&id).into(),
        request: request(kind, "hv-1"),
        attempt: 1,
    }
}

/// The request of an operation on `id`, of the kinds that the tests use.
pub(crate) fn request(kind: OperationKind, id: &str) -> Any {
    let id = id.to_owned();
    match kind {
        OperationKind::CreateHypervisor => pack(&operations::CreateHypervisorRequest { id }),
        OperationKind::DestroyHypervisor => pack(&operations::DestroyHypervisorRequest { id }),
        OperationKind::DeleteBackup => pack(&fleet::DeleteBackupRequest {
            id: "abcd".into(),
            ..Default::default()
        }),
        other => panic!("no test asks for {other:?}"),
    }
}
