//! What goes between the keeper of the identity and the session: wishes one way, answers and CAs the other.
//!
//! Neither end ever waits for the other. The invariant: the newest wish and the newest CAs are never lost; an answer may be,
//! and is asked for again.

use hostler_common::rpc::hostler::agent::v1::{Renew, RenewAnswer, Trust};
use tokio::sync::{mpsc, watch};

/// Answers that wait for the keeper. It has one wish at a time, and repeats it seldom.
const ANSWERS_BOUND: usize = 4;

/// The session's end. Clones share it.
#[derive(Debug, Clone)]
pub struct Line {
    wishes: watch::Receiver<Option<Renew>>,
    told: Told,
}

/// What the coordinator says about identity, on its way to the keeper.
#[derive(Debug, Clone)]
pub struct Told {
    answers: mpsc::Sender<RenewAnswer>,
    cas: watch::Sender<Trust>,
}

/// The keeper's end.
#[derive(Debug)]
pub struct KeeperEnd {
    pub(super) wish: watch::Sender<Option<Renew>>,
    pub(super) answers: mpsc::Receiver<RenewAnswer>,
    pub(super) cas: watch::Receiver<Trust>,
}

/// Both ends.
pub fn line() -> (Line, KeeperEnd) {
    let (wish, wishes) = watch::channel(None);
    let (answer, answers) = mpsc::channel(ANSWERS_BOUND);
    let (tell, cas) = watch::channel(Trust::default());
    let told = Told {
        answers: answer,
        cas: tell,
    };
    (Line { wishes, told }, KeeperEnd { wish, answers, cas })
}

impl Line {
    /// A line with nobody at its other end.
    pub fn nobody() -> Self {
        line().0
    }

    /// What is wished for now, and from here on each change of it by [`Line::next_wish`].
    pub fn wish(&mut self) -> Option<Renew> {
        self.wishes.borrow_and_update().clone()
    }

    /// Waits for another wish; `None` where nobody wishes any more. Cancel-safe: what was not seen is there the next time.
    pub async fn next_wish(&mut self) -> Option<Renew> {
        loop {
            self.wishes.changed().await.ok()?;
            if let Some(wish) = self.wish() {
                return Some(wish);
            }
        }
    }

    /// Where the coordinator's words go.
    pub fn told(&self) -> Told {
        self.told.clone()
    }
}

impl Told {
    /// A wish is answered.
    pub fn answer(&self, answer: RenewAnswer) {
        if self.answers.try_send(answer).is_err() {
            tracing::debug!("an answer about the certificate is dropped: nobody waits for it");
        }
    }

    /// The coordinator tells which CAs are trusted. A coordinator that does not tell says nothing.
    pub fn cas(&self, trust: Trust) {
        if !trust.ca_pem.is_empty() {
            self.cas.send_replace(trust);
        }
    }
}
