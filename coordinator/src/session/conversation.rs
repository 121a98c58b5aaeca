//! An open session, from Welcome to its end. Messages of one agent are handled in their order: a report
//! that comes before the end of an operation is stored before it.

use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::{Fence, HostName, OperationId};
use hostler_common::rpc::hostler::agent::v1::{
    Finish, FinishAnswer, Heartbeat, HostReport, Measured, Outcome, Propose, ProposeAnswer, ReportAnswer,
    SessionRequest, SessionResponse, session_request, session_response,
};
use hostler_common::throttle::Throttle;
use hostler_common::units::UnixMillis;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::answers;
use super::registry::SessionHandle;
use super::service::SessionContext;
use crate::enroll;
use crate::failpoint::Point;
use crate::identity::connections::{Cut, Life};
use crate::identity::renewal;
use crate::operation::engine::EngineError;
use crate::operation::sentences::{self, ending};
use crate::operation::state::{End, Event, IllegalTransition, Proposal};
use crate::registry::{Listing, Registry};

/// Heartbeats without an answer after which an agent is taken for gone.
const SILENT_HEARTBEATS: u32 = 3;

/// An agent may propose a lock of so many times the configured lease, for a back-off, and no more: nobody else
/// may touch the resource meanwhile.
const LEASES_AT_MOST: u32 = 10;

/// Refused hypervisors and pools that one session's log names.
const REFUSALS_LOGGED_AT_MOST: usize = 32;

/// Refused proposals and ends that are logged, of all agents.
static REFUSALS: Throttle = Throttle::new(20, Duration::from_secs(10));

pub(super) struct Conversation {
    context: SessionContext,
    host: HostName,
    agent_version: String,
    handle: SessionHandle,
    heard: watch::Sender<u64>,
    life: Life,
    /// Refusals that have been logged, so that a repeated report does not fill the log.
    logged_refusals: Vec<String>,
}

/// The session is over, and why.
struct Over(&'static str);

/// Whether what an agent proposes for can still be held by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unended,
    Ended,
}

impl Standing {
    fn of(error: &EngineError) -> Self {
        match error {
            EngineError::NoSuchOperation { .. }
            | EngineError::Illegal {
                source: IllegalTransition::Ended,
                ..
            } => Self::Ended,
            _ => Self::Unended,
        }
    }
}

impl Conversation {
    pub(super) fn new(
        context: SessionContext,
        host: HostName,
        agent_version: String,
        handle: SessionHandle,
        heard: watch::Sender<u64>,
        life: Life,
    ) -> Self {
        Self {
            context,
            host,
            agent_version,
            handle,
            heard,
            life,
            logged_refusals: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, inbound: impl Stream<Item = Result<SessionRequest, Status>> + Unpin) {
        let (host, epoch) = (self.host.clone(), self.handle.epoch);
        tracing::info!(%host, from = %self.handle.from, version = %self.agent_version, "agent connected");
        let registry: Registry = self.context.registry.clone();
        registry.connected(&host, epoch, &self.agent_version);
        let why = self.talk(inbound).await;
        self.context.sessions.leave(&host, epoch);
        self.context.asks.ended(&host, epoch);
        registry.disconnected(&host, epoch);
        tracing::info!(%host, why, "agent disconnected");
    }

    async fn talk(
        &mut self,
        mut inbound: impl Stream<Item = Result<SessionRequest, Status>> + Unpin,
    ) -> &'static str {
        let every = self.context.heartbeat;
        let mut heartbeat = interval_at(Instant::now() + every, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = every * SILENT_HEARTBEATS;
        let mut gone_at = Instant::now() + silence;
        let end = self.handle.end.clone();
        let cut = self.life.cut().clone();
        loop {
            // Cancel-safe: each arm only waits; the message that an arm yields is handled after the select.
            // A message that waits comes before the deadline that its wait may have let pass.
            let message = tokio::select! {
                biased;
                () = cut.cancelled() => return self.life.why_cut().unwrap_or(Cut::Revoked).words(),
                () = end.cancelled() => return "replaced by a newer session, or the coordinator ends",
                _ = heartbeat.tick() => {
                    // A full channel means that the network is stuck; gone_at decides.
                    let message = Some(session_response::Message::Heartbeat(Heartbeat {}));
                    let _ = self.handle.outbound.try_send(SessionResponse { message });
                    continue;
                }
                message = inbound.next() => message,
                () = sleep_until(gone_at) => return "silent for three heartbeats",
            };
            let message = match message {
                None => return "the agent ended the stream",
                Some(Err(status)) => {
                    tracing::debug!(host = %self.host, %status, "stream broke");
                    return "the stream broke";
                }
                Some(Ok(message)) => message,
            };
            self.heard.send_modify(|count| *count += 1);
            self.context.registry.heard(&self.host);
            if let Err(Over(why)) = self.handle_message(message).await {
                return why;
            }
            gone_at = Instant::now() + silence;
        }
    }

    async fn handle_message(&mut self, message: SessionRequest) -> Result<(), Over> {
        use session_request::Message;
        match message.message {
            Some(Message::Report(report)) => self.report(report).await,
            Some(Message::Propose(propose)) => {
                let operation_id = propose.operation_id.clone();
                let (answer, standing) = self.propose(propose).await?;
                let reason = answer.reason.clone();
                Point::ProposalAnswer.pass();
                self.send(session_response::Message::ProposeAnswer(answer))
                    .await?;
                if standing == Standing::Unended {
                    return Ok(());
                }
                // It speaks of what is over: it has not heard of the end, and nobody offers the operation again.
                self.send(session_response::Message::FinishAnswer(FinishAnswer {
                    operation_id,
                    accepted: false,
                    reason,
                }))
                .await
            }
            Some(Message::Finish(finish)) => match self.finish(finish).await? {
                Some(answer) => {
                    Point::EndAnswer.pass();
                    self.send(session_response::Message::FinishAnswer(answer)).await
                }
                None => Ok(()),
            },
            Some(Message::Measured(measured)) => {
                self.measured(measured);
                Ok(())
            }
            Some(Message::AskAnswer(answer)) => {
                self.context.asks.answered(&self.host, self.handle.epoch, answer);
                Ok(())
            }
            Some(Message::Renew(renew)) => {
                let answer = renewal::renew(&self.context.identities, &self.host, &self.life, renew).await;
                self.send(session_response::Message::RenewAnswer(answer)).await
            }
            Some(Message::Heartbeat(_)) | None => Ok(()),
            Some(Message::Hello(_)) => {
                tracing::warn!(host = %self.host, "a second Hello on one stream");
                Err(Over("it said Hello twice"))
            }
        }
    }

    async fn report(&mut self, report: HostReport) -> Result<(), Over> {
        match enroll::accept(&self.context.store, &self.context.registry, &self.host, report).await {
            Ok(accepted) => {
                let registry = &self.context.registry;
                let listing = registry.reported(&self.host, self.handle.epoch, accepted.reported);
                if listing == Listing::Expunged {
                    // It connects again and reports all it has, which enrols it anew.
                    return Err(Over("what it reports was expunged at that moment"));
                }
                Point::Reported.pass();
                let answer = accepted.refused;
                if answer == ReportAnswer::default() {
                    return Ok(());
                }
                self.log_refusals(&answer);
                self.send(session_response::Message::ReportAnswer(answer)).await
            }
            Err(error) => {
                // The agent connects again and reports again; until then the host is listed as UNKNOWN.
                tracing::error!(host = %self.host, error = %Chain(&error), "a report could not be stored");
                Err(Over("the store does not serve"))
            }
        }
    }

    fn log_refusals(&mut self, answer: &ReportAnswer) {
        let hypervisors = answer.refused.iter();
        let hypervisors = hypervisors.map(|refusal| ("hypervisor", &refusal.id, &refusal.reason));
        let pools = answer.refused_pools.iter();
        let pools = pools.map(|refusal| ("pool", &refusal.name, &refusal.reason));
        for (what, name, reason) in hypervisors.chain(pools) {
            let logged = format!("{what} {name}");
            if self.logged_refusals.len() < REFUSALS_LOGGED_AT_MOST && !self.logged_refusals.contains(&logged)
            {
                tracing::warn!(host = %self.host, name, reason, "{what} refused");
                self.logged_refusals.push(logged);
            }
        }
    }

    /// What does not count is dropped without a word: the next measure follows soon.
    fn measured(&self, measured: Measured) {
        let id = measured.operation_id.parse();
        if let (Ok(id), Some(measure)) = (id, measured.measure) {
            let (fence, measure) = (Fence(measured.fence), answers::bounded_measure(measure));
            self.context.registry.measured(&self.host, id, fence, measure);
        }
    }

    /// A store that fails ends the session instead of refusing: the holder may go on, and proposes again.
    async fn propose(&self, propose: Propose) -> Result<(ProposeAnswer, Standing), Over> {
        let request_id = propose.request_id;
        let answer = |reason: String| ProposeAnswer {
            request_id,
            accepted: false,
            fence: 0,
            reason,
        };
        let refused = |reason: String| Ok((answer(reason), Standing::Unended));
        let Some(proposal) = propose.proposal else {
            return refused("the proposal is missing".into());
        };
        let id: OperationId = match propose.operation_id.parse() {
            Ok(id) => id,
            Err(error) => return refused(format!("{error}")),
        };
        if proposal.proposing_peer_token != self.handle.token.as_str() {
            return refused("the token is not that of this session's process".into());
        }
        if self
            .context
            .registry
            .operation(id)
            .is_some_and(|record| record.resource.as_str() != proposal.name)
        {
            return refused(format!(
                "operation {id} is not on {}",
                sentences::line(&proposal.name)
            ));
        }
        let longest = u32::try_from(self.context.lease.as_secs()).unwrap_or(u32::MAX);
        let lock_for_seconds = proposal
            .lock_for_seconds
            .clamp(1, longest.saturating_mul(LEASES_AT_MOST));
        let wish = Proposal {
            token: self.handle.token.clone(),
            fence: Fence(propose.fence),
            newest_fence: Fence(propose.newest_fence),
            lock_for_seconds,
            is_disabled_cancel: proposal.is_disabled_cancel,
            now: UnixMillis::now(),
        };
        let proposed = self
            .context
            .engine
            .propose(id, &self.host, wish, &proposal.log_message)
            .await;
        match proposed {
            Ok(lease) => {
                let accepted = ProposeAnswer {
                    accepted: true,
                    fence: lease.fence.0,
                    ..answer(String::new())
                };
                Ok((accepted, Standing::Unended))
            }
            Err(error @ EngineError::Record(_)) => {
                tracing::error!(host = %self.host, operation = %id, error = %Chain(&error), "a proposal could not be stored");
                Err(Over("the store does not serve"))
            }
            Err(error) => {
                self.log_refused("proposal", id, &error);
                Ok((answer(Chain(&error).to_string()), Standing::of(&error)))
            }
        }
    }

    /// None when the agent should say it again later.
    async fn finish(&self, finish: Finish) -> Result<Option<FinishAnswer>, Over> {
        let operation_id = finish.operation_id.clone();
        let answer = |accepted, reason| {
            Ok(Some(FinishAnswer {
                operation_id,
                accepted,
                reason,
            }))
        };
        let id: OperationId = match finish.operation_id.parse() {
            Ok(id) => id,
            Err(error) => return answer(false, format!("{error}")),
        };
        let end = match finish.outcome() {
            Outcome::Done => End::Completed,
            Outcome::Failed => End::Failed,
            Outcome::NeedsAttention => End::NeedsAttention,
            Outcome::Unspecified => return answer(false, "the outcome is not set".to_owned()),
        };
        let token = match finish.process_token.parse() {
            Ok(token) => token,
            Err(error) => return answer(false, format!("{error}")),
        };
        let said = match finish.message.as_str() {
            "" => "ended without a word".to_owned(),
            words => sentences::line(words),
        };
        let fence = Fence(finish.fence);
        let event = Event::Finished { token, fence, end };
        let engine = &self.context.engine;
        match engine
            .apply(id, Some(&self.host), event, |record| ending(record, &said))
            .await
        {
            Ok(record) => {
                tracing::info!(operation = %id, resource = %record.resource, ?end, said, "operation ended");
                answer(true, String::new())
            }
            // Held by nobody, or under a later fence, as when the answer to a proposal was lost: the agent takes
            // the next offer and says it again. An answer would make it forget how the operation ended.
            Err(EngineError::Illegal {
                source: IllegalTransition::NotHeld | IllegalTransition::FormerHolder { .. },
                ..
            }) => Ok(None),
            // Said again because the answer was lost.
            Err(EngineError::Illegal {
                source: IllegalTransition::Ended,
                ..
            }) if engine
                .get(id)
                .await
                .is_ok_and(|record| record.fence == fence && record.end() == Some(end)) =>
            {
                answer(true, String::new())
            }
            Err(error @ EngineError::Record(_)) => {
                tracing::error!(host = %self.host, operation = %id, error = %Chain(&error), "an end could not be stored");
                Err(Over("the store does not serve"))
            }
            Err(error) => {
                self.log_refused("end", id, &error);
                answer(false, Chain(&error).to_string())
            }
        }
    }

    fn log_refused(&self, what: &str, id: OperationId, error: &EngineError) {
        if let Some(held_back) = REFUSALS.pass() {
            tracing::warn!(host = %self.host, operation = %id, error = %Chain(error), held_back, "{what} refused");
        }
    }

    async fn send(&self, message: session_response::Message) -> Result<(), Over> {
        let patience: Duration = self.context.heartbeat * SILENT_HEARTBEATS;
        let sending = self.handle.outbound.send(SessionResponse {
            message: Some(message),
        });
        match tokio::time::timeout(patience, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over("the agent does not take answers")),
        }
    }
}
