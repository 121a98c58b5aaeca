//! Dials the coordinator for ever, and owns what lives longer than a stream: the desk and the running operations.
//!
//! Operations go on while no session is up; what they say waits in the outbox, their ends at the desk.

use std::collections::BTreeSet;
use std::time::Duration;

use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::agent::v1::SessionRequest;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Do};
use super::dial::{Dial, Trouble};
use super::held::Fate;
use super::live::{self, Gone};
use super::pulse::Pulse;
use super::questions::{self, Answerer, Questions};
use super::redial::Redial;
use super::report::Reporter;
use crate::executor::run::{Executor, RunEnd};
use crate::identity::line::Line;

/// How long a step may go on after SIGTERM. systemd kills after 90 s.
pub const DRAIN: Duration = Duration::from_secs(10);
/// Distinct complaints that are remembered to be logged once.
const COMPLAINTS_BOUND: usize = 64;
/// Removing one file.
const DROP_DEADLINE: Duration = Duration::from_secs(30);

/// What a finished job of an operation was.
#[derive(Debug)]
pub(super) enum JobEnd {
    Ran(RunEnd),
    Dropped,
}

/// The session with the coordinator.
pub struct SessionTask {
    pub(super) desk: Desk,
    pub(super) dial: Dial,
    pub(super) executor: Executor,
    pub(super) reporter: Reporter,
    pub(super) questions: Questions,
    pub(super) identity: Line,
    pub(super) pulse: Pulse,
    pub(super) stop: CancellationToken,
    pub(super) jobs: JoinSet<(OperationId, JobEnd)>,
    complaints: BTreeSet<String>,
}

impl SessionTask {
    /// Ready to run.
    pub fn new(
        desk: Desk,
        dial: Dial,
        executor: Executor,
        reporter: Reporter,
        answerer: Answerer,
        pulse: Pulse,
        stop: CancellationToken,
    ) -> Self {
        let questions = Questions::new(answerer, executor.files.like(questions::PLACES));
        Self {
            desk,
            dial,
            executor,
            reporter,
            questions,
            identity: Line::nobody(),
            pulse,
            stop,
            jobs: JoinSet::new(),
            complaints: BTreeSet::new(),
        }
    }

    /// The same, with who keeps this host's identity at the other end of `identity`.
    #[must_use]
    pub fn with_identity(mut self, identity: Line) -> Self {
        self.identity = identity;
        self
    }

    /// Runs until `stop` is cancelled, and then until the running steps have ended, at most [`DRAIN`].
    pub async fn run(mut self) {
        let mut redial = Redial::new();
        while !self.stop.is_cancelled() {
            let gone = self.session().await;
            let left = self.desk.disconnected();
            drop(self.perform(left));
            let wait = redial.after(&gone);
            match gone {
                Gone::Stopping => break,
                Gone::Never(trouble) => self.complain(trouble),
                Gone::After(_, trouble) => {
                    self.complaints.clear();
                    self.complain(trouble);
                }
            }
            tracing::debug!(?wait, "dialling again after a wait");
            let pulse = self.pulse.clone();
            let stop = self.stop.clone();
            // Cancel-safe: both arms only wait.
            pulse
                .during(async {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                })
                .await;
        }
        self.drain().await;
    }

    async fn session(&mut self) -> Gone {
        let hello = self.desk.hello();
        let (dial, stop, pulse) = (self.dial.clone(), self.stop.clone(), self.pulse.clone());
        let opening = live::open(&dial, hello);
        // Cancel-safe: a stream that is given up while it opens was not used.
        let welcomed = tokio::select! {
            biased;
            () = stop.cancelled() => return Gone::Stopping,
            welcomed = pulse.during(opening) => welcomed,
        };
        match welcomed {
            Ok(welcomed) => self.live(welcomed).await,
            Err(trouble) => Gone::Never(trouble),
        }
    }

    /// Does what the desk wants done and answers with what is to be sent.
    pub(super) fn perform(&mut self, todo: Vec<Do>) -> Vec<SessionRequest> {
        let mut send = Vec::new();
        for action in todo {
            match action {
                Do::Send(message) => send.push(*message),
                Do::Start {
                    accepted,
                    lease,
                    cancel,
                    leave,
                    halt,
                } => {
                    let operation = accepted.operation;
                    let run = self.executor.clone().run(accepted, lease, cancel, leave, halt);
                    self.jobs
                        .spawn(async move { (operation, JobEnd::Ran(run.await)) });
                }
                Do::Drop { operation, fate } => self.drop_journal(operation, fate),
            }
        }
        send
    }

    fn drop_journal(&mut self, operation: OperationId, fate: Fate) {
        let (files, state_dir) = (self.executor.files.clone(), self.executor.state_dir.clone());
        self.jobs.spawn(async move {
            let removing = files.run("removing a journal", DROP_DEADLINE, move || match fate {
                Fate::Remove => state_dir.remove(operation),
                Fate::SetAside(why) => state_dir.set_aside(operation, why),
            });
            match removing.await {
                Ok(Ok(())) => {}
                // Harmless: after a restart its end is said again.
                Ok(Err(error)) => tracing::error!(%operation, %error, "a journal cannot be removed"),
                Err(fault) => tracing::error!(%operation, %fault, "a journal cannot be removed"),
            }
            (operation, JobEnd::Dropped)
        });
    }

    /// # Panics
    /// When the job did: a task that dies ends the process.
    pub(super) fn job_done(&mut self, job: Result<(OperationId, JobEnd), JoinError>) {
        let (operation, end) = job.expect("a job of an operation panicked, which is a bug");
        let now = tokio::time::Instant::now();
        match end {
            JobEnd::Ran(end) => {
                let look = self.reporter.want();
                self.desk.run_ended(operation, end, look, now);
            }
            JobEnd::Dropped => self.desk.dropped(operation, now),
        }
    }

    fn complain(&mut self, trouble: Trouble) {
        if self.complaints.len() >= COMPLAINTS_BOUND {
            self.complaints.clear();
        }
        let (line, person) = match trouble {
            Trouble::Person(line) => (line, true),
            Trouble::Passing(line) => (line, false),
        };
        let new = self.complaints.insert(line.clone());
        match (new, person) {
            (true, true) => tracing::error!("no session with the coordinator: {line}"),
            (true, false) => tracing::warn!("no session with the coordinator: {line}"),
            (false, _) => tracing::debug!("no session with the coordinator: {line}"),
        }
    }

    /// Lets the running steps end. What does not is in the journal.
    async fn drain(&mut self) {
        let until = tokio::time::Instant::now() + DRAIN;
        while !self.jobs.is_empty() {
            self.pulse.beat();
            let next = self.pulse.during(self.jobs.join_next());
            match tokio::time::timeout_at(until, next).await {
                Ok(Some(job)) => self.job_done(job),
                Ok(None) => return,
                Err(_) => {
                    tracing::warn!(
                        operations = self.jobs.len(),
                        "steps still run; their journals say where to go on"
                    );
                    return;
                }
            }
        }
    }
}
