//! A simulated agent: it speaks `hostler.agent.v1` as a real one does, and only pretends to do the work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hostler_common::operation::{Cancelling, Request, Subject};
use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::rpc::hostler::agent::v1::agent_service_client::AgentServiceClient;
use hostler_common::rpc::hostler::agent::v1::{session_request, session_response};
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::fleet::Fleet;
use crate::wait;

/// What a simulated agent does with an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes it, says so, and is done.
    Completes,
    /// Takes it and fails with these words, all undone.
    Fails(String),
    /// Takes it and reports that nobody knows what is true.
    NeedsAttention,
    /// Takes it and never says anything again about it.
    Holds,
    /// Takes it and renews until it is cancelled, which it then says to have undone.
    Renews,
    /// Ignores it.
    Ignores,
}

/// What the test and the agent share.
#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    in_service: BTreeMap<String, bool>,
    pools: BTreeMap<String, rpc::PoolReport>,
    backups: Vec<rpc::Backup>,
    /// What it answers every question with.
    refusal: Option<String>,
    /// The operations that it holds, with their fences.
    held: BTreeMap<String, u64>,
    report: rpc::Inventory,
    answers_heartbeats: bool,
    /// The behaviour has changed since the last heartbeat.
    changed: bool,
}

/// A running agent.
pub struct SimulatedAgent {
    shared: Arc<Mutex<Shared>>,
    outbound: mpsc::Sender<rpc::SessionRequest>,
    received: watch::Receiver<Vec<session_response::Message>>,
    task: JoinHandle<()>,
    /// Its proposing_peer_token.
    pub token: String,
}

/// What an agent is made of.
pub struct Setup {
    /// The host of its certificate.
    pub host: String,
    /// What its Hello says; the same unless a test lies.
    pub hello_host: String,
    /// Its hypervisors.
    pub hypervisors: Vec<String>,
    /// Its storage pools.
    pub pools: Vec<String>,
    /// What it does with offers.
    pub behaviour: Behaviour,
    /// The protocol that its Hello says.
    pub protocol: u32,
    /// Operations of its journal.
    pub journaled: Vec<String>,
    /// Its token.
    pub token: String,
}

impl Setup {
    /// An agent of `host` that completes everything.
    pub fn of(host: &str, hypervisors: &[&str]) -> Self {
        Self {
            host: host.to_owned(),
            hello_host: host.to_owned(),
            hypervisors: hypervisors.iter().map(ToString::to_string).collect(),
            pools: Vec::new(),
            behaviour: Behaviour::Completes,
            protocol: 1,
            journaled: Vec::new(),
            token: hostler_common::id::ProcessToken::generate().to_string(),
        }
    }

    /// The same with another behaviour.
    #[must_use]
    pub fn that(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// The same with a storage pool of [`SIZE`] bytes, [`SPARE`] more to take.
    #[must_use]
    pub fn pool(mut self, name: &str) -> Self {
        self.pools.push(name.to_owned());
        self
    }

    /// Starts it; it connects once.
    pub async fn start(self, fleet: &Fleet) -> SimulatedAgent {
        let channel = fleet.channel(&format!("agent/{}", self.host));
        SimulatedAgent::start(self, channel).await
    }
}

impl SimulatedAgent {
    /// Starts one over a channel with an agent's certificate.
    pub async fn over(setup: Setup, channel: Channel) -> Self {
        Self::start(setup, channel).await
    }

    async fn start(setup: Setup, channel: Channel) -> Self {
        let (outbound, requests) = mpsc::channel(64);
        let shared = Arc::new(Mutex::new(Shared {
            behaviour: setup.behaviour.clone(),
            in_service: setup.hypervisors.iter().map(|id| (id.clone(), false)).collect(),
            pools: setup
                .pools
                .iter()
                .map(|name| (name.clone(), pool(name)))
                .collect(),
            backups: Vec::new(),
            refusal: None,
            held: BTreeMap::new(),
            report: rpc::Inventory {
                cpu_threads: 8,
                memory_mb: 16_384,
                ..Default::default()
            },
            answers_heartbeats: true,
            changed: false,
        }));
        let (record, received) = watch::channel(Vec::new());
        let hello = rpc::Hello {
            host: setup.hello_host.clone(),
            agent_version: hostler_common::VERSION.to_owned(),
            process_token: setup.token.clone(),
            journaled_operation_ids: setup.journaled.clone(),
            protocol: setup.protocol,
        };
        outbound
            .send(request(session_request::Message::Hello(hello)))
            .await
            .expect("room for Hello");
        let life = Life {
            shared: shared.clone(),
            outbound: outbound.clone(),
            record,
            token: setup.token.clone(),
            taken: BTreeMap::new(),
            proposals: 0,
        };
        let task = tokio::spawn(life.run(channel, requests));
        Self {
            shared,
            outbound,
            received,
            task,
            token: setup.token,
        }
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().expect("not poisoned")
    }

    /// From now on it does this with offers.
    pub fn behave(&self, behaviour: Behaviour) {
        let mut shared = self.shared();
        shared.behaviour = behaviour;
        shared.changed = true;
    }

    /// From now on it answers every question with these words.
    pub fn refuse(&self, words: &str) {
        self.shared().refusal = Some(words.to_owned());
    }

    /// The backups that it lists.
    pub fn keep_backups(&self, backups: Vec<rpc::Backup>) {
        self.shared().backups = backups;
    }

    /// Reports a pool anew.
    pub async fn report_pool(&self, pool: rpc::PoolReport) {
        self.shared().pools.insert(pool.name.clone(), pool);
        let report = report(&self.shared());
        self.send(session_request::Message::Report(report)).await;
    }

    /// Says of every operation that it holds how far it is.
    pub async fn measure(&self, measure: &rpc::Measure) {
        let held = self.shared().held.clone();
        for (operation_id, fence) in held {
            self.send(session_request::Message::Measured(rpc::Measured {
                operation_id,
                fence,
                measure: Some(measure.clone()),
            }))
            .await;
        }
    }

    /// Waits until it holds so many operations.
    pub async fn until_holds(&self, count: usize) {
        wait::until(&format!("it holds {count} operations"), || async {
            (self.shared().held.len() == count).then_some(())
        })
        .await;
    }

    /// From now on it answers nothing by itself.
    pub fn fall_silent(&self) {
        self.shared().answers_heartbeats = false;
    }

    /// Reports another inventory.
    pub async fn report(&self, inventory: rpc::Inventory) {
        self.shared().report = inventory;
        let report = report(&self.shared());
        self.send(session_request::Message::Report(report)).await;
    }

    /// Sends anything.
    ///
    /// # Panics
    /// When its session has ended.
    pub async fn send(&self, message: session_request::Message) {
        self.outbound
            .send(request(message))
            .await
            .expect("the session lives");
    }

    /// The same; false when its session has ended.
    pub async fn try_send(&self, message: session_request::Message) -> bool {
        self.outbound.send(request(message)).await.is_ok()
    }

    /// Waits for a message of the coordinator.
    pub async fn until<T>(&self, what: &str, find: impl Fn(&session_response::Message) -> Option<T>) -> T {
        wait::until(what, || async { self.received.borrow().iter().find_map(&find) }).await
    }

    /// What `find` finds in each message so far.
    pub fn all<T>(&self, find: impl Fn(&session_response::Message) -> Option<T>) -> Vec<T> {
        self.received.borrow().iter().filter_map(find).collect()
    }

    /// How many messages so far are such.
    pub fn count(&self, is: impl Fn(&session_response::Message) -> bool) -> usize {
        self.all(|message| is(message).then_some(())).len()
    }

    /// The offers so far.
    pub fn offers(&self) -> Vec<rpc::Offer> {
        let received = self.received.borrow();
        let offers = received.iter().filter_map(|message| match message {
            session_response::Message::Offer(offer) => Some(offer.clone()),
            _ => None,
        });
        offers.collect()
    }

    /// Waits until the coordinator has ended its stream.
    pub async fn until_ended(&self) {
        wait::until("the session ends", || async {
            self.task.is_finished().then_some(())
        })
        .await;
    }

    /// Dies at once, as by SIGKILL.
    pub fn kill(self) {
        self.task.abort();
    }
}

impl Drop for SimulatedAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn request(message: session_request::Message) -> rpc::SessionRequest {
    rpc::SessionRequest {
        message: Some(message),
    }
}

fn report(shared: &Shared) -> rpc::HostReport {
    let hypervisors = shared
        .in_service
        .iter()
        .map(|(id, in_service)| rpc::HypervisorReport {
            id: id.clone(),
            kind: rpc::HypervisorKind::Host.into(),
            observed: match in_service {
                true => rpc::Observed::InService.into(),
                false => rpc::Observed::OutOfService.into(),
            },
            detail: String::new(),
            inventory: Some(shared.report.clone()),
        });
    rpc::HostReport {
        inventory: Some(shared.report.clone()),
        hypervisors: hypervisors.collect(),
        pools: shared.pools.values().cloned().collect(),
    }
}

/// The size of a simulated pool, in bytes.
pub const SIZE: u64 = 100 << 30;

/// What a simulated pool can still take, in bytes.
pub const SPARE: u64 = 50 << 30;

fn pool(name: &str) -> rpc::PoolReport {
    rpc::PoolReport {
        name: name.to_owned(),
        backend: "memory".to_owned(),
        path: format!("/srv/{name}"),
        size_bytes: SIZE,
        used_bytes: 10 << 30,
        spare_bytes: SPARE,
        reserve_percent: 10,
        smallest_bytes: 12 << 30,
        devices: vec![rpc::PoolDevice {
            path: "/dev/simulated".to_owned(),
            role: rpc::DeviceRole::Member.into(),
            capacity_bytes: SIZE,
            share_bytes: SIZE,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn asked(offer: &rpc::Offer) -> Request {
    let request = offer.request.clone().unwrap_or_default();
    Request::of(&request).expect("an offer is understood")
}

/// What is true after an operation.
fn pretend(shared: &mut Shared, offer: &rpc::Offer) {
    let request = asked(offer);
    if request.kind().subject() == Subject::Hypervisor {
        let in_service = matches!(request, Request::CreateHypervisor(_));
        shared.in_service.insert(offer.resource.clone(), in_service);
        return;
    }
    let Some(pool) = shared.pools.get_mut(&offer.resource) else {
        return;
    };
    match request {
        Request::ExpandStorage { min } => {
            pool.size_bytes += min.0;
            pool.spare_bytes -= min.0;
        }
        Request::ShrinkStorage { max } => {
            let gives = max.0.min(pool.size_bytes - pool.smallest_bytes);
            pool.size_bytes -= gives;
            pool.spare_bytes += gives;
        }
        Request::CreateBackup => {
            let number = shared.backups.len();
            shared.backups.push(rpc::Backup {
                id: format!("{number:064x}"),
                operation_id: offer.operation_id.clone(),
                ..Default::default()
            });
        }
        _ => {}
    }
}

fn answer(shared: &Shared, ask: &rpc::Ask) -> rpc::ask_answer::Answer {
    use rpc::ask::Question;
    use rpc::ask_answer::Answer;
    if let Some(words) = &shared.refusal {
        return Answer::Refused(words.clone());
    }
    match &ask.question {
        Some(Question::ListBackups(_)) => Answer::ListBackups(rpc::ListBackupsAnswer {
            backups: shared.backups.clone(),
        }),
        Some(Question::DryRun(request)) => {
            let request = Request::of(request).expect("a question is understood");
            Answer::DryRun(rpc::DryRunAnswer {
                lines: vec!["look at the devices".to_owned(), "use them".to_owned()],
                outcome: format!("would {} {}", request.kind().verb(), ask.pool),
                size_change_bytes: 0,
            })
        }
        None => Answer::Refused("no question".to_owned()),
    }
}

struct Life {
    shared: Arc<Mutex<Shared>>,
    outbound: mpsc::Sender<rpc::SessionRequest>,
    record: watch::Sender<Vec<session_response::Message>>,
    token: String,
    /// The offers that it has proposed for, by the number of the proposal.
    taken: BTreeMap<u64, rpc::Offer>,
    proposals: u64,
}

impl Life {
    async fn run(mut self, channel: Channel, requests: mpsc::Receiver<rpc::SessionRequest>) {
        let stream = AgentServiceClient::new(channel)
            .session(ReceiverStream::new(requests))
            .await;
        let Ok(stream) = stream else { return };
        let mut stream = stream.into_inner();
        while let Ok(Some(rpc::SessionResponse {
            message: Some(message),
        })) = stream.message().await
        {
            self.record.send_modify(|all| all.push(message.clone()));
            self.answer(message).await;
        }
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().expect("not poisoned")
    }

    async fn send(&self, message: session_request::Message) {
        // An error means that the session has ended.
        let _ = self.outbound.send(request(message)).await;
    }

    fn behaviour(&self) -> Behaviour {
        self.shared().behaviour.clone()
    }

    fn behaves_anew(&self) -> bool {
        std::mem::take(&mut self.shared().changed)
    }

    async fn answer(&mut self, message: session_response::Message) {
        use session_response::Message;
        match message {
            Message::Welcome(_) => self.report().await,
            Message::Heartbeat(_) => {
                if self.shared().answers_heartbeats {
                    self.send(session_request::Message::Heartbeat(rpc::Heartbeat {}))
                        .await;
                }
                // The answer to a renewal is where a change of behaviour takes hold.
                if self.behaviour() == Behaviour::Renews || self.behaves_anew() {
                    for (number, offer) in &self.taken {
                        self.propose(*number, offer, "").await;
                    }
                }
            }
            Message::Offer(offer) => {
                let known = self
                    .taken
                    .values()
                    .any(|taken| taken.operation_id == offer.operation_id);
                if self.behaviour() != Behaviour::Ignores && !known {
                    self.proposals += 1;
                    self.propose(self.proposals, &offer, "taken").await;
                    self.taken.insert(self.proposals, offer);
                }
            }
            Message::ProposeAnswer(answer) if answer.accepted => {
                if let Some(offer) = self.taken.get(&answer.request_id) {
                    let id = offer.operation_id.clone();
                    self.shared().held.insert(id, answer.fence);
                }
                self.work(answer).await;
            }
            Message::Cancel(cancel) if self.behaviour() == Behaviour::Renews => {
                let fence = self.shared().held.get(&cancel.operation_id).copied();
                if let Some(fence) = fence {
                    self.taken
                        .retain(|_, offer| offer.operation_id != cancel.operation_id);
                    let message = format!("cancelled by {}; undone", cancel.by);
                    self.finish(cancel.operation_id, fence, rpc::Outcome::Failed, message)
                        .await;
                }
            }
            Message::Ask(ask) => {
                let answer = answer(&self.shared(), &ask);
                self.send(session_request::Message::AskAnswer(rpc::AskAnswer {
                    request_id: ask.request_id,
                    answer: Some(answer),
                }))
                .await;
            }
            Message::Cancel(_)
            | Message::ProposeAnswer(_)
            | Message::Refused(_)
            | Message::FinishAnswer(_)
            | Message::ReportAnswer(_)
            | Message::RenewAnswer(_)
            | Message::Trust(_) => {}
        }
    }

    async fn report(&self) {
        let report = report(&self.shared());
        self.send(session_request::Message::Report(report)).await;
    }

    async fn propose(&self, number: u64, offer: &rpc::Offer, log: &str) {
        let proposal = ProposeOperationRequest {
            name: offer.resource.clone(),
            project: "default".to_owned(),
            lock_for_seconds: 2,
            log_message: log.to_owned(),
            is_disabled_cancel: asked(offer).kind().cancelling() == Cancelling::Disabled,
            proposing_peer_token: self.token.clone(),
        };
        self.send(session_request::Message::Propose(rpc::Propose {
            request_id: number,
            operation_id: offer.operation_id.clone(),
            proposal: Some(proposal),
            fence: 0,
            newest_fence: 0,
        }))
        .await;
    }

    async fn work(&mut self, answer: rpc::ProposeAnswer) {
        let (outcome, message) = match self.behaviour() {
            Behaviour::Completes => (rpc::Outcome::Done, "done".to_owned()),
            Behaviour::Fails(why) => (rpc::Outcome::Failed, why),
            Behaviour::NeedsAttention => (rpc::Outcome::NeedsAttention, "an undo failed".to_owned()),
            Behaviour::Holds | Behaviour::Renews | Behaviour::Ignores => return,
        };
        if let Some(offer) = self.taken.remove(&answer.request_id) {
            if outcome == rpc::Outcome::Done {
                pretend(&mut self.shared(), &offer);
                self.report().await;
            }
            self.finish(offer.operation_id, answer.fence, outcome, message)
                .await;
        }
    }

    async fn finish(&self, operation_id: String, fence: u64, outcome: rpc::Outcome, message: String) {
        self.shared().held.remove(&operation_id);
        self.send(session_request::Message::Finish(rpc::Finish {
            operation_id,
            fence,
            outcome: outcome.into(),
            message,
            process_token: self.token.clone(),
        }))
        .await;
    }
}
