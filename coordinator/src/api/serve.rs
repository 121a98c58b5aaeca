//! Puts every service on the one port, behind the role table.

use std::time::Duration;

use hostler_common::rpc::DESCRIPTORS;
use hostler_common::rpc::hostler::agent::v1::agent_service_server::AgentServiceServer;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetServiceServer;
use hostler_common::rpc::hostler::site::v1::site_service_server::SiteServiceServer;
use hostler_common::rpc::operations::v1::operations_service_server::OperationsServiceServer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::authz::AuthzLayer;
use super::fleet::Fleet;
use super::health;
use super::listener::Connection;
use super::operations::Operations;
use super::site::Site;
use crate::audit::Audit;
use crate::audit::layer::AuditLayer;
use crate::identity::own::Own;
use crate::session::service::SessionService;

/// The largest message that is read, in bytes: gRPC's usual bound. Ten thousand ids of the longest kind fit.
const MESSAGE_AT_MOST: usize = 4 << 20;

/// Calls at once on one connection; `hostler proxy` carries many clients over few.
const STREAMS_AT_MOST: u32 = 1000;

/// A peer that does not answer a ping for so long is gone. The pings themselves come this often.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Everything that is served.
#[derive(Debug)]
pub struct Services {
    /// operations.v1.
    pub operations: Operations,
    /// hostler.fleet.v1.
    pub fleet: Fleet,
    /// hostler.site.v1.
    pub site: Site,
    /// hostler.agent.v1.
    pub sessions: SessionService,
    /// Notes who called.
    pub audit: Audit,
}

/// Serves `connections` until `shutdown`, then until they have ended.
///
/// # Errors
/// When the transport fails as a whole, or reflection's descriptors do not decode.
pub async fn run(
    services: Services,
    connections: mpsc::Receiver<std::io::Result<Connection>>,
    own: Own,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    health::serving(&reporter, &own).await;
    let draining = health::follow(reporter, own, shutdown);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Server::builder()
        .layer(AuditLayer(services.audit))
        .layer(AuthzLayer)
        .max_concurrent_streams(STREAMS_AT_MOST)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(
            OperationsServiceServer::new(services.operations).max_decoding_message_size(MESSAGE_AT_MOST),
        )
        .add_service(FleetServiceServer::new(services.fleet).max_decoding_message_size(MESSAGE_AT_MOST))
        .add_service(SiteServiceServer::new(services.site).max_decoding_message_size(MESSAGE_AT_MOST))
        .add_service(AgentServiceServer::new(services.sessions).max_decoding_message_size(MESSAGE_AT_MOST))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), draining)
        .await?;
    Ok(())
}
