//! A pool in memory with an executor over it, and traps at every call of every step.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hostler_agent::blocking::Blocking;
use hostler_agent::executor::cancel::{Cancel, Canceller};
use hostler_agent::executor::leave::Leave;
use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::run::{Accepted, Executor, Lease, RunEnd};
use hostler_agent::executor::state::Ending;
use hostler_agent::executor::step::{Before, Progress, Step, StepError};
use hostler_agent::journal::state_dir::StateDir;
use hostler_agent::storage::Backend as _;
use hostler_agent::storage::memory::MemoryPool;
use hostler_agent::storage::owner::{Settings, Storage};
use hostler_agent::storage::plan::Reserve;
use hostler_agent::storage::pool::{PoolState, Profile};
use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;
use hostler_common::id::{Fence, OperationId, ProcessToken};
use hostler_common::operation::{Request, pack};
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use prost_types::Any;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const GIB: u64 = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Look,
    Apply,
    Undo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Before,
    After,
}

/// What happens at a trap, once.
#[derive(Debug)]
pub(crate) enum Act {
    Fail(Retry),
    /// The process dies here.
    Hang,
    Cancel(Canceller),
    /// Somebody writes so much meanwhile.
    Write(Bytes),
    /// A spare device becomes unusable.
    Problem(&'static str, &'static str),
}

#[derive(Debug, Default)]
struct Traps {
    set: Mutex<Vec<(usize, Part, At, Act)>>,
    hanging: Mutex<Hanging>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Hanging {
    now: bool,
    times: u64,
    ended: bool,
}

impl Traps {
    fn spring(&self, pool: &MemoryPool, step: usize, part: Part, at: At) -> Result<(), StepError> {
        let act = {
            let mut set = self.set.lock().unwrap();
            let found = set
                .iter()
                .position(|trap| (trap.0, trap.1, trap.2) == (step, part, at));
            found.map(|found| set.remove(found).3)
        };
        match act {
            None => Ok(()),
            Some(Act::Fail(retry)) => Err(StepError::message("on purpose", retry)),
            Some(Act::Cancel(canceller)) => {
                canceller.cancel("somebody");
                Ok(())
            }
            Some(Act::Write(bytes)) => {
                assert!(pool.write("arrived", bytes), "there is no room for what arrives");
                Ok(())
            }
            Some(Act::Problem(device, problem)) => {
                pool.set_problem(device, Some(problem));
                Ok(())
            }
            Some(Act::Hang) => {
                let mut hanging = self.hanging.lock().unwrap();
                hanging.now = true;
                let turn = hanging.times;
                self.changed.notify_all();
                let waited = self
                    .changed
                    .wait_timeout_while(hanging, Duration::from_secs(60), |hanging| hanging.times == turn);
                drop(waited.unwrap());
                Err(StepError::message("the process is dead", Retry::Never))
            }
        }
    }

    /// Whether a call hangs, once one does or the run has ended.
    fn wait_for_a_hang(&self) -> bool {
        let hanging = self.hanging.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(hanging, Duration::from_secs(20), |hanging| {
                !hanging.now && !hanging.ended
            });
        let (hanging, timeout) = waited.unwrap();
        assert!(!timeout.timed_out(), "neither a hang nor an end");
        hanging.now
    }

    fn release(&self) {
        let mut hanging = self.hanging.lock().unwrap();
        hanging.now = false;
        hanging.ended = false;
        hanging.times += 1;
        self.changed.notify_all();
    }

    fn ended(&self) {
        self.hanging.lock().unwrap().ended = true;
        self.changed.notify_all();
    }
}

struct Trapped {
    place: usize,
    step: Box<dyn Step>,
    pool: MemoryPool,
    traps: Arc<Traps>,
}

impl Trapped {
    fn between<T>(&self, part: Part, call: impl FnOnce() -> Result<T, StepError>) -> Result<T, StepError> {
        self.traps.spring(&self.pool, self.place, part, At::Before)?;
        let done = call()?;
        self.traps.spring(&self.pool, self.place, part, At::After)?;
        Ok(done)
    }
}

impl Step for Trapped {
    fn name(&self) -> String {
        self.step.name()
    }

    fn deadline(&self) -> Duration {
        self.step.deadline()
    }

    fn look(&self) -> Result<Before, StepError> {
        self.between(Part::Look, || self.step.look())
    }

    fn apply(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        self.between(Part::Apply, || self.step.apply(before, progress))
    }

    fn undo(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        self.between(Part::Undo, || self.step.undo(before, progress))
    }
}

/// An agent's storage and executor on a pool and a directory that outlive it.
pub(crate) struct Rig {
    dir: TempDir,
    pub(crate) pool: MemoryPool,
    pub(crate) storage: Arc<Storage>,
    traps: Arc<Traps>,
}

impl Rig {
    pub(crate) fn new(
        data: Profile,
        members: &[(&'static str, u64)],
        spares: &[(&'static str, u64)],
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let sized = |(name, capacity): &(&'static str, u64)| (*name, Bytes(*capacity));
        let members: Vec<_> = members.iter().map(sized).collect();
        let spares: Vec<_> = spares.iter().map(sized).collect();
        let pool = MemoryPool::new(dir.path().join("pool"), data, &members, &spares);
        Self::over(dir, pool)
    }

    fn over(dir: TempDir, pool: MemoryPool) -> Self {
        let settings = Settings {
            pool: "default".parse().unwrap(),
            path: "/srv/isard".into(),
            reserve: Reserve::default(),
            backup_repository: String::new(),
        };
        Self {
            storage: Arc::new(Storage::new(settings, Arc::new(pool.clone()))),
            dir,
            pool,
            traps: Arc::default(),
        }
    }

    /// Another one, whose pool is a copy.
    pub(crate) fn like(other: &Self) -> Self {
        Self::over(TempDir::new().unwrap(), other.pool.copied())
    }

    pub(crate) fn trap(&self, step: usize, part: Part, at: At, act: Act) {
        self.traps.set.lock().unwrap().push((step, part, at, act));
    }

    pub(crate) fn disarm(&self) {
        self.traps.set.lock().unwrap().clear();
    }

    /// What a new agent process has.
    pub(crate) fn executor(&self) -> Executor {
        let (storage, pool, traps) = (self.storage.clone(), self.pool.clone(), self.traps.clone());
        Executor {
            plans: Arc::new(move |job, decided| {
                let mut planned = storage.plan(job, decided)?;
                let steps = planned.steps.into_iter().enumerate();
                planned.steps = steps
                    .map(|(place, step)| -> Box<dyn Step> {
                        Box::new(Trapped {
                            place,
                            step,
                            pool: pool.clone(),
                            traps: traps.clone(),
                        })
                    })
                    .collect();
                Ok(planned)
            }),
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
        let (_tell, lease) = lease();
        let end = executor.run(
            accepted.clone(),
            lease,
            cancel,
            Leave::unlimited(),
            CancellationToken::new(),
        );
        match end.await {
            RunEnd::Ended(ending) => ending,
            RunEnd::Halted => panic!("halted without being told"),
        }
    }

    /// Runs until a call hangs, and then dies there as a process would.
    pub(crate) async fn crash(&self, accepted: &Accepted) {
        assert!(self.crash_if_it_hangs(accepted).await, "nothing hangs");
    }

    /// The same, but it may end before.
    pub(crate) async fn crash_if_it_hangs(&self, accepted: &Accepted) -> bool {
        let executor = self.executor();
        let (accepted, traps) = (accepted.clone(), self.traps.clone());
        let task = tokio::spawn(async move {
            let (_tell, lease) = lease();
            executor
                .run(
                    accepted,
                    lease,
                    Cancel::never(),
                    Leave::unlimited(),
                    CancellationToken::new(),
                )
                .await;
            traps.ended();
        });
        let traps = self.traps.clone();
        #[allow(clippy::disallowed_methods, reason = "the test itself waits")]
        let hangs = tokio::task::spawn_blocking(move || traps.wait_for_a_hang())
            .await
            .unwrap();
        task.abort();
        let _ = task.await;
        self.disarm();
        self.traps.release();
        hangs
    }

    fn state(&self) -> PoolState {
        self.pool.look().unwrap()
    }

    pub(crate) fn size(&self) -> Bytes {
        self.state().size
    }

    /// Whether the pool keeps its reserve with so much more in it.
    pub(crate) fn has_room_for(&self, bytes: Bytes) -> bool {
        let state = self.state();
        Reserve::default().smallest_size(state.used.plus(bytes)) <= state.size
    }

    pub(crate) fn invariant_no_byte_is_lost(&self, written: &[(String, Bytes)], case: &str) {
        let contents = self.pool.contents();
        for (blob, bytes) in written {
            assert_eq!(contents[blob], *bytes, "{blob}: {case}");
        }
    }

    pub(crate) fn invariant_used_and_reserve_fit(&self, case: &str) {
        let state = self.state();
        let floor = Reserve::default().smallest_size(state.used);
        assert!(state.size >= floor, "{} is below {floor}: {case}", state.size);
    }

    pub(crate) fn invariant_no_device_is_lost(&self, devices: usize, case: &str) {
        let state = self.state();
        let members = state.members.iter().map(|member| member.name.clone());
        let all: BTreeSet<_> = members
            .chain(state.spares.iter().map(|spare| spare.name.clone()))
            .collect();
        assert_eq!(all.len(), devices, "{case}");
        assert_eq!(state.members.len() + state.spares.len(), devices, "{case}");
    }

    pub(crate) fn invariant_no_share_is_overfull(&self, case: &str) {
        assert!(self.pool.is_within_shares(), "{case}");
    }
}

/// Every device by its name, with its share of the pool; zero for a spare.
type Devices = BTreeSet<(String, u64)>;

/// Devices with their shares, and the data: what an unwinding restores. Where data lies does not matter.
pub(crate) fn view(pool: &MemoryPool) -> (Devices, Vec<(String, Bytes)>) {
    let state = pool.look().unwrap();
    let members = state.members.iter();
    let members = members.map(|member| (member.name.to_string(), member.share.0));
    let spares = state.spares.iter().map(|spare| (spare.name.to_string(), 0));
    (
        members.chain(spares).collect(),
        pool.contents().into_iter().collect(),
    )
}

fn lease() -> (watch::Sender<Lease>, watch::Receiver<Lease>) {
    watch::channel(Lease {
        fence: Fence(1),
        token: ProcessToken::generate(),
    })
}

pub(crate) fn expand(min: u64) -> Request {
    Request::ExpandStorage { min: Bytes(min) }
}

pub(crate) fn shrink(max: u64) -> Request {
    Request::ShrinkStorage { max: Bytes(max) }
}

fn packed(request: &Request) -> Any {
    match request {
        Request::ExpandStorage { min } => pack(&fleet::ExpandStorageRequest {
            min_bytes: min.0,
            ..Default::default()
        }),
        Request::ShrinkStorage { max } => pack(&fleet::ShrinkStorageRequest {
            max_bytes: max.0,
            ..Default::default()
        }),
        other => panic!("no test asks for {other:?}"),
    }
}

pub(crate) fn accepted(request: Request) -> Accepted {
    Accepted {
        operation: OperationId::generate(),
        resource: "default".parse().unwrap(),
        request: packed(&request),
        attempt: 1,
    }
}
