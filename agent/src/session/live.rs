//! One stream from its Hello to its end.
//!
//! It only carries: messages go to the desk, and what the desk wants done goes out. It never waits for the
//! coordinator to read: what cannot be sent now stays in a queue that the desk is told about.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::agent::v1::{
    Ask, HostReport, ReportAnswer, SessionRequest, SessionResponse, Welcome,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::desk::Desk;
use super::dial::{self, Dial, Link, Trouble};
use super::messages;
use super::pulse::BEAT;
use super::questions::Open;
use super::report::Observation;
use super::task::SessionTask;
use crate::identity::line::Told;

/// Messages of ours that wait for the transport; beyond it operations keep their lines to themselves. One line
/// each of the operations that may run.
const QUEUE_BOUND: usize = super::desk::RUNNING_BOUND;
/// Silences that make the coordinator dead, in heartbeat intervals.
const SILENCES: u32 = 3;
/// From a proposal to its answer. It bounds what may wait for one, too: a coordinator that keeps the stream alive
/// and answers nothing is left.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// What a Welcome may name as interval, so that a mistake there neither floods nor blinds this side.
const HEARTBEAT_MS: std::ops::RangeInclusive<u32> = 20..=60_000;

/// Why there is no stream any more.
#[derive(Debug)]
pub(super) enum Gone {
    /// This process ends.
    Stopping,
    /// It did not come up.
    Never(Trouble),
    /// It was up for this long.
    After(Duration, Trouble),
}

/// A link whose Hello was answered by Welcome.
pub(super) struct Welcomed {
    link: Link,
    welcome: Welcome,
}

/// Dials and says hello.
pub(super) async fn open(dial: &Dial, hello: SessionRequest) -> Result<Welcomed, Trouble> {
    let mut link = dial(hello).await?;
    let answer = tokio::time::timeout(dial::WELCOME_DEADLINE, link.answers.next())
        .await
        .map_err(|_| dial::unanswered())?;
    match answer.transpose()?.map(|answer| answer.message) {
        Some(Some(Message::Welcome(welcome))) => Ok(Welcomed { link, welcome }),
        Some(Some(Message::Refused(refused))) => Err(Trouble::Person(format!(
            "the coordinator refused the session: {}",
            refused.reason
        ))),
        Some(_) => Err(Trouble::Person(
            "the coordinator answered Hello with something else; its version may not fit this agent's"
                .to_owned(),
        )),
        None => Err(Trouble::Passing(
            "the coordinator ended the session at once".to_owned(),
        )),
    }
}

/// What of a report the coordinator may refuse, as people call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reported {
    Hypervisor,
    Pool,
}

/// One live stream, and what is to be sent on it.
struct Live {
    queue: VecDeque<SessionRequest>,
    reported: Option<Arc<HostReport>>,
    /// What the coordinator does not take of our report, and why: logged when that changes.
    refused: BTreeMap<(Reported, String), String>,
    /// Dropped with the stream: nobody waits for the answers any more.
    questions: Open,
    /// Who keeps this host's identity.
    identity: Told,
    /// How long the coordinator may be silent.
    patience: Duration,
    heard: Instant,
}

impl SessionTask {
    /// Carries the session until it ends or the process does.
    pub(super) async fn live(&mut self, welcomed: Welcomed) -> Gone {
        let Welcomed { link, welcome } = welcomed;
        let Link { out, mut answers } = link;
        let up = Instant::now();
        let interval = welcome
            .heartbeat_interval_ms
            .clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
        let mut live = Live {
            queue: VecDeque::new(),
            reported: None,
            refused: BTreeMap::new(),
            questions: self.questions.open(),
            identity: self.identity.told(),
            patience: Duration::from_millis(interval.into()) * SILENCES,
            heard: up,
        };
        tracing::info!(
            epoch = welcome.epoch,
            lease_seconds = welcome.lease_seconds,
            "session with the coordinator is up"
        );
        self.desk.welcomed(&welcome, up);
        let mut looks = self.reporter.latest();
        live.report(&mut self.desk, &mut looks);
        live.identity.cas(messages::trust(welcome));
        // What the session before did not carry to its answer.
        live.queue.extend(self.identity.wish().map(messages::renew));
        loop {
            self.pulse.beat();
            let now = Instant::now();
            let room = QUEUE_BOUND.saturating_sub(live.queue.len());
            let todo = self.desk.todo(now, room);
            live.queue.extend(self.perform(todo));
            let silent_at = live.heard + live.patience;
            let due = [Some(silent_at), self.desk.next_due(), Some(now + BEAT)];
            let wake = due.into_iter().flatten().min().unwrap_or(now);
            // Cancel-safe, each: a token, a notification that keeps its permit, a stream, a join set and the watches
            // lose nothing when they are not the first; a permit that was not used goes back.
            // What this side has to say comes before what it hears, so that a flood of messages keeps nothing back;
            // what is due is asked for in each round.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Gone::Stopping,
                Some(job) = self.jobs.join_next() => self.job_done(job),
                // A reporter that is gone ends the process elsewhere; until then this waits for the clock.
                Ok(()) = looks.changed() => live.report(&mut self.desk, &mut looks),
                permit = out.reserve(), if !live.queue.is_empty() => match (permit, live.queue.pop_front()) {
                    (Ok(permit), Some(message)) => permit.send(message),
                    _ => return Gone::After(up.elapsed(), Trouble::Passing("the stream to the coordinator is closed".to_owned())),
                },
                Some(answer) = live.questions.next() => live.answer(answer),
                Some(wish) = self.identity.next_wish() => live.queue.push_back(messages::renew(wish)),
                answer = answers.next() => match answer {
                    Some(Ok(answer)) => live.heard(&mut self.desk, answer),
                    None => return Gone::After(up.elapsed(), Trouble::Passing("the coordinator ended the session".to_owned())),
                    Some(Err(trouble)) => return Gone::After(up.elapsed(), trouble),
                },
                () = self.executor.outbox.said() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            if let Some(line) = live.dead(&self.desk) {
                return Gone::After(up.elapsed(), Trouble::Passing(line));
            }
        }
    }
}

impl Live {
    fn report(&mut self, desk: &mut Desk, looks: &mut watch::Receiver<Observation>) {
        let look = looks.borrow_and_update().clone();
        if let Some(report) = look.report
            && self.reported.as_ref() != Some(&report)
        {
            self.queue.push_back(messages::report(&report));
            self.reported = Some(report);
        }
        desk.reported(look.number);
    }

    /// Why the coordinator is taken for dead, if it is.
    fn dead(&self, desk: &Desk) -> Option<String> {
        if self.heard.elapsed() >= self.patience {
            return Some(format!(
                "the coordinator was silent for {} ms",
                self.patience.as_millis()
            ));
        }
        let waited = desk.unanswered_since()?.elapsed();
        (waited >= ANSWER_DEADLINE).then(|| {
            format!(
                "the coordinator did not answer a proposal within {} s",
                ANSWER_DEADLINE.as_secs()
            )
        })
    }

    fn heard(&mut self, desk: &mut Desk, answer: SessionResponse) {
        let now = Instant::now();
        self.heard = now;
        match answer.message {
            // Two that wait are as good as one, which bounds the queue against a flood.
            Some(Message::Heartbeat(_)) if self.queue.len() < 2 * QUEUE_BOUND => {
                self.queue.push_front(messages::heartbeat());
            }
            Some(Message::Heartbeat(_)) => {}
            Some(Message::Offer(offer)) => desk.offered(offer, now),
            Some(Message::ProposeAnswer(answer)) => desk.proposal_answered(answer, now),
            Some(Message::FinishAnswer(answer)) => desk.finish_answered(&answer),
            Some(Message::Cancel(cancel)) => desk.cancelled(&cancel),
            Some(Message::Ask(ask)) => self.asked(ask),
            Some(Message::ReportAnswer(answer)) => self.report_answered(answer),
            Some(Message::Refused(refused)) => {
                tracing::error!(reason = refused.reason, "the coordinator ends the session");
            }
            Some(Message::RenewAnswer(answer)) => self.identity.answer(answer),
            Some(Message::Trust(trust)) => self.identity.cas(trust),
            Some(Message::Welcome(_)) | None => {
                tracing::warn!("a message that makes no sense here is ignored");
            }
        }
    }

    fn asked(&mut self, ask: Ask) {
        if let Some(answer) = self.questions.take(ask) {
            self.answer(answer);
        }
    }

    fn answer(&mut self, answer: SessionRequest) {
        match self.queue.len() < 2 * QUEUE_BOUND {
            true => self.queue.push_back(answer),
            // Who asks and does not read asks again.
            false => tracing::debug!("an answer is dropped: the coordinator does not read"),
        }
    }

    fn report_answered(&mut self, answer: ReportAnswer) {
        let hypervisors = answer.refused.into_iter();
        let hypervisors = hypervisors.map(|one| ((Reported::Hypervisor, one.id), one.reason));
        let pools = answer.refused_pools.into_iter();
        let pools = pools.map(|one| ((Reported::Pool, one.name), one.reason));
        let refused: BTreeMap<_, _> = hypervisors.chain(pools).collect();
        for (one, reason) in &refused {
            if self.refused.get(one) == Some(reason) {
                continue;
            }
            match one {
                (Reported::Hypervisor, hypervisor) => tracing::error!(
                    hypervisor,
                    reason,
                    "the coordinator does not take one of our hypervisors"
                ),
                (Reported::Pool, pool) => {
                    tracing::error!(pool, reason, "the coordinator does not take one of our pools");
                }
            }
        }
        self.refused = refused;
    }
}
