//! A fake world of named objects, steps over it, and faults to inject into them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hostler_agent::blocking::Blocking;
use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::run::{Accepted, Executor, Lease, PlanSource, RunEnd};
use hostler_agent::executor::state::Ending;
use hostler_agent::executor::step::{Before, Progress, Step, StepError};
use hostler_agent::journal::state_dir::StateDir;
use hostler_common::error::Retry;
use hostler_common::id::{Fence, HypervisorId, OperationId, ProcessToken};
use hostler_common::operation::OperationKind;
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
    released: bool,
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

    /// Blocks until a call hangs.
    pub(crate) fn wait_for_a_hang(&self) {
        let (lock, changed) = &*self.0;
        let inner = lock.lock().unwrap();
        let (inner, timeout) = changed
            .wait_timeout_while(inner, Duration::from_secs(20), |inner| inner.hanging == 0)
            .unwrap();
        assert!(!timeout.timed_out(), "nothing hangs; calls: {:?}", inner.calls);
    }

    /// Ends hanging calls, without effect.
    pub(crate) fn release(&self) {
        let (lock, changed) = &*self.0;
        let mut inner = lock.lock().unwrap();
        inner.released = true;
        inner.hanging = 0;
        inner.faults.clear();
        changed.notify_all();
    }

    fn call(&self, step: &str, call: Call, act: impl FnOnce(&mut BTreeSet<String>)) -> Result<(), StepError> {
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
            Some(Fault::FailBefore(retry) | Fault::FailAfter(retry)) => {
                Err(StepError::message("on purpose", retry))
            }
            Some(Fault::HangBefore | Fault::HangAfter) => {
                inner.hanging += 1;
                inner.released = false;
                changed.notify_all();
                let _inner = changed
                    .wait_timeout_while(inner, Duration::from_secs(60), |inner| !inner.released)
                    .unwrap();
                Err(StepError::message("released", Retry::Never))
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
        self.world.call(&self.object, Call::Look, |objects| {
            there = objects.contains(&self.object);
        })?;
        Ok(if there { Before::Active } else { Before::Absent })
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        progress.say(format!("working on {}", self.object));
        self.world.call(&self.object, Call::Apply, |objects| {
            match self.create {
                true => objects.insert(self.object.clone()),
                false => objects.remove(&self.object),
            };
        })
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        self.world.call(&self.object, Call::Undo, |objects| {
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
    Arc::new(move |kind, _| {
        let create = kind == OperationKind::CreateHypervisor;
        let mut objects = STEPS.to_vec();
        if !create {
            objects.reverse();
        }
        Ok(objects
            .into_iter()
            .map(|object| -> Box<dyn Step> {
                Box::new(FakeStep {
                    object: object.to_owned(),
                    create,
                    world: world.clone(),
                    deadline,
                })
            })
            .collect())
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
        let (_tell, lease) = lease(1);
        match executor
            .run(accepted.clone(), lease, CancellationToken::new())
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
        request: kind.request(&id),
        attempt: 1,
    }
}
