//! Questions of the coordinator that change nothing and take no lease: answered beside the operations.
//!
//! It knows no answer; a handler does. The invariant: each question that is taken is answered once, in time, with
//! words where there is nothing else, or its session is gone.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::PoolName;
use hostler_common::rpc::hostler::agent::v1::ask::Question;
use hostler_common::rpc::hostler::agent::v1::ask_answer::Answer;
use hostler_common::rpc::hostler::agent::v1::{Ask, SessionRequest};
use tokio::task::JoinSet;

use super::messages;
use crate::blocking::{Blocking, BlockingFault};

/// Questions that are answered at a time. Each reads devices or a repository, of which a host has one or two.
pub const PLACES: usize = 4;
/// Questions of one session that are open at once; whoever asks more does not wait for the answers.
const OPEN_BOUND: usize = 32;
/// A person waits for the answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Answers a question about a pool. It may block. An error is one line, for a person.
pub type Answerer = Arc<dyn Fn(Question, PoolName) -> Result<Answer, String> + Send + Sync>;

/// Where questions are answered. Calls that hang keep their place from one session to the next.
#[derive(Clone)]
pub(super) struct Questions {
    answerer: Answerer,
    blocking: Blocking,
}

/// The questions of one session. What is open when it is dropped is not answered.
pub(super) struct Open {
    questions: Questions,
    answers: JoinSet<SessionRequest>,
}

impl Questions {
    pub(super) fn new(answerer: Answerer, blocking: Blocking) -> Self {
        Self { answerer, blocking }
    }

    /// For a session that begins.
    pub(super) fn open(&self) -> Open {
        Open {
            questions: self.clone(),
            answers: JoinSet::new(),
        }
    }

    async fn answer(self, ask: Ask) -> SessionRequest {
        let answer = match self.ask(ask.question, &ask.pool).await {
            Ok(answer) => answer,
            Err(reason) => Answer::Refused(reason),
        };
        messages::answer(ask.request_id, answer)
    }

    async fn ask(self, question: Option<Question>, pool: &str) -> Result<Answer, String> {
        let question = question
            .ok_or("this agent does not know the question; its version may not fit the coordinator's")?;
        let pool: PoolName = pool
            .parse()
            .map_err(|error| format!("the pool's name is ill-formed: {}", Chain(&error)))?;
        let what = match &question {
            Question::DryRun(_) => "the dry run",
            Question::ListBackups(_) => "listing the backups",
        };
        let answerer = self.answerer;
        self.blocking
            .run(what, DEADLINE, move || answerer(question, pool))
            .await
            .map_err(|fault| match fault {
                // It changes nothing, so nobody need wonder what came of it.
                BlockingFault::TimedOut { .. } => format!(
                    "{what} took longer than {} s; try again later",
                    DEADLINE.as_secs()
                ),
                BlockingFault::Full { .. } | BlockingFault::Panicked { .. } => fault.to_string(),
            })?
    }
}

impl Open {
    /// Takes a question. Answers at once when too many are open.
    pub(super) fn take(&mut self, ask: Ask) -> Option<SessionRequest> {
        if self.answers.len() >= OPEN_BOUND {
            let reason = format!("{OPEN_BOUND} questions wait for their answers already; ask again later");
            return Some(messages::answer(ask.request_id, Answer::Refused(reason)));
        }
        self.answers.spawn(self.questions.clone().answer(ask));
        None
    }

    /// The next answer; None when no question is open. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<SessionRequest> {
        // What the handler does runs elsewhere, so a task here neither panics nor is stopped before its session.
        self.answers.join_next().await?.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use hostler_common::rpc::hostler::agent::v1::ListBackupsQuestion;
    use hostler_common::rpc::hostler::agent::v1::session_request::Message;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_too_long_is_a_refusal() {
        let (release, hang) = mpsc::channel::<()>();
        let hang = Mutex::new(hang);
        let answerer: Answerer = Arc::new(move |_, _| {
            let _ = hang.lock().unwrap().recv();
            Err("released".to_owned())
        });
        let mut open = Questions::new(answerer, Blocking::new(PLACES)).open();
        let taken = open.take(Ask {
            request_id: 7,
            pool: "default".to_owned(),
            question: Some(Question::ListBackups(ListBackupsQuestion {})),
        });
        assert_eq!(taken, None);
        // The task begins, and its clock with it.
        tokio::task::yield_now().await;
        tokio::time::advance(DEADLINE).await;
        let Some(Message::AskAnswer(answer)) = open.next().await.unwrap().message else {
            panic!("not an answer")
        };
        drop(release);
        assert_eq!(answer.request_id, 7);
        let reason = "listing the backups took longer than 60 s; try again later".to_owned();
        assert_eq!(answer.answer, Some(Answer::Refused(reason)));
    }
}
