//! People and programs that want things: they create, destroy, cancel, lock, look, hang up and come back.
//!
//! They know only what they read. Invariant: what a client reads is handed to the witness before it is acted on.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetService as _;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_server::OperationsService as _;
use hostler_coordinator::api::listener::Peer;
use hostler_coordinator::identity::connections::Life;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Status};

use super::absences::Absences;
use super::coordinator::Coordinator;
use super::witness::Witness;
use super::world::World;

/// One client.
#[derive(Clone)]
pub(super) struct Client {
    /// Its name, in its certificate.
    pub(super) name: String,
    /// Where all is noted.
    pub(super) world: World,
    /// What it calls.
    pub(super) coordinator: Coordinator,
    /// Who reads what it reads.
    pub(super) witness: Witness,
    /// Which hosts are away.
    pub(super) absences: Absences,
    /// Every hypervisor that there will be.
    pub(super) hypervisors: Vec<String>,
}

/// What one kind of stream says.
type Words = mpsc::Receiver<Result<(rpc::OperationState, String), Status>>;

/// The operation that a line names, as `operation 0192…: create …`.
fn named(line: &str) -> Option<OperationId> {
    let (_, after) = line.split_once("operation ")?;
    after.get(..36)?.parse().ok()
}

macro_rules! follow {
    ($self:ident, $service:ident, $method:ident, $request:expr) => {{
        let request = $self.request($request);
        let call = |api: super::coordinator::Api| async move { api.$service.$method(request).await };
        let stream = $self.coordinator.stream(call).await;
        match stream {
            Some(Ok(mut items)) => {
                let (tell, told) = mpsc::channel(1);
                let reading = async move {
                    while let Some(item) = items.recv().await {
                        let item = item.map(|said| (said.state(), said.msg));
                        if tell.send(item).await.is_err() {
                            return;
                        }
                    }
                    drop(tell);
                    std::future::pending().await
                };
                // Who reads no more hangs up.
                tokio::select! {
                    biased;
                    () = $self.read(told) => {}
                    () = reading => {}
                }
                Some(Ok(()))
            }
            Some(Err(status)) => Some(Err(status)),
            None => None,
        }
    }};
}

impl Client {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let identity = format!("spiffe://simulation.test/client/admin/{}", self.name);
        request.extensions_mut().insert(Peer {
            identity: identity.parse().expect("an identity"),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            life: Life::unbounded(),
        });
        request
    }

    /// Wants things until all is calm.
    pub(super) async fn run(self) {
        while !self.world.is_calm() {
            let think = self.world.scenario().think_ms;
            let wait = self.world.roll(|dice| dice.millis(0, think));
            sleep(wait).await;
            match self.world.roll(|dice| dice.index(20)) {
                0..6 => self.create().await,
                6..11 => self.destroy().await,
                11..13 => self.bulk().await,
                13 => self.lock().await,
                14..16 => self.cancel().await,
                16..18 => self.list().await,
                18 => self.watch().await,
                _ => self.look().await,
            }
        }
    }

    fn hypervisor(&self) -> String {
        self.world.roll(|dice| dice.pick(&self.hypervisors).clone())
    }

    async fn create(&self) {
        let id = self.hypervisor();
        self.world.note(format!("{} creates {id}", self.name));
        let _ = follow!(
            self,
            operations,
            create_hypervisor,
            rpc::CreateHypervisorRequest { id }
        );
    }

    async fn destroy(&self) {
        let id = self.hypervisor();
        self.world.note(format!("{} destroys {id}", self.name));
        let _ = follow!(
            self,
            operations,
            destroy_hypervisor,
            rpc::DestroyHypervisorRequest { id }
        );
    }

    async fn bulk(&self) {
        let mut ids = self.hypervisors.clone();
        ids.retain(|_| self.world.roll(|dice| dice.happens(400)));
        if ids.is_empty() {
            return;
        }
        self.world.note(format!("{} wants {ids:?}", self.name));
        let _ = match self.world.roll(|dice| dice.happens(600)) {
            true => follow!(
                self,
                operations,
                create_hypervisors,
                rpc::CreateHypervisorsRequest { ids }
            ),
            false => follow!(
                self,
                operations,
                destroy_hypervisors,
                rpc::DestroyHypervisorsRequest { ids }
            ),
        };
    }

    async fn watch(&self) {
        let operations = self.witness.operations();
        if !operations.is_empty() {
            let id = self.world.roll(|dice| *dice.pick(&operations)).to_string();
            let _ = follow!(self, fleet, watch_operation, fleet::WatchOperationRequest { id });
        }
    }

    /// Reads a stream to its end, or hangs up.
    async fn read(&self, mut words: Words) {
        let hangs_up = match self.world.strikes(300) {
            true => self.world.roll(|dice| dice.millis(0, 10_000)),
            false => Duration::from_secs(600),
        };
        let until = Instant::now() + hangs_up;
        let mut operations: BTreeMap<String, OperationId> = BTreeMap::new();
        let mut only = None;
        while let Ok(Some(Ok((state, line)))) = tokio::time::timeout_at(until, words.recv()).await {
            self.world.note(format!("{} reads {state:?} {line}", self.name));
            self.world
                .check("invariant_every_message_has_words", !line.is_empty(), || {
                    format!("{state:?}")
                });
            let about = line
                .split_once(": ")
                .map(|(id, _)| id.to_owned())
                .unwrap_or_default();
            let of_bulk = self.hypervisors.contains(&about);
            let id = operations
                .get(&about)
                .copied()
                .or_else(|| named(&line).filter(|_| only.is_none()));
            let end = matches!(
                state,
                rpc::OperationState::Completed | rpc::OperationState::Failed
            );
            match id {
                Some(id) if of_bulk => {
                    operations.insert(about, id);
                    self.witness.acknowledged(id);
                }
                // "not begun: resource needs attention after operation …" names another.
                Some(id) if !end => {
                    self.witness.acknowledged(id);
                    only = Some(id);
                }
                _ => {}
            }
            if let (true, Some(id)) = (end, only) {
                self.witness.told_end(id, state);
            }
        }
    }

    /// Reads the list, and holds it against what must be in it.
    pub(super) async fn list(&self) {
        let enrolled = self.witness.enrolled();
        let gone = self.absences.long_gone();
        let request = self.request(rpc::ListHypervisorsRequest {});
        let call =
            |api: super::coordinator::Api| async move { api.operations.list_hypervisors(request).await };
        let Some(Ok(response)) = self.coordinator.call(call).await else {
            return;
        };
        self.world.count("lists that were read");
        let listed: BTreeMap<_, _> = response
            .into_inner()
            .hypervisors
            .into_iter()
            .map(|one| (one.id.clone(), one.state()))
            .collect();
        for id in enrolled {
            self.world.check(
                "invariant_an_enrolled_hypervisor_is_listed",
                listed.contains_key(&id),
                || id.clone(),
            );
        }
        for (id, state) in listed {
            let is_gone = self
                .witness
                .host_of(&id)
                .is_some_and(|host| gone.contains(&host.name));
            let unknown = state == rpc::HypervisorState::Unknown;
            self.world.check(
                "invariant_unknown_while_gone",
                !is_gone || unknown || !self.absences.still(&id, &self.witness),
                || format!("{id} is {state:?}"),
            );
        }
    }

    async fn cancel(&self) {
        let unended = self.witness.unended();
        if unended.is_empty() {
            return;
        }
        let id = self.world.roll(|dice| dice.pick(&unended).0).to_string();
        self.world.note(format!("{} cancels {id}", self.name));
        self.world.count("cancels that were asked for");
        let reason = "simulated".to_owned();
        let request = self.request(fleet::CancelOperationRequest { id, reason });
        let call = |api: super::coordinator::Api| async move { api.fleet.cancel_operation(request).await };
        let _ = self.coordinator.call(call).await;
    }

    async fn look(&self) {
        let operations = self.witness.operations();
        if operations.is_empty() {
            return;
        }
        let id = self.world.roll(|dice| *dice.pick(&operations));
        let request = self.request(fleet::GetOperationRequest { id: id.to_string() });
        let call = |api: super::coordinator::Api| async move { api.fleet.get_operation(request).await };
        if let Some(Ok(response)) = self.coordinator.call(call).await {
            let operation = response.into_inner().operation.unwrap_or_default();
            let state = operation.state();
            if matches!(
                state,
                rpc::OperationState::Completed | rpc::OperationState::Failed
            ) {
                self.witness.told_end(id, state);
            }
        }
    }

    /// Holds a hypervisor for a while, renews it, and gives it back or forgets it.
    async fn lock(&self) {
        let name = self.hypervisor();
        let token = format!(
            "{}-{}",
            self.name,
            self.world.roll(|dice| dice.between(0, u64::MAX))
        );
        let seconds = self
            .world
            .roll(|dice| u32::try_from(dice.between(1, 40)).unwrap_or(1));
        let disabled = self.world.roll(|dice| dice.happens(200));
        if !self.hold(&name, &token, seconds, disabled).await {
            return;
        }
        self.world.count("locks that clients took");
        for _ in 0..self.world.roll(|dice| dice.between(0, 4)) {
            let wait = self.world.roll(|dice| dice.millis(0, 12_000));
            sleep(wait).await;
            self.hold(&name, &token, seconds, disabled).await;
        }
        if self.world.roll(|dice| dice.happens(600)) {
            self.hold(&name, &token, 0, disabled).await;
        }
    }

    async fn hold(&self, name: &str, token: &str, seconds: u32, disabled: bool) -> bool {
        self.world
            .note(format!("{} holds {name} for {seconds} s", self.name));
        let request = self.request(fleet::ProposeOperationRequest {
            proposal: Some(n0stack::ProposeOperationRequest {
                name: name.to_owned(),
                lock_for_seconds: seconds,
                is_disabled_cancel: disabled,
                proposing_peer_token: token.to_owned(),
                ..Default::default()
            }),
            reason: "simulated".to_owned(),
        });
        let call = |api: super::coordinator::Api| async move { api.fleet.propose_operation(request).await };
        match self.coordinator.call(call).await {
            Some(Ok(response)) => {
                let id = response.into_inner().operation.map(|operation| operation.id);
                if let Some(Ok(id)) = id.map(|id| id.parse()) {
                    self.witness.acknowledged(id);
                }
                true
            }
            Some(Err(_)) | None => false,
        }
    }

    /// A person looks at what needs attention, and says so.
    pub(super) async fn resolve(&self) {
        for (id, host, resource) in self.witness.attention() {
            // Who looks waits until nothing moves any more.
            let moves = self
                .witness
                .host(&host)
                .is_some_and(|host| host.is_busy(&resource));
            if moves || !(self.world.is_calm() || self.world.roll(|dice| dice.happens(300))) {
                continue;
            }
            self.world.note(format!("{} resolves {id}", self.name));
            let request = self.request(fleet::ResolveOperationRequest {
                id: id.to_string(),
                note: "looked".to_owned(),
            });
            let call =
                |api: super::coordinator::Api| async move { api.fleet.resolve_operation(request).await };
            let _ = timeout(Duration::from_secs(60), self.coordinator.call(call)).await;
        }
    }

    /// The states that are listed; None while nobody answers.
    pub(super) async fn states(&self) -> Option<BTreeMap<String, rpc::HypervisorState>> {
        let request = self.request(rpc::ListHypervisorsRequest {});
        let call =
            |api: super::coordinator::Api| async move { api.operations.list_hypervisors(request).await };
        let response = self.coordinator.call(call).await?.ok()?;
        let listed = response.into_inner().hypervisors.into_iter();
        Some(listed.map(|one| (one.id.clone(), one.state())).collect())
    }
}
