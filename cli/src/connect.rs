//! The connection to the coordinator, and the limit on every answer. It knows no command.

use std::future::Future;
use std::time::Duration;

use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::rpc::hostler::site::v1::site_service_client::SiteServiceClient;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_pki::{ChannelOptions, CoordinatorAddress, Credentials, Role};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::failure::Failure;
use crate::settings::Settings;

/// For one answer, when `--timeout` is not given.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A page of a thousand operations, or one operation with every log line, stays well below.
const LARGEST_MESSAGE: usize = 64 << 20;

/// A connected coordinator.
#[derive(Debug)]
pub(crate) struct Coordinator {
    channel: Channel,
    address: CoordinatorAddress,
    identity: String,
    answer_within: Duration,
}

/// A call by its name, the role it needs, and where to look for what it is about: for error messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) needs: Role,
    look: Option<&'static str>,
    storage: bool,
}

impl Call {
    /// A call that every client may make.
    pub(crate) const fn read(name: &'static str) -> Self {
        Self {
            name,
            needs: Role::Viewer,
            look: None,
            storage: false,
        }
    }

    /// A call that changes the fleet.
    pub(crate) const fn change(name: &'static str) -> Self {
        Self {
            name,
            needs: Role::Operator,
            look: None,
            storage: false,
        }
    }

    /// A call for administrators.
    pub(crate) const fn administer(name: &'static str) -> Self {
        Self {
            name,
            needs: Role::Admin,
            look: None,
            storage: false,
        }
    }

    /// The same; what it is about is shown by this command.
    pub(crate) const fn look_at(self, command: &'static str) -> Self {
        Self {
            look: Some(command),
            ..self
        }
    }

    /// The same, about storage pools.
    pub(crate) const fn about_pools(self) -> Self {
        Self {
            look: Some("hostler storage list"),
            storage: true,
            ..self
        }
    }

    /// The same, about backups.
    pub(crate) const fn about_backups(self) -> Self {
        Self {
            look: Some("hostler backups list, or hostler storage list"),
            storage: true,
            ..self
        }
    }

    /// Where to look for what it is about.
    pub(crate) fn look(&self) -> &'static str {
        self.look
            .unwrap_or("hostler hypervisors list, or hostler operations list")
    }

    /// The command that shows what it is about, when that is neither the fleet nor its storage.
    pub(crate) fn shown_by(&self) -> Option<&'static str> {
        self.look.filter(|_| !self.storage)
    }

    /// Whether it is about what the agent of a pool's host does.
    pub(crate) fn is_about_storage(&self) -> bool {
        self.storage
    }
}

impl Coordinator {
    /// Loads the certificates and connects.
    ///
    /// # Errors
    /// When the files do not do, or the coordinator cannot be reached or refuses them.
    pub(crate) async fn connect(settings: &Settings) -> Result<Self, Failure> {
        let credentials = Credentials::load(&settings.tls)?;
        let config = hostler_pki::client_config(&credentials)?;
        let answer_within = settings.timeout.unwrap_or(ANSWER_WITHIN);
        let mut options = ChannelOptions::default();
        options.connect_timeout = options.connect_timeout.min(answer_within);
        let address = settings.coordinator.clone();
        let channel = hostler_pki::connect(&address, config, options)
            .await
            .map_err(|error| Failure::Connect(Box::new(error)))?;
        Ok(Self {
            channel,
            address,
            identity: credentials.identity().to_string(),
            answer_within,
        })
    }

    /// The URI of this client's certificate.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// The public API.
    pub(crate) fn operations(&self) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    /// What it lacks.
    pub(crate) fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    /// The site around it.
    pub(crate) fn site(&self) -> SiteServiceClient<Channel> {
        SiteServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    /// Waits for one answer, no longer than allowed.
    ///
    /// # Errors
    /// When there is none in time, or it is an error.
    pub(crate) async fn answer<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.answer_within, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(call, status)),
            Err(_) => Err(self.no_answer(call)),
        }
    }

    /// `--timeout` passed.
    fn no_answer(&self, call: Call) -> Failure {
        Failure::NoAnswer {
            address: self.address.clone(),
            after: self.answer_within,
            storage: call.is_about_storage(),
        }
    }

    /// An error answer.
    pub(crate) fn failed(&self, call: Call, status: Status) -> Failure {
        Failure::Call {
            call,
            address: self.address.clone(),
            status: Box::new(status),
        }
    }
}
