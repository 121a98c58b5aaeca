//! The coordinator as a process that starts, serves, crashes and starts again on the same keys.
//!
//! All of it is the product's but the port, the disk and the network: what is called is called in its tasks, which die
//! with it. Invariant: nothing of a process runs after its crash.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_common::id::HostName;
use hostler_common::rpc::hostler::agent::v1::{SessionRequest, SessionResponse};
use hostler_coordinator::api::fleet::Fleet;
use hostler_coordinator::api::operations::Operations;
use hostler_coordinator::identity::connections::Life;
use hostler_coordinator::session::service::SessionService;
use hostler_coordinator::store::memory::{self, Act, Keys};
use hostler_coordinator::wiring::{self, Assembly};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Response, Status};

use super::witness::Witness;
use super::world::World;

/// What clients call.
#[derive(Clone)]
pub(super) struct Api {
    /// operations.v1.
    pub(super) operations: Operations,
    /// hostler.fleet.v1.
    pub(super) fleet: Fleet,
}

/// Clones share it.
#[derive(Clone)]
pub(super) struct Coordinator {
    world: World,
    witness: Witness,
    keys: Keys,
    process: Arc<Mutex<Option<Process>>>,
    /// Commits are refused until then.
    full_until: Arc<Mutex<Option<Instant>>>,
}

struct Process {
    api: Api,
    sessions: SessionService,
    background: JoinSet<()>,
    /// The store's engine, sessions, calls.
    tasks: JoinSet<()>,
    since: Instant,
}

impl Coordinator {
    /// Not started.
    pub(super) fn new(world: &World, witness: &Witness, keys: &Keys) -> Self {
        Self {
            world: world.clone(),
            witness: witness.clone(),
            keys: keys.clone(),
            process: Arc::default(),
            full_until: Arc::default(),
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts on what the keys hold.
    pub(super) async fn start(&self) {
        let (store, serving) = memory::open(&self.keys, self.conductor());
        let mut tasks = JoinSet::new();
        tasks.spawn(serving);
        let config = &self.world.scenario().config;
        let (connections, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let assembled = wiring::assemble(config, store, &connections, &shutdown).await;
        let Assembly {
            services, background, ..
        } = match assembled {
            Ok(assembly) => assembly,
            Err(error) => {
                self.world
                    .broke("invariant_what_is_stored_can_be_loaded", format!("{error:#}"));
                return;
            }
        };
        self.world.note("the coordinator serves");
        *self.process() = Some(Process {
            api: Api {
                operations: services.operations,
                fleet: services.fleet,
            },
            sessions: services.sessions,
            background,
            tasks,
            since: Instant::now(),
        });
    }

    /// Ends at once.
    pub(super) async fn crash(&self) {
        let process = self.process().take();
        if let Some(mut process) = process {
            self.world.note("the coordinator crashes");
            self.check(&mut process);
            process.background.shutdown().await;
            process.tasks.shutdown().await;
        }
    }

    /// Since when it serves; None when it does not.
    pub(super) fn since(&self) -> Option<Instant> {
        self.process().as_ref().map(|process| process.since)
    }

    /// A task that ends by itself would end the process.
    pub(super) fn check_tasks(&self) {
        if let Some(process) = &mut *self.process() {
            self.check(process);
            while let Some(ended) = process.tasks.try_join_next() {
                if let Err(error) = ended {
                    self.world
                        .broke("invariant_no_task_dies", format!("the coordinator's: {error}"));
                }
            }
        }
    }

    fn check(&self, process: &mut Process) {
        if let Some(ended) = process.background.try_join_next() {
            self.world
                .broke("invariant_no_task_dies", format!("the coordinator's: {ended:?}"));
        }
    }

    /// Refuses commits for so long.
    pub(super) fn fill_disk(&self, lasting: Duration) {
        *self.full_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + lasting);
    }

    fn is_full(&self) -> bool {
        let until = *self.full_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| until > Instant::now()) && !self.world.is_calm()
    }

    fn conductor(&self) -> memory::Conductor {
        let this = self.clone();
        let (low, high) = this.world.scenario().commit_ms;
        Arc::new(move |act| match act {
            Act::Write if this.is_full() => {
                this.world.count("commits that were refused");
                Err("no space left".to_owned())
            }
            Act::Write => Ok(this.world.roll(|dice| dice.millis(low, high))),
            Act::Written(events) => {
                this.witness.committed(events);
                Ok(this.world.roll(|dice| dice.millis(0, high / 4 + 1)))
            }
            Act::Read => Ok(Duration::ZERO),
        })
    }

    /// Serves a stream of `host`; None when there is no process.
    pub(super) fn open_session<S>(
        &self,
        host: HostName,
        from: String,
        inbound: S,
    ) -> Option<ReceiverStream<SessionResponse>>
    where
        S: Stream<Item = Result<SessionRequest, Status>> + Send + Unpin + 'static,
    {
        let mut process = self.process();
        let process = process.as_mut()?;
        let (responses, serving) = process.sessions.open(host, from, Life::unbounded(), inbound);
        process.tasks.spawn(serving);
        Some(responses)
    }

    /// Calls it; None when it is not there, or no more when it should answer.
    pub(super) async fn call<T, F>(&self, call: impl FnOnce(Api) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let latency = self.client_latency();
        {
            let mut process = self.process();
            let process = process.as_mut()?;
            let calling = call(process.api.clone());
            process.tasks.spawn(async move {
                sleep(latency).await;
                let _ = answer.send(calling.await);
            });
        }
        let answer = answered.await.ok();
        sleep(latency).await;
        answer
    }

    /// Calls it and reads the stream that it answers with. The stream breaks with its process, and a reader that goes
    /// away ends it.
    pub(super) async fn stream<R, S, F>(
        &self,
        call: impl FnOnce(Api) -> F,
    ) -> Option<Result<mpsc::Receiver<Result<R, Status>>, Status>>
    where
        R: Send + 'static,
        S: Stream<Item = Result<R, Status>> + Send + Unpin + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        let mut responses = match self.call(call).await? {
            Ok(response) => response.into_inner(),
            Err(status) => return Some(Err(status)),
        };
        let (tell, told) = mpsc::channel(4);
        let latency = self.client_latency();
        let mut process = self.process();
        let process = process.as_mut()?;
        process.tasks.spawn(async move {
            while let Some(item) = responses.next().await {
                sleep(latency).await;
                if tell.send(item).await.is_err() {
                    return;
                }
            }
        });
        Some(Ok(told))
    }

    fn client_latency(&self) -> Duration {
        let (low, high) = self.world.scenario().latency_ms;
        self.world.roll(|dice| dice.millis(low, high + 1))
    }
}
