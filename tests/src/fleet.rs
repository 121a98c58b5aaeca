//! One coordinator, its clients, and its death and return.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::rpc::hostler::fleet::v1 as fleet_rpc;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::rpc::hostler::site::v1::GetStatusRequest;
use hostler_common::rpc::hostler::site::v1::site_service_client::SiteServiceClient;
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_coordinator::config::{Config, EnrolmentConfig, OperationsConfig, SessionsConfig};
use hostler_coordinator::store::Store;
use hostler_coordinator::wiring::{self, AcceptedLoss};
use hostler_pki::ca::DEFAULT_LEAF_LIFETIME;
use hostler_pki::{ChannelOptions, CoordinatorAddress, TlsFiles};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::pki::TestCa;
use crate::wait;

/// A coordinator in this process.
pub struct Fleet {
    /// The CA of this fleet.
    pub ca: TestCa,
    /// Where it listens; the same after a restart.
    pub address: SocketAddr,
    /// Where hosts enrol, unless the test has switched it off.
    pub enrol_address: Option<SocketAddr>,
    config: Config,
    shutdown: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    _dir: TempDir,
}

/// One message of a stream.
pub type Said = (rpc::OperationState, String);

impl Fleet {
    /// Starts a coordinator with short times: leases of 2 s, a host is waited for 1 s.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same, with other settings.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().expect("a directory");
        let ca = TestCa::make(&dir.path().join("pki"));
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: dir.path().join("data"),
            log: Default::default(),
            tls: ca.files("coordinator/c1"),
            sessions: SessionsConfig {
                // Three missed end a session: a machine that is busy with other tests must not take that long.
                heartbeat: Duration::from_millis(500),
            },
            operations: OperationsConfig {
                lease: Duration::from_secs(2),
                host_patience: Duration::from_secs(1),
                ..OperationsConfig::default()
            },
            drain_timeout: Duration::from_secs(10),
            default_pool: None,
            enrolment: Some(EnrolmentConfig {
                listen: ([127, 0, 0, 1], 0).into(),
                ca_dir: dir.path().join("pki"),
                agent_life: DEFAULT_LEAF_LIFETIME,
                advertise: Vec::new(),
            }),
        };
        change(&mut config);
        let mut fleet = Self {
            ca,
            address: config.listen,
            enrol_address: None,
            config,
            shutdown: CancellationToken::new(),
            running: None,
            _dir: dir,
        };
        fleet.begin().await;
        fleet
    }

    async fn begin(&mut self) {
        self.shutdown = CancellationToken::new();
        let running = wait::until("the coordinator starts", || async {
            // The store of the process before may be closing.
            match wiring::start(&self.config, self.shutdown.clone()).await {
                Ok(running) => Some(running),
                Err(error) if format!("{error:#}").contains("in use") => None,
                Err(error) => panic!("{error:#}"),
            }
        })
        .await;
        self.address = running.address();
        self.config.listen = self.address;
        self.enrol_address = running.enrol_address();
        if let (Some(enrolment), Some(address)) = (&mut self.config.enrolment, self.enrol_address) {
            enrolment.listen = address;
        }
        self.running = Some(tokio::spawn(running.run()));
    }

    /// Ends the coordinator as SIGTERM does.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("no panic").expect("a clean end");
        }
    }

    /// Ends the coordinator and starts it again on the same address and store.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.begin().await;
    }

    /// Saves a copy of the store as it is now.
    ///
    /// # Panics
    /// When it cannot be saved.
    pub fn save_store(&self, copy: &Path) {
        Store::back_up(&self.config.data_dir, copy).expect("a copy");
    }

    /// Ends the coordinator, puts the copy in the place of its store, takes that for the newest, and starts it again.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restore_store(&mut self, copy: &Path) -> AcceptedLoss {
        self.stop().await;
        self.replace_store(copy).await;
        let accepted = wait::until("the loss is accepted", || async {
            // The store of the process before may be closing.
            match wiring::accept_loss(&self.config).await {
                Ok(accepted) => Some(accepted),
                Err(error) if format!("{error:#}").contains("in use") => None,
                Err(error) => panic!("{error:#}"),
            }
        })
        .await;
        self.begin().await;
        accepted
    }

    async fn replace_store(&self, copy: &Path) {
        wait::until("the store is closed", || async {
            // Its log goes with the last handle.
            let log = self.config.data_dir.join("hostler.db-wal");
            (!log.exists()).then_some(())
        })
        .await;
        std::fs::remove_file(self.config.data_dir.join("hostler.newest")).expect("there was a store");
        std::fs::copy(copy, self.config.data_dir.join("hostler.db")).expect("the copy is read");
    }

    /// `hostler.site.v1` with a role.
    pub fn site(&self, role: &str) -> SiteServiceClient<Channel> {
        SiteServiceClient::new(self.channel(&format!("client/{role}/test")))
    }

    /// Where hosts enrol.
    ///
    /// # Panics
    /// When they do not.
    pub fn enrol_at(&self) -> CoordinatorAddress {
        let address = self.enrol_address.expect("hosts enrol");
        address.to_string().parse().expect("an address")
    }

    /// The coordinator's own files.
    pub fn tls_files(&self) -> TlsFiles {
        self.config.tls.clone()
    }

    /// Where the store lies.
    pub fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone()
    }

    /// A channel with a certificate for `path`, as `client/viewer/v`.
    ///
    /// # Panics
    /// When the address is not one.
    pub fn channel(&self, path: &str) -> Channel {
        let address = self.address.to_string().parse().expect("an address");
        hostler_pki::channel(&address, self.ca.client_config(path), ChannelOptions::default())
    }

    /// `operations.v1` with a role.
    pub fn operations(&self, role: &str) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(self.channel(&format!("client/{role}/test")))
    }

    /// `hostler.fleet.v1` with a role.
    pub fn fleet(&self, role: &str) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel(&format!("client/{role}/test")))
    }

    /// The whole list, by a viewer.
    ///
    /// # Panics
    /// When the call fails.
    pub async fn list(&self) -> Vec<rpc::ListHypervisorsResponseHypervisor> {
        let response = self
            .operations("viewer")
            .list_hypervisors(rpc::ListHypervisorsRequest {})
            .await;
        response.expect("the list").into_inner().hypervisors
    }

    /// What a person should look at, as `hostler status` has it.
    ///
    /// # Panics
    /// When the call fails.
    pub async fn warnings(&self) -> Vec<String> {
        let status = self.site("viewer").get_status(GetStatusRequest {}).await;
        status.expect("the status").into_inner().warnings
    }

    /// The listed state of a hypervisor; None when it is not listed.
    pub async fn state(&self, id: &str) -> Option<rpc::HypervisorState> {
        self.list()
            .await
            .iter()
            .find(|listed| listed.id == id)
            .map(|listed| listed.state())
    }

    /// Waits until `id` is listed with `state`.
    pub async fn until_state(&self, id: &str, state: rpc::HypervisorState) {
        wait::until(&format!("{id} becomes {state:?}"), || async {
            (self.state(id).await == Some(state)).then_some(())
        })
        .await;
    }

    /// Creates `id` and leaves the stream to the test, after its first message: the operation is durable.
    ///
    /// # Panics
    /// When the call fails.
    pub async fn creating(&self, id: &str) -> (Said, Streaming<rpc::CreateHypervisorResponse>) {
        let request = rpc::CreateHypervisorRequest { id: id.to_owned() };
        begun(self.operations("operator").create_hypervisor(request).await).await
    }

    /// The same for destroy.
    ///
    /// # Panics
    /// When the call fails.
    pub async fn destroying(&self, id: &str) -> (Said, Streaming<rpc::DestroyHypervisorResponse>) {
        let request = rpc::DestroyHypervisorRequest { id: id.to_owned() };
        begun(self.operations("operator").destroy_hypervisor(request).await).await
    }

    /// Creates `id` and reads the stream to its end.
    ///
    /// # Errors
    /// When the call or its stream fails.
    pub async fn create(&self, id: &str) -> Result<Vec<Said>, Status> {
        let request = rpc::CreateHypervisorRequest { id: id.to_owned() };
        collect(
            self.operations("operator")
                .create_hypervisor(request)
                .await?
                .into_inner(),
        )
        .await
    }

    /// Destroys `id` and reads the stream to its end.
    ///
    /// # Errors
    /// When the call or its stream fails.
    pub async fn destroy(&self, id: &str) -> Result<Vec<Said>, Status> {
        let request = rpc::DestroyHypervisorRequest { id: id.to_owned() };
        collect(
            self.operations("operator")
                .destroy_hypervisor(request)
                .await?
                .into_inner(),
        )
        .await
    }

    /// Creates several and reads the stream to its end.
    ///
    /// # Errors
    /// When the call or its stream fails.
    pub async fn create_all(&self, ids: &[&str]) -> Result<Vec<Said>, Status> {
        let ids = ids.iter().map(ToString::to_string).collect();
        let request = rpc::CreateHypervisorsRequest { ids };
        collect(
            self.operations("operator")
                .create_hypervisors(request)
                .await?
                .into_inner(),
        )
        .await
    }

    /// Every storage pool, by a viewer.
    ///
    /// # Panics
    /// When the call fails.
    pub async fn pools(&self) -> Vec<fleet_rpc::StoragePool> {
        let response = self
            .fleet("viewer")
            .list_storage_pools(fleet_rpc::ListStoragePoolsRequest {})
            .await;
        response.expect("the pools").into_inner().pools
    }

    /// Waits until `name` is listed and can be worked on.
    pub async fn until_pool(&self, name: &str) {
        wait::until(&format!("pool {name} is free"), || async {
            let pools = self.pools().await;
            pools
                .iter()
                .any(|pool| pool.name == name && pool.connected && pool.reason.is_empty())
                .then_some(())
        })
        .await;
    }

    /// Every operation, newest first.
    ///
    /// # Panics
    /// When the call fails.
    pub async fn history(&self) -> Vec<fleet_rpc::Operation> {
        let request = fleet_rpc::ListOperationsRequest {
            page_size: 1000,
            ..Default::default()
        };
        self.fleet("viewer")
            .list_operations(request)
            .await
            .expect("the history")
            .into_inner()
            .operations
    }
}

/// A message of any of the streams.
pub trait Message {
    /// Its state and words.
    fn said(self) -> Said;
}

macro_rules! messages {
    ($($name:ty),*) => {
        $(impl Message for $name {
            fn said(self) -> Said {
                (self.state(), self.msg)
            }
        })*
    };
}

messages!(
    rpc::CreateHypervisorResponse,
    rpc::CreateHypervisorsResponse,
    rpc::DestroyHypervisorResponse,
    rpc::DestroyHypervisorsResponse,
    rpc::ExpandStorageResponse,
    rpc::ShrinkStorageResponse,
    rpc::CreateBackupResponse,
    fleet_rpc::ExpandStorageResponse,
    fleet_rpc::ShrinkStorageResponse,
    fleet_rpc::CreateBackupResponse,
    fleet_rpc::VerifyBackupResponse,
    fleet_rpc::RestoreBackupResponse,
    fleet_rpc::DeleteBackupResponse,
    fleet_rpc::WatchOperationResponse
);

/// The first message of a stream, after which the operation is durable, and the rest.
///
/// # Panics
/// When there is none.
pub async fn begun<M: Message>(call: Result<tonic::Response<Streaming<M>>, Status>) -> (Said, Streaming<M>) {
    let mut stream = call.expect("the call is taken").into_inner();
    let first = stream
        .message()
        .await
        .expect("the stream holds")
        .expect("a first message");
    (first.said(), stream)
}

/// Every message of a stream, until it ends.
///
/// # Errors
/// When the stream breaks.
pub async fn collect<M: Message>(mut stream: Streaming<M>) -> Result<Vec<Said>, Status> {
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.push(message.said());
    }
    Ok(all)
}
