//! The network between agents and the coordinator: streams of whole messages, in order, late, cut or held back.
//!
//! A stream keeps its order, as TCP and HTTP/2 do. What is simulated: latency and its spikes; partitions of either
//! direction, behind which messages wait as in a kernel's buffers; resets, which lose what is under way; machines that
//! vanish without a word, whose streams stay half open; messages that come twice; and the last messages of an old
//! stream that arrive beside those of a new one. What is not: loss or reordering inside a stream, bytes, TLS.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_agent::session::dial::{Link, OUT_BOUND, Trouble};
use hostler_common::id::HostName;
use hostler_common::rpc::hostler::agent::v1::{
    SessionRequest, SessionResponse, session_request, session_response,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::coordinator::Coordinator;
use super::scenario::LATE_TIMES;
use super::witness::Witness;
use super::world::World;

/// Messages that a direction holds before the sender has to wait.
const WINDOW: usize = 64;

/// How long a connection is tried.
const CONNECT: Duration = Duration::from_secs(10);

/// The line of one host.
struct Line {
    /// Whether messages pass: to the coordinator, to the agent.
    up: watch::Sender<bool>,
    down: watch::Sender<bool>,
    streams: Vec<Ends>,
}

/// Ways for a stream to end.
#[derive(Clone, Default)]
struct Ends {
    /// Both sides hear of it.
    reset: CancellationToken,
    /// Nobody does: nothing arrives any more.
    vanish: CancellationToken,
}

/// Clones share it.
#[derive(Clone)]
pub(super) struct Network {
    world: World,
    witness: Witness,
    lines: Arc<Mutex<BTreeMap<HostName, Line>>>,
    /// Latencies are so many times as long.
    slowness: Arc<Mutex<u64>>,
}

/// A direction that may be shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the coordinator.
    Up,
    /// To the agent.
    Down,
    /// Either.
    Both,
}

impl Network {
    /// Open lines.
    pub(super) fn new(world: &World, witness: &Witness) -> Self {
        Self {
            world: world.clone(),
            witness: witness.clone(),
            lines: Arc::default(),
            slowness: Arc::new(Mutex::new(1)),
        }
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<HostName, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line<T>(&self, host: &HostName, act: impl FnOnce(&mut Line) -> T) -> T {
        let mut lines = self.lines();
        let line = lines.entry(host.clone()).or_insert_with(|| Line {
            up: watch::Sender::new(true),
            down: watch::Sender::new(true),
            streams: Vec::new(),
        });
        act(line)
    }

    /// Opens or shuts the line of `host`.
    pub(super) fn set_open(&self, host: &HostName, direction: Direction, open: bool) {
        self.line(host, |line| {
            if direction != Direction::Down {
                line.up.send_replace(open);
            }
            if direction != Direction::Up {
                line.down.send_replace(open);
            }
        });
    }

    /// Cuts the streams of `host`; both sides hear of it.
    pub(super) fn reset(&self, host: &HostName) {
        let streams = self.line(host, |line| std::mem::take(&mut line.streams));
        streams.iter().for_each(|ends| ends.reset.cancel());
    }

    /// The streams of `host` stay open and carry nothing any more: one of the machines has vanished.
    pub(super) fn vanish(&self, host: &HostName) {
        let streams = self.line(host, |line| std::mem::take(&mut line.streams));
        streams.iter().for_each(|ends| ends.vanish.cancel());
    }

    /// Makes latencies so many times as long.
    pub(super) fn slow(&self, times: u64) {
        *self.slowness.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    /// One way of one message.
    pub(super) fn latency(&self) -> Duration {
        let (low, high) = self.world.scenario().latency_ms;
        let times = *self.slowness.lock().unwrap_or_else(PoisonError::into_inner);
        let once = self.world.roll(|dice| dice.millis(low, high + 1));
        match self.world.strikes(5) {
            true => once * LATE_TIMES,
            false => once * u32::try_from(times).unwrap_or(1),
        }
    }

    /// Connects the agent of `host` with the coordinator, and says hello.
    pub(super) async fn connect(
        self,
        host: HostName,
        coordinator: Coordinator,
        hello: SessionRequest,
    ) -> Result<Link, Trouble> {
        let passing = |words: &str| Trouble::Passing(words.to_owned());
        sleep(self.latency() * 2).await;
        let (mut up, mut down) = self.line(&host, |line| (line.up.subscribe(), line.down.subscribe()));
        let reachable = async {
            let _ = up.wait_for(|open| *open).await;
            let _ = down.wait_for(|open| *open).await;
        };
        timeout(CONNECT, reachable)
            .await
            .map_err(|_| passing("it does not answer"))?;
        let (to_coordinator, inbound) = mpsc::channel::<Result<SessionRequest, Status>>(1);
        let from = format!("host {host}");
        let responses = coordinator.open_session(host.clone(), from, ReceiverStream::new(inbound));
        let responses = responses.ok_or_else(|| passing("nobody listens there"))?;
        let (out, requests) = mpsc::channel(OUT_BOUND);
        let _ = out.try_send(hello);
        let (to_agent, answers) = mpsc::channel::<Result<SessionResponse, Trouble>>(1);
        let ends = Ends::default();
        let (up, down) = self.line(&host, |line| {
            line.streams.retain(|ends| !ends.reset.is_cancelled());
            line.streams.push(ends.clone());
            (line.up.subscribe(), line.down.subscribe())
        });
        let named = host.clone();
        let witness = self.witness.clone();
        tokio::spawn(self.clone().carry(
            ReceiverStream::new(requests),
            to_coordinator,
            (up, ends.clone()),
            move |message: &SessionRequest| witness.hears(&named, message),
            || Status::unavailable("reset"),
        ));
        tokio::spawn(self.clone().carry(
            responses,
            to_agent,
            (down, ends),
            |_| (),
            || Trouble::Passing("reset".to_owned()),
        ));
        self.world.count("sessions opened");
        Ok(Link {
            out,
            answers: Box::pin(ReceiverStream::new(answers)),
        })
    }

    /// One direction of a stream. It outlives both of its ends, as the kernel's part of a connection does.
    async fn carry<T: Clone + Describe, E>(
        self,
        mut from: impl Stream<Item = T> + Unpin,
        to: mpsc::Sender<Result<T, E>>,
        (mut open, ends): (watch::Receiver<bool>, Ends),
        seen: impl Fn(&T),
        broken: impl Fn() -> E,
    ) {
        let mut under_way: VecDeque<(Instant, Option<T>)> = VecDeque::new();
        let (mut last, mut more) = (Instant::now(), true);
        loop {
            let due = under_way.front().map(|(at, _)| *at);
            let arriving = async {
                sleep_until(due.unwrap_or(last)).await;
                let _ = open.wait_for(|open| *open).await;
            };
            tokio::select! {
                biased;
                () = ends.vanish.cancelled() => {
                    // The receiver sees nothing at all until it gives up by itself.
                    to.closed().await;
                    return;
                }
                () = ends.reset.cancelled() => {
                    let _ = to.send(Err(broken())).await;
                    return;
                }
                () = arriving, if due.is_some() => match under_way.pop_front() {
                    Some((_, Some(message))) => {
                        seen(&message);
                        // A receiver that has hung up hears nothing; its own end is on its way the other way.
                        let _ = ends.reset.run_until_cancelled(to.send(Ok(message))).await;
                    }
                    _ => return,
                },
                message = from.next(), if more && under_way.len() < WINDOW => {
                    last = last.max(Instant::now() + self.latency());
                    if let Some(message) = &message {
                        self.world.count("messages");
                        self.world.note(message.describe());
                        if self.world.strikes(self.world.scenario().twice) && message.may_come_twice() {
                            self.world.count("messages that came twice");
                            under_way.push_back((last, Some(message.clone())));
                        }
                    }
                    more = message.is_some();
                    under_way.push_back((last, message));
                }
            }
        }
    }
}

/// What the trace says of a message.
trait Describe {
    fn describe(&self) -> String;
    /// All but what opens a stream: it is known to come once.
    fn may_come_twice(&self) -> bool;
}

impl Describe for SessionRequest {
    fn describe(&self) -> String {
        use session_request::Message;
        match &self.message {
            Some(Message::Report(report)) => format!(
                "  ▲ report {:?}",
                report
                    .hypervisors
                    .iter()
                    .map(|one| (&*one.id, one.observed))
                    .collect::<Vec<_>>()
            ),
            Some(other) => format!("  ▲ {other:?}"),
            None => "  ▲ nothing".to_owned(),
        }
    }

    fn may_come_twice(&self) -> bool {
        !matches!(self.message, Some(session_request::Message::Hello(_)))
    }
}

impl Describe for SessionResponse {
    fn describe(&self) -> String {
        match &self.message {
            Some(session_response::Message::Offer(offer)) => format!(
                "  ▼ offer {} on {} fence {} attempt {}",
                offer.operation_id, offer.resource, offer.fence, offer.attempt
            ),
            other => format!("  ▼ {other:?}"),
        }
    }

    fn may_come_twice(&self) -> bool {
        use session_response::Message;
        !matches!(self.message, Some(Message::Welcome(_) | Message::Refused(_)))
    }
}
