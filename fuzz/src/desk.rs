//! What a coordinator sends to an agent: a sequence of messages to the desk, with the runs that it starts ending in
//! between.

use std::sync::Arc;
use std::time::Duration;

use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::run::RunEnd;
use hostler_agent::executor::state::{Ending, Outcome};
use hostler_agent::journal::state_dir::StateDir;
use hostler_agent::session::desk::{Desk, Do, RUNNING_BOUND};
use hostler_common::error::Chain;
use hostler_common::id::OperationId;
use hostler_common::operation::Request;
use hostler_common::rpc::hostler::agent::v1::ask::Question;
use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::agent::v1::{SessionResponse, Welcome};
use prost::Message as _;
use prost_types::Any;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{frames, said};

thread_local! {
    static PLACE: (TempDir, Arc<StateDir>) = {
        let dir = TempDir::new().expect("a directory");
        let state_dir = StateDir::open(dir.path()).expect("a state directory");
        (dir, Arc::new(state_dir))
    };
}

/// # Panics
/// When more runs than allowed are started, one twice, or what the agent says is too long.
pub fn run(data: &[u8]) {
    let state_dir = PLACE.with(|(_, state_dir)| Arc::clone(state_dir));
    let mut rig = Rig::new(state_dir);
    for frame in frames::split(data) {
        match SessionResponse::decode(frame) {
            Ok(SessionResponse {
                message: Some(message),
            }) => rig.take(message),
            // The transport ends the session then.
            _ => rig.reconnect(),
        }
        rig.work(frame.len());
    }
    rig.reconnect();
    rig.work(0);
}

struct Rig {
    desk: Desk,
    outbox: Outbox,
    now: Instant,
    looks: u64,
    going: Vec<OperationId>,
}

impl Rig {
    fn new(state_dir: Arc<StateDir>) -> Self {
        let outbox = Outbox::default();
        let host = "h1".parse().expect("a name");
        let desk = Desk::new(host, state_dir, outbox.clone(), CancellationToken::new(), &[]);
        let mut rig = Self {
            desk,
            outbox,
            now: Instant::now(),
            looks: 0,
            going: Vec::new(),
        };
        rig.desk.welcomed(&Welcome::default(), rig.now);
        rig
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Welcome(welcome) => self.desk.welcomed(&welcome, self.now),
            Message::Offer(offer) => {
                offer.request.iter().for_each(understood);
                self.desk.offered(offer, self.now);
            }
            Message::ProposeAnswer(answer) => self.desk.proposal_answered(answer, self.now),
            Message::FinishAnswer(answer) => self.desk.finish_answered(&answer),
            Message::Cancel(cancel) => self.desk.cancelled(&cancel),
            Message::Ask(ask) => {
                if let Some(Question::DryRun(request)) = &ask.question {
                    understood(request);
                }
            }
            Message::Refused(_) => self.reconnect(),
            // Nothing of the desk's: it holds no certificate.
            Message::RenewAnswer(_)
            | Message::Trust(_)
            | Message::Heartbeat(_)
            | Message::ReportAnswer(_) => {}
        }
    }

    fn reconnect(&mut self) {
        let left = self.desk.disconnected();
        self.act(left);
        self.desk.welcomed(&Welcome::default(), self.now);
    }

    /// Does what is due, and lets a run end now and then.
    fn work(&mut self, dice: usize) {
        self.now += Duration::from_millis(700);
        if dice.is_multiple_of(3)
            && let Some(operation) = self.going.pop()
        {
            self.outbox.say(operation, "step 1/1: look".to_owned());
            let ending = Ending {
                outcome: Outcome::Done,
                message: "done".to_owned(),
            };
            let end = match dice % 2 {
                0 => RunEnd::Ended(ending),
                _ => RunEnd::Halted,
            };
            self.looks += 1;
            self.desk.run_ended(operation, end, self.looks, self.now);
            self.desk.reported(self.looks);
        }
        self.desk.next_due();
        self.desk.unanswered_since();
        let todo = self.desk.todo(self.now, 8);
        self.act(todo);
        self.desk.hello();
    }

    fn act(&mut self, todo: Vec<Do>) {
        for action in todo {
            match action {
                Do::Send(request) => {
                    let bytes = request.encoded_len();
                    assert!(bytes < 8192, "the agent sends {bytes} bytes for a few");
                }
                Do::Start { accepted, .. } => {
                    assert!(
                        !self.going.contains(&accepted.operation),
                        "one operation runs twice"
                    );
                    self.going.push(accepted.operation);
                    assert!(
                        self.going.len() <= RUNNING_BOUND,
                        "more runs than the host has places"
                    );
                }
                Do::Drop { operation, .. } => self.desk.dropped(operation, self.now),
            }
        }
    }
}

fn understood(request: &Any) {
    if let Err(error) = Request::of(request) {
        said::bounded(&Chain(&error).to_string());
    }
}
