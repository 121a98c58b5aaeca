//! One live session a host, the newest wins. A newcomer with another process token takes over only when the
//! session before it does not answer: two agents that claim one host would otherwise throw each other out
//! for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_common::id::{Epoch, HostName, ProcessToken};
use hostler_common::rpc::hostler::agent::v1::{Heartbeat, SessionResponse, session_response::Message};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::rivals::Rivals;
use crate::identity::connections::LifeEnd;

/// How long the session before may take to answer the probe of a newcomer.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);

/// Every live session.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    newest: Epoch,
    live: BTreeMap<HostName, SessionHandle>,
    rivals: Rivals,
}

/// Commands one session.
#[derive(Debug, Clone)]
pub struct SessionHandle {
    /// Its epoch.
    pub epoch: Epoch,
    /// The agent process.
    pub token: ProcessToken,
    /// Where the agent comes from, for people.
    pub from: String,
    /// What goes to the agent.
    pub outbound: mpsc::Sender<SessionResponse>,
    /// Counts what came from the agent.
    pub heard: watch::Receiver<u64>,
    /// Ends the session.
    pub end: CancellationToken,
    /// When its certificate ends.
    pub life_end: LifeEnd,
}

/// What a newcomer brings.
#[derive(Debug)]
pub struct Newcomer {
    /// The agent process.
    pub token: ProcessToken,
    /// Where it comes from, for people.
    pub from: String,
    /// What goes to it.
    pub outbound: mpsc::Sender<SessionResponse>,
    /// Counts what comes from it.
    pub heard: watch::Receiver<u64>,
    /// Ends its session.
    pub end: CancellationToken,
    /// When its certificate ends.
    pub life_end: LifeEnd,
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the newcomer the host's session, ending the one before it. Its first message is `welcome`: it is
    /// queued before anybody else can send to the session.
    ///
    /// # Errors
    /// With a sentence for the newcomer, when another living agent serves the host.
    pub async fn enter(
        &self,
        host: &HostName,
        newcomer: Newcomer,
        welcome: impl FnOnce(Epoch) -> SessionResponse,
    ) -> Result<SessionHandle, String> {
        let mut probed = None;
        loop {
            let before = self.lock().live.get(host).cloned();
            // Whoever came while this newcomer probed is probed too.
            if let Some(before) = &before
                && before.token != newcomer.token
                && probed != Some(before.epoch)
            {
                if answers(before).await {
                    self.lock().rivals.refused(host, &newcomer.from, &before.from);
                    return Err(format!(
                        "host {host} is served by another agent that is alive (from {}); each host runs one agent under \
                         its own name: stop one of them, or issue a certificate for another host name",
                        before.from
                    ));
                }
                probed = Some(before.epoch);
                continue;
            }
            let mut inner = self.lock();
            if inner.live.get(host).map(|live| live.epoch) != before.as_ref().map(|before| before.epoch) {
                continue;
            }
            inner.newest = Epoch(inner.newest.0 + 1);
            let handle = SessionHandle {
                epoch: inner.newest,
                token: newcomer.token,
                from: newcomer.from,
                outbound: newcomer.outbound,
                heard: newcomer.heard,
                end: newcomer.end,
                life_end: newcomer.life_end,
            };
            // The channel is new and has room; an error means that the agent has hung up already.
            let _ = handle.outbound.try_send(welcome(handle.epoch));
            if let Some(before) = inner.live.insert(host.clone(), handle.clone()) {
                before.end.cancel();
            }
            return Ok(handle);
        }
    }

    /// The session of `epoch` has ended.
    pub fn leave(&self, host: &HostName, epoch: Epoch) {
        let mut inner = self.lock();
        if inner.live.get(host).is_some_and(|live| live.epoch == epoch) {
            inner.live.remove(host);
        }
    }

    /// A sentence about each agent that was refused lately since another one serves its host.
    pub fn rivals(&self) -> Vec<String> {
        self.lock().rivals.told()
    }

    /// Every live session.
    pub fn all(&self) -> Vec<SessionHandle> {
        self.lock().live.values().cloned().collect()
    }

    /// The host's live session.
    pub fn of(&self, host: &HostName) -> Option<SessionHandle> {
        self.lock().live.get(host).cloned()
    }
}

/// Asks a session for a sign of life.
async fn answers(session: &SessionHandle) -> bool {
    let mut heard = session.heard.clone();
    heard.mark_unchanged();
    let probe = SessionResponse {
        message: Some(Message::Heartbeat(Heartbeat {})),
    };
    let answer = async { session.outbound.send(probe).await.is_ok() && heard.changed().await.is_ok() };
    tokio::select! {
        // Cancel-safe: both sides only wait.
        biased;
        answered = tokio::time::timeout(PROBE_PATIENCE, answer) => answered.unwrap_or(false),
        () = session.end.cancelled() => false,
    }
}
