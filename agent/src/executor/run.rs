//! Runs one operation from its journal to its end.
//!
//! It performs the effects of `state.rs` in their order and decides nothing. A record that cannot be written
//! ends the run: what the journal does not say must not be done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::{Fence, HypervisorId, OperationId, ProcessToken, ResourceName};
use hostler_common::operation::OperationKind;
use prost_types::Any;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::resume;
use super::state::{self, Effect, Ending, Event, Outcome, Plan, State};
use super::step::{Before, Progress, Step};
use super::tries::{Call, Tried};
use crate::blocking::Blocking;
use crate::journal::log::OperationLog;
use crate::journal::record::{self, Entry, Record};
use crate::journal::state_dir::StateDir;

/// A journal write waits for the disk; a disk that takes longer is as good as broken.
const DISK_DEADLINE: Duration = Duration::from_secs(30);
/// An undo that does not reach libvirt is tried for so long: a daemon that is restarted comes back, and what is
/// not undone needs a person.
const UNDO_PATIENCE: Duration = Duration::from_secs(120);
/// Planning reads the configuration in memory and looks for files.
const PLAN_DEADLINE: Duration = Duration::from_secs(10);

/// Makes the steps of an operation on a hypervisor. An error is one line.
pub type PlanSource =
    Arc<dyn Fn(OperationKind, &HypervisorId) -> Result<Vec<Box<dyn Step>>, String> + Send + Sync>;

/// The coordinator's leave to work on a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Of the current holder.
    pub fence: Fence,
    /// The process that holds it.
    pub token: ProcessToken,
}

/// An operation that is ours to run.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Which.
    pub operation: OperationId,
    /// On what.
    pub resource: ResourceName,
    /// What was asked for.
    pub request: Any,
    /// How often it has been offered.
    pub attempt: u32,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    /// The operation ended.
    Ended(Ending),
    /// It stopped between two steps, as told. The journal knows where.
    Halted,
}

/// What a run needs.
#[derive(Clone)]
pub struct Executor {
    /// Where steps come from.
    pub plans: PlanSource,
    /// Where steps run.
    pub steps: Blocking,
    /// Where the journal is written: never behind a libvirt that hangs.
    pub files: Blocking,
    /// The journals.
    pub state_dir: Arc<StateDir>,
    /// Where progress goes.
    pub outbox: Outbox,
}

impl Executor {
    /// Runs `accepted`, or goes on with it when there is a journal of it. A new lease that arrives in `lease`
    /// is journaled; `halt` stops it at the next step.
    pub async fn run(
        self,
        accepted: Accepted,
        lease: watch::Receiver<Lease>,
        halt: CancellationToken,
    ) -> RunEnd {
        let operation = accepted.operation;
        let run = Run {
            executor: self,
            operation,
            resource: accepted.resource.clone(),
            lease,
            halt,
        };
        match run.whole(accepted).await {
            Ok(()) => RunEnd::Halted,
            Err(ending) => RunEnd::Ended(ending),
        }
    }
}

struct Run {
    executor: Executor,
    operation: OperationId,
    resource: ResourceName,
    lease: watch::Receiver<Lease>,
    halt: CancellationToken,
}

/// The journal as it was found and as it is written on.
struct Opened {
    records: Vec<Record>,
    log: Log,
}

/// Only one call at a time has it; the lock lets it wander between threads.
type Log = Arc<Mutex<OperationLog>>;

struct Planned {
    plan: Plan,
    steps: Vec<Arc<dyn Step>>,
}

/// Something that nobody can say more about without looking.
fn attention(message: String) -> Ending {
    Ending {
        outcome: Outcome::NeedsAttention,
        message,
    }
}

impl Run {
    /// Err is the operation's end, Ok a halt: an end leaves from any depth, by `?`.
    async fn whole(mut self, accepted: Accepted) -> Result<(), Ending> {
        let request = accepted.request.clone();
        let Opened { records, log } = self.open(accepted).await?;
        if let Some(ending) = resume::ending(&records) {
            return Err(ending);
        }
        // A failure from here on is journaled, so that it is not run again after a crash.
        let request = match records.first().map(|record| &record.entry) {
            Some(Entry::Begun { request, .. }) => Any::try_from(request).unwrap_or_default(),
            _ => request,
        };
        let started = records
            .iter()
            .any(|record| matches!(record.entry, Entry::StepStarted { .. }));
        let refused = |cause: String| match started {
            false => Ending {
                outcome: Outcome::Failed,
                message: format!("{cause}; nothing was done"),
            },
            true => attention(format!(
                "{cause}; the steps that it has run are neither done nor undone"
            )),
        };
        let planned = match self.plan(request).await {
            Ok(planned) => planned,
            Err(cause) => return Err(self.end(&log, refused(cause)).await),
        };
        let state = match resume::resume(&planned.plan, &records) {
            Ok(state) => state,
            Err(mismatch) => return Err(self.end(&log, refused(mismatch.to_string())).await),
        };
        self.drive(&planned, state, &log).await
    }

    async fn drive(&mut self, planned: &Planned, mut state: State, log: &Log) -> Result<(), Ending> {
        // Steps of calls that outlive this run must not speak for it any more.
        let alive = Arc::new(());
        let mut effects: VecDeque<Effect> = state::begin(&planned.plan, &state).into();
        while let Some(effect) = effects.pop_front() {
            if self.halt.is_cancelled() && !matches!(effect, Effect::Write(_) | Effect::End(_)) {
                return Ok(());
            }
            let event = match effect {
                Effect::Write(entry) => {
                    self.write(log, entry).await?;
                    continue;
                }
                Effect::Say(line) => {
                    self.executor.outbox.say(self.operation, line);
                    continue;
                }
                Effect::End(ending) => return Err(ending),
                Effect::Look { step } => self.look(planned, step).await,
                Effect::Apply { step, before } => {
                    let progress = self.progress(&alive);
                    let call = move |step: &dyn Step| step.apply(before, &progress);
                    match self.call(&planned.steps[step], Duration::ZERO, call).await {
                        Tried::Good(()) => Some(Event::Applied),
                        Tried::Failed(cause) => Some(Event::ApplyFailed(cause)),
                        Tried::Lost(cause) => Some(Event::Lost(cause)),
                        Tried::Halted => None,
                    }
                }
                Effect::Undo { step, before } => self.undo(planned, step, before, &alive).await,
            };
            let Some(event) = event else { return Ok(()) };
            let (following, more) = state::next(&planned.plan, state, event)
                .map_err(|illegal| attention(format!("the executor lost its way (a bug): {illegal}")))?;
            state = following;
            effects.extend(more);
        }
        Err(attention(
            "the executor lost its way (a bug): nothing to do".to_owned(),
        ))
    }

    async fn look(&self, planned: &Planned, step: usize) -> Option<Event> {
        match self
            .call(&planned.steps[step], Duration::ZERO, |step| step.look())
            .await
        {
            Tried::Good(before) => Some(Event::Looked(before)),
            // A look that hangs has changed nothing.
            Tried::Failed(cause) | Tried::Lost(cause) => Some(Event::LookFailed(cause)),
            Tried::Halted => None,
        }
    }

    async fn undo(&self, planned: &Planned, step: usize, before: Before, alive: &Arc<()>) -> Option<Event> {
        let progress = self.progress(alive);
        let call = move |step: &dyn Step| step.undo(before, &progress);
        match self.call(&planned.steps[step], UNDO_PATIENCE, call).await {
            Tried::Good(()) => Some(Event::Undone),
            Tried::Failed(cause) => Some(Event::UndoFailed(cause)),
            Tried::Lost(cause) => Some(Event::Lost(cause)),
            Tried::Halted => None,
        }
    }

    async fn call<T, F>(&self, step: &Arc<dyn Step>, patience: Duration, call: F) -> Tried<T>
    where
        T: Send + 'static,
        F: Fn(&dyn Step) -> Result<T, super::step::StepError> + Send + Sync + 'static,
    {
        let name = step.name();
        let what = Call {
            what: &name,
            deadline: step.deadline(),
            patience,
        };
        let shared = Arc::new(call);
        let step = Arc::clone(step);
        let say = |line| self.executor.outbox.say(self.operation, line);
        what.make(&self.executor.steps, &self.halt, say, move || shared(&*step))
            .await
    }

    fn progress(&self, alive: &Arc<()>) -> Progress {
        let (outbox, operation) = (self.executor.outbox.clone(), self.operation);
        let alive = Arc::downgrade(alive);
        Progress::to(move |line| {
            if alive.strong_count() > 0 {
                outbox.say(operation, line);
            }
        })
    }

    async fn plan(&self, request: Any) -> Result<Planned, String> {
        let (kind, id) =
            OperationKind::of_request(&request).map_err(|error| format!("cannot plan: {}", Chain(&error)))?;
        let plans = Arc::clone(&self.executor.plans);
        let hypervisor = id.clone();
        let steps = self
            .executor
            .files
            .run("planning", PLAN_DEADLINE, move || plans(kind, &hypervisor))
            .await
            .map_err(|fault| fault.to_string())??;
        let steps: Vec<Arc<dyn Step>> = steps.into_iter().map(Arc::from).collect();
        let plan = Plan {
            success: format!("{id} is {}: {} steps done", past(kind), steps.len()),
            steps: steps.iter().map(|step| step.name()).collect(),
        };
        Ok(Planned { plan, steps })
    }

    /// Makes the lease durable, and finds or begins the journal.
    async fn open(&mut self, accepted: Accepted) -> Result<Opened, Ending> {
        let state_dir = Arc::clone(&self.executor.state_dir);
        let lease = self.lease.borrow_and_update().clone();
        let opened = self
            .executor
            .files
            .run("opening the journal", DISK_DEADLINE, move || {
                open(&state_dir, &accepted, lease)
            })
            .await;
        match opened {
            Ok(opened) => opened,
            Err(fault) => Err(attention(format!(
                "{fault}; nothing was done, unless by an earlier attempt"
            ))),
        }
    }

    async fn write(&mut self, log: &Log, entry: Entry) -> Result<(), Ending> {
        let renewed = self.lease.has_changed().unwrap_or(false);
        let took = renewed.then(|| self.lease.borrow_and_update().clone());
        let log = Arc::clone(log);
        let (state_dir, resource) = (Arc::clone(&self.executor.state_dir), self.resource.clone());
        let written = self
            .executor
            .files
            .run("writing the journal", DISK_DEADLINE, move || {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(Lease { fence, token }) = took {
                    let recorded = state_dir.fences().record(&resource, fence);
                    recorded.map_err(|error| Chain(&error).to_string())?;
                    let appended = log.append(Entry::Took { fence, token });
                    appended.map_err(|error| Chain(&error).to_string())?;
                }
                log.append(entry).map_err(|error| Chain(&error).to_string())
            })
            .await;
        let cause = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) => cause,
            Err(fault) => fault.to_string(),
        };
        tracing::error!(operation = %self.operation, cause, "the operation stops: its journal cannot be written");
        Err(attention(format!(
            "{cause}; the operation stopped where it was and nothing was undone"
        )))
    }

    async fn end(&mut self, log: &Log, ending: Ending) -> Ending {
        let entry = Entry::Ended {
            outcome: ending.outcome,
            message: ending.message.clone(),
        };
        match self.write(log, entry).await {
            Ok(()) => ending,
            Err(unwritten) => unwritten,
        }
    }
}

fn past(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::CreateHypervisor => "created",
        OperationKind::DestroyHypervisor => "destroyed",
    }
}

/// Blocks. Err is the operation's end.
fn open(state_dir: &StateDir, accepted: &Accepted, lease: Lease) -> Result<Opened, Ending> {
    let records = state_dir
        .records(accepted.operation)
        .map_err(|error| attention(format!("{}; nobody knows how far it came", Chain(&error))))?;
    let unwritten = |cause: String| match records.is_empty() {
        true => Ending {
            outcome: Outcome::Failed,
            message: format!("{cause}; nothing was done"),
        },
        false => attention(format!(
            "{cause}; the operation stays where an earlier attempt left it"
        )),
    };
    state_dir
        .fences()
        .record(&accepted.resource, lease.fence)
        .map_err(|error| unwritten(Chain(&error).to_string()))?;
    let Lease { fence, token } = lease;
    let entry = match records.is_empty() {
        true => Entry::Begun {
            version: record::VERSION,
            operation: accepted.operation,
            resource: accepted.resource.clone(),
            fence,
            token,
            request: (&accepted.request).into(),
            attempt: accepted.attempt,
        },
        false => Entry::Took { fence, token },
    };
    let mut log = state_dir
        .log(accepted.operation)
        .map_err(|error| unwritten(Chain(&error).to_string()))?;
    log.append(entry)
        .map_err(|error| unwritten(Chain(&error).to_string()))?;
    Ok(Opened {
        records,
        log: Arc::new(Mutex::new(log)),
    })
}
