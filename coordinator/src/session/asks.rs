//! Questions to agents that change nothing: each goes to the host's live session and waits there for its answer.
//!
//! Nothing is kept beyond the wait. Invariant: only the session that was asked can answer, and a question ends with
//! its session: whoever asks is never left waiting for a host that has gone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_common::id::{Epoch, HostName, PoolName};
use hostler_common::rpc::hostler::agent::v1::ask::Question;
use hostler_common::rpc::hostler::agent::v1::ask_answer::Answer;
use hostler_common::rpc::hostler::agent::v1::{Ask, AskAnswer, SessionResponse, session_response};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::answers;
use super::registry::Sessions;

/// Questions that one host may owe answers to. Each makes its agent look at a pool or call restic.
pub const PER_HOST_AT_MOST: usize = 16;

/// How long an answer may take: an agent gives restic a minute to list backups.
const PATIENCE: Duration = Duration::from_secs(70);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AskError {
    /// The host has no session.
    #[error("host {host} is not connected, and only it can answer; look at its agent")]
    NotConnected {
        /// The host.
        host: HostName,
    },
    /// Its session ended before it answered.
    #[error("host {host} went away before it answered; ask again when it is connected")]
    WentAway {
        /// The host.
        host: HostName,
    },
    /// It owes too many answers.
    #[error("host {host} owes {PER_HOST_AT_MOST} answers already; ask again later")]
    TooMany {
        /// The host.
        host: HostName,
    },
    /// It took too long.
    #[error("host {host} has not answered within {} s; look at its agent", PATIENCE.as_secs())]
    Late {
        /// The host.
        host: HostName,
    },
    /// The agent says why it has no answer.
    #[error("{reason}")]
    Refused {
        /// In its words.
        reason: String,
    },
    /// It answered something else.
    #[error("host {host} gave an answer that does not fit the question; does its agent have this version?")]
    Unfit {
        /// The host.
        host: HostName,
    },
}

/// Asks hosts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Asks {
    sessions: Sessions,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    newest: u64,
    owed: BTreeMap<u64, Owed>,
}

/// A question without an answer.
#[derive(Debug)]
struct Owed {
    host: HostName,
    epoch: Epoch,
    /// None when the answer cannot be read.
    answer: oneshot::Sender<Option<Answer>>,
}

/// Takes its question back when whoever asked no longer waits.
struct Waiting {
    asks: Asks,
    request_id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.asks.lock().owed.remove(&self.request_id);
    }
}

impl Asks {
    /// Asks by way of `sessions`.
    pub fn new(sessions: Sessions) -> Self {
        let inner = Arc::default();
        Self { sessions, inner }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `host` about `pool`, and waits for the answer: of the question's kind, and bounded. Cancel-safe: who no
    /// longer waits takes the question back.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(
        &self,
        host: &HostName,
        pool: &PoolName,
        question: Question,
    ) -> Result<Answer, AskError> {
        let until = Instant::now() + PATIENCE;
        let not_connected = || AskError::NotConnected { host: host.clone() };
        let went_away = || AskError::WentAway { host: host.clone() };
        let late = |_| AskError::Late { host: host.clone() };
        let session = self.sessions.of(host).ok_or_else(not_connected)?;
        let (waiting, answered) = self.owe(host, session.epoch)?;
        // A session that ended before the question was noted does not end it.
        if self
            .sessions
            .of(host)
            .is_none_or(|now| now.epoch != session.epoch)
        {
            return Err(went_away());
        }
        let wants = std::mem::discriminant(&question);
        let ask = Ask {
            request_id: waiting.request_id,
            pool: pool.to_string(),
            question: Some(question),
        };
        let message = Some(session_response::Message::Ask(ask));
        let outbound = session.outbound;
        let sending = async move {
            // Who cannot be sent to loses its session, and with it the question.
            let _ = outbound.send(SessionResponse { message }).await;
            drop(outbound);
            std::future::pending::<Infallible>().await
        };
        // Cancel-safe: nobody else waits for either.
        let answer = tokio::select! {
            biased;
            answer = timeout_at(until, answered) => answer.map_err(late)?.map_err(|_| went_away())?,
            never = sending => match never {},
        };
        match answer {
            Some(Answer::Refused(reason)) => Err(AskError::Refused { reason }),
            Some(answer) if answers::fits(wants, &answer) => Ok(answer),
            Some(_) | None => Err(AskError::Unfit { host: host.clone() }),
        }
    }

    fn owe(
        &self,
        host: &HostName,
        epoch: Epoch,
    ) -> Result<(Waiting, oneshot::Receiver<Option<Answer>>), AskError> {
        let (answer, answered) = oneshot::channel();
        let mut inner = self.lock();
        if inner.owed.values().filter(|owed| owed.host == *host).count() >= PER_HOST_AT_MOST {
            return Err(AskError::TooMany { host: host.clone() });
        }
        inner.newest += 1;
        let request_id = inner.newest;
        let host = host.clone();
        inner.owed.insert(request_id, Owed { host, epoch, answer });
        let asks = self.clone();
        Ok((Waiting { asks, request_id }, answered))
    }

    /// The session of `epoch` answers. What it was not asked, or no longer owes, counts for nothing.
    pub(super) fn answered(&self, host: &HostName, epoch: Epoch, answer: AskAnswer) {
        let request_id = answer.request_id;
        let mut inner = self.lock();
        let asked = |owed: &Owed| owed.host == *host && owed.epoch == epoch;
        if !inner.owed.get(&request_id).is_some_and(asked) {
            tracing::debug!(%host, request_id, "an answer that nobody waits for");
            return;
        }
        if let Some(owed) = inner.owed.remove(&request_id) {
            // An error means that whoever asked has just gone.
            let _ = owed.answer.send(answer.answer.map(answers::bounded));
        }
    }

    /// The session of `epoch` has ended, and has left [`Sessions`]: it answers nothing any more.
    pub(super) fn ended(&self, host: &HostName, epoch: Epoch) {
        let ended = |owed: &Owed| owed.host == *host && owed.epoch == epoch;
        self.lock().owed.retain(|_, owed| !ended(owed));
    }
}

#[cfg(test)]
mod tests {
    use hostler_common::id::ProcessToken;
    use hostler_common::rpc::hostler::agent::v1::{ListBackupsAnswer, ListBackupsQuestion};
    use tokio::sync::{mpsc, watch};
    use tokio::task::JoinHandle;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::session::registry::Newcomer;

    fn host() -> HostName {
        "a".parse().unwrap()
    }

    async fn enter(sessions: &Sessions) -> (Epoch, mpsc::Receiver<SessionResponse>) {
        enter_with(sessions, 64).await
    }

    async fn enter_with(sessions: &Sessions, room: usize) -> (Epoch, mpsc::Receiver<SessionResponse>) {
        let (outbound, inbound) = mpsc::channel(room);
        let newcomer = Newcomer {
            token: "t".parse::<ProcessToken>().unwrap(),
            from: String::new(),
            outbound,
            heard: watch::channel(0).1,
            end: CancellationToken::new(),
            life_end: crate::identity::connections::Life::unbounded().end(),
        };
        let welcome = |_| SessionResponse::default();
        let handle = sessions.enter(&host(), newcomer, welcome).await.unwrap();
        (handle.epoch, inbound)
    }

    fn spawn(asks: &Asks) -> JoinHandle<Result<Answer, AskError>> {
        let asks = asks.clone();
        tokio::spawn(async move {
            let question = Question::ListBackups(ListBackupsQuestion {});
            asks.ask(&host(), &"tank".parse().unwrap(), question).await
        })
    }

    async fn asked(inbound: &mut mpsc::Receiver<SessionResponse>) -> u64 {
        loop {
            if let Some(session_response::Message::Ask(ask)) = inbound.recv().await.unwrap().message {
                return ask.request_id;
            }
        }
    }

    fn backups() -> Answer {
        Answer::ListBackups(ListBackupsAnswer::default())
    }

    fn answer(request_id: u64, answer: Answer) -> AskAnswer {
        AskAnswer {
            request_id,
            answer: Some(answer),
        }
    }

    #[tokio::test]
    async fn each_answer_reaches_whoever_asked_and_only_once() {
        let sessions = Sessions::default();
        let asks = Asks::new(sessions.clone());
        let (epoch, mut inbound) = enter(&sessions).await;
        let first = spawn(&asks);
        let first_id = asked(&mut inbound).await;
        let second = spawn(&asks);
        let second_id = asked(&mut inbound).await;
        assert_ne!(first_id, second_id);
        asks.answered(
            &host(),
            epoch,
            answer(second_id, Answer::Refused("no\n repository".into())),
        );
        asks.answered(&host(), epoch, answer(first_id, backups()));
        asks.answered(&host(), epoch, answer(first_id, Answer::Refused("again".into())));
        assert_eq!(first.await.unwrap(), Ok(backups()));
        let refused = second.await.unwrap().unwrap_err();
        assert_eq!(refused.to_string(), "no repository");
        assert!(asks.lock().owed.is_empty());
    }

    #[tokio::test]
    async fn an_answer_of_another_session_or_host_counts_for_nothing() {
        let sessions = Sessions::default();
        let asks = Asks::new(sessions.clone());
        let (epoch, mut inbound) = enter(&sessions).await;
        let waiting = spawn(&asks);
        let id = asked(&mut inbound).await;
        asks.answered(
            &host(),
            Epoch(epoch.0 + 1),
            answer(id, Answer::Refused("later".into())),
        );
        asks.answered(
            &"b".parse().unwrap(),
            epoch,
            answer(id, Answer::Refused("foreign".into())),
        );
        asks.answered(&host(), epoch, answer(id + 1, Answer::Refused("unasked".into())));
        asks.answered(&host(), epoch, answer(id, backups()));
        assert_eq!(waiting.await.unwrap(), Ok(backups()));
    }

    #[tokio::test]
    async fn a_question_ends_with_its_session() {
        let sessions = Sessions::default();
        let asks = Asks::new(sessions.clone());
        let nobody = spawn(&asks).await.unwrap();
        assert_eq!(nobody, Err(AskError::NotConnected { host: host() }));
        let (epoch, mut inbound) = enter(&sessions).await;
        let waiting = spawn(&asks);
        asked(&mut inbound).await;
        sessions.leave(&host(), epoch);
        asks.ended(&host(), epoch);
        assert_eq!(waiting.await.unwrap(), Err(AskError::WentAway { host: host() }));
        // The same while its network is stuck: the welcome fills the only place.
        let (epoch, stuck) = enter_with(&sessions, 1).await;
        let waiting = spawn(&asks);
        while asks.lock().owed.is_empty() {
            tokio::task::yield_now().await;
        }
        sessions.leave(&host(), epoch);
        asks.ended(&host(), epoch);
        assert_eq!(waiting.await.unwrap(), Err(AskError::WentAway { host: host() }));
        assert_eq!(
            stuck.sender_strong_count(),
            0,
            "the stream of the session can end"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_owes_answers_is_not_asked_without_end_and_not_waited_for_either() {
        let sessions = Sessions::default();
        let asks = Asks::new(sessions.clone());
        let (_, mut inbound) = enter(&sessions).await;
        let mut waiting = Vec::new();
        for _ in 0..PER_HOST_AT_MOST {
            waiting.push(spawn(&asks));
            asked(&mut inbound).await;
        }
        let refused = spawn(&asks).await.unwrap();
        assert_eq!(refused, Err(AskError::TooMany { host: host() }));
        let begun = Instant::now();
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Err(AskError::Late { host: host() }));
        }
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        assert!(asks.lock().owed.is_empty());
        let again = spawn(&asks);
        asked(&mut inbound).await;
        again.abort();
        assert!(again.await.unwrap_err().is_cancelled());
        assert!(asks.lock().owed.is_empty(), "who no longer waits is forgotten");
    }

    #[tokio::test]
    async fn an_answer_of_the_wrong_kind_is_none() {
        let sessions = Sessions::default();
        let asks = Asks::new(sessions.clone());
        let (epoch, mut inbound) = enter(&sessions).await;
        for wrong in [None, Some(Answer::DryRun(Default::default()))] {
            let waiting = spawn(&asks);
            let request_id = asked(&mut inbound).await;
            let answer = AskAnswer {
                request_id,
                answer: wrong,
            };
            asks.answered(&host(), epoch, answer);
            assert_eq!(waiting.await.unwrap(), Err(AskError::Unfit { host: host() }));
        }
    }
}
