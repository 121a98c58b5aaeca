//! Runs one operation from its journal to its end.
//!
//! It performs the effects of `state.rs` in their order and decides nothing. A record that cannot be written
//! ends the run: what the journal does not say must not be done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::id::{Fence, OperationId, ProcessToken, ResourceName};
use prost_types::Any;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cancel::Cancel;
use super::leave::Leave;
use super::listener::{Conclusion, Hearing};
use super::outbox::Outbox;
use super::plan::PlanSource;
use super::planning::{self, Past, Ready};
use super::resume;
use super::state::{self, Effect, Ending, Event, Outcome, State};
use super::step::{Before, Progress, Step, StepError};
use super::tries::{Call, Tried};
use super::writing::{Journal, attention};
use crate::blocking::Blocking;
use crate::journal::record::{Entry, Record};
use crate::journal::state_dir::StateDir;

/// An undo that does not reach libvirt is tried for so long: a daemon that is restarted comes back, and what is
/// not undone needs a person.
const UNDO_PATIENCE: Duration = Duration::from_secs(120);

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
    /// is journaled; `cancel` makes it unwind instead of beginning another step, and the running step hears of it;
    /// no step begins without `leave`; `halt` stops it at the next step.
    pub async fn run(
        self,
        accepted: Accepted,
        lease: watch::Receiver<Lease>,
        cancel: Cancel,
        leave: Leave,
        halt: CancellationToken,
    ) -> RunEnd {
        let (files, state_dir) = (self.files.clone(), Arc::clone(&self.state_dir));
        let run = async {
            let (journal, records) = Journal::open(&accepted, files, state_dir, lease).await?;
            if let Some(ending) = resume::ending(&records) {
                return Err(ending);
            }
            let run = Run {
                executor: self,
                operation: accepted.operation,
                journal,
                cancel,
                leave,
                halt,
                alive: Arc::new(()),
                conclusion: Conclusion::default(),
            };
            run.whole(&accepted, &records).await
        };
        match run.await {
            Ok(()) => RunEnd::Halted,
            Err(ending) => RunEnd::Ended(ending),
        }
    }
}

struct Run {
    executor: Executor,
    operation: OperationId,
    journal: Journal,
    cancel: Cancel,
    leave: Leave,
    halt: CancellationToken,
    /// Steps of calls that outlive this run must not speak for it any more.
    alive: Arc<()>,
    conclusion: Conclusion,
}

impl Run {
    /// Err is the operation's end, Ok a halt: an end leaves from any depth, by `?`.
    async fn whole(mut self, accepted: &Accepted, records: &[Record]) -> Result<(), Ending> {
        // A failure from here on is journaled, so that it is not run again after a crash.
        let request = match records.first().map(|record| &record.entry) {
            Some(Entry::Begun { request, .. }) => Any::try_from(request).unwrap_or_default(),
            _ => accepted.request.clone(),
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
        let job = (self.operation, accepted.resource.clone(), &request);
        let planning = planning::plan(&self.executor.plans, &self.executor.steps, job, Past::of(records));
        // Cancel-safe: planning that is left goes on by itself on its thread, and changes nothing.
        let planned = tokio::select! {
            biased;
            () = self.halt.cancelled() => return Ok(()),
            planned = planning => planned,
        };
        let mut ready = match planned {
            Ok(ready) => ready,
            Err(cause) => return Err(self.journal.end(refused(cause)).await),
        };
        let state = match resume::resume(&ready.plan, records) {
            Ok(state) => state,
            Err(mismatch) => return Err(self.journal.end(refused(mismatch.to_string())).await),
        };
        if let Some(entry) = ready.entry.take() {
            self.journal.write(entry).await?;
        }
        for line in ready.says.drain(..) {
            self.executor.outbox.say(self.operation, line);
        }
        self.drive(&ready, state).await
    }

    async fn drive(&mut self, ready: &Ready, mut state: State) -> Result<(), Ending> {
        let mut effects: VecDeque<Effect> = state::begin(&ready.plan, &state).into();
        while let Some(effect) = effects.pop_front() {
            if self.halt.is_cancelled() && !matches!(effect, Effect::Write(_) | Effect::End(_)) {
                return Ok(());
            }
            let acts = matches!(
                effect,
                Effect::Look { .. } | Effect::Apply { .. } | Effect::Undo { .. }
            );
            if acts && !self.may_go_on().await {
                return Ok(());
            }
            let event = match effect {
                Effect::Write(entry) => {
                    self.journal.write(entry).await?;
                    continue;
                }
                // What is written is; the next step is neither announced nor begun.
                _ if state.may_cancel() && self.cancel.by().is_some() => {
                    effects.clear();
                    self.cancelled()
                }
                Effect::Say(line) => {
                    self.executor.outbox.say(self.operation, line);
                    continue;
                }
                Effect::End(ending) => return Err(ending),
                Effect::Look { step } => self.look(&ready.steps[step]).await,
                Effect::Apply { step, before } => self.apply(&ready.steps[step], before).await,
                Effect::Undo { step, before } => self.undo(&ready.steps[step], before).await,
            };
            let Some(event) = event else { return Ok(()) };
            let (following, more) = state::next(&ready.plan, state, event)
                .map_err(|illegal| attention(format!("the executor lost its way (a bug): {illegal}")))?;
            state = following;
            effects.extend(more);
        }
        Err(attention(
            "the executor lost its way (a bug): nothing to do".to_owned(),
        ))
    }

    /// Waits until the lease is good; false when the run stops here.
    async fn may_go_on(&mut self) -> bool {
        if self.leave.is_given() {
            return true;
        }
        tracing::warn!(operation = %self.operation, "the lease has run out: nothing begins until the coordinator has renewed it");
        // Cancel-safe: both arms only wait.
        tokio::select! {
            biased;
            () = self.halt.cancelled() => false,
            () = self.leave.given() => true,
        }
    }

    /// What it means that somebody cancelled, if somebody did.
    fn cancelled(&self) -> Option<Event> {
        let by = self.cancel.by()?;
        Some(Event::Cancelled(StepError::cancelled(&by).to_string()))
    }

    async fn look(&self, step: &Arc<dyn Step>) -> Option<Event> {
        let call = |step: &dyn Step| step.look();
        match self.call(step, Duration::ZERO, self.cancel.clone(), call).await {
            // The step has not begun, and must not now.
            Tried::Good(before) => Some(self.cancelled().unwrap_or(Event::Looked(before))),
            // A look that hangs has changed nothing.
            Tried::Failed(cause) | Tried::Lost(cause) => Some(Event::LookFailed(cause)),
            Tried::Cancelled(cause) => Some(Event::Cancelled(cause)),
            Tried::Halted => None,
        }
    }

    async fn apply(&self, step: &Arc<dyn Step>, before: Before) -> Option<Event> {
        let progress = self.progress(self.cancel.clone());
        let conclusion = self.conclusion.clone();
        let call = move |step: &dyn Step| {
            // Of a try that failed, perhaps.
            conclusion.take();
            step.apply(before, &progress)
        };
        match self.call(step, Duration::ZERO, self.cancel.clone(), call).await {
            Tried::Good(()) => Some(Event::Applied(self.conclusion.take())),
            Tried::Failed(cause) => Some(Event::ApplyFailed(cause)),
            Tried::Cancelled(cause) => Some(Event::Cancelled(cause)),
            Tried::Lost(cause) => Some(Event::Lost(cause)),
            Tried::Halted => None,
        }
    }

    /// Nobody cancels an undo: it is what a cancel comes to.
    async fn undo(&self, step: &Arc<dyn Step>, before: Before) -> Option<Event> {
        let progress = self.progress(Cancel::never());
        let call = move |step: &dyn Step| step.undo(before, &progress);
        match self.call(step, UNDO_PATIENCE, Cancel::never(), call).await {
            Tried::Good(()) => Some(Event::Undone),
            Tried::Failed(cause) | Tried::Cancelled(cause) => Some(Event::UndoFailed(cause)),
            Tried::Lost(cause) => Some(Event::Lost(cause)),
            Tried::Halted => None,
        }
    }

    async fn call<T, F>(&self, step: &Arc<dyn Step>, patience: Duration, cancel: Cancel, call: F) -> Tried<T>
    where
        T: Send + 'static,
        F: Fn(&dyn Step) -> Result<T, StepError> + Send + Sync + 'static,
    {
        let name = step.name();
        let what = Call {
            what: &name,
            deadline: step.deadline(),
            patience,
            leave: self.leave.clone(),
        };
        let shared = Arc::new(call);
        let step = Arc::clone(step);
        let say = |line| self.executor.outbox.say(self.operation, line);
        let tried = what
            .make(&self.executor.steps, &self.halt, cancel, say, move || {
                shared(&*step)
            })
            .await;
        // How far this call was says nothing of the next.
        self.executor.outbox.take_measure(self.operation);
        tried
    }

    fn progress(&self, cancel: Cancel) -> Progress {
        Progress::to(Hearing {
            outbox: self.executor.outbox.clone(),
            operation: self.operation,
            alive: Arc::downgrade(&self.alive),
            conclusion: self.conclusion.clone(),
            cancel,
        })
    }
}
