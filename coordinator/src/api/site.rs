//! hostler.site.v1: who belongs to the site, by which certificates, and what was done.
//!
//! It only translates: each subject's work is in its own folder. Who may call what is in [`super::authz`].

use std::pin::Pin;

use hostler_common::rpc::hostler::site::v1 as rpc;
use hostler_common::rpc::hostler::site::v1::site_service_server::SiteService;
use hostler_common::units::UnixMillis;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{agents, auditing, expunging, revocations, tokens};
use crate::audit::Audit;
use crate::identity::Identities;
use crate::operation::engine::Engine;
use crate::registry::Registry;
use crate::session::registry::Sessions;
use crate::store::Store;

/// Serves [`SiteService`].
#[derive(Debug, Clone)]
pub struct Site {
    /// Ends what a lost host held.
    pub engine: Engine,
    /// Is read.
    pub registry: Registry,
    /// Holds what is expunged.
    pub store: Store,
    /// Who is connected.
    pub sessions: Sessions,
    /// Tokens, certificates, revocations.
    pub identities: Identities,
    /// Is read.
    pub audit: Audit,
    /// Cuts who follows it.
    pub shutdown: CancellationToken,
    /// When the coordinator began to serve.
    pub started_at: UnixMillis,
}

type AuditLines = Pin<Box<dyn Stream<Item = Result<rpc::ListAuditResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SiteService for Site {
    type ListAuditStream = AuditLines;

    async fn get_status(
        &self,
        request: Request<rpc::GetStatusRequest>,
    ) -> Result<Response<rpc::GetStatusResponse>, Status> {
        agents::status(self, request).await
    }

    async fn list_agents(
        &self,
        request: Request<rpc::ListAgentsRequest>,
    ) -> Result<Response<rpc::ListAgentsResponse>, Status> {
        agents::list(self, request)
    }

    async fn lose_agent(
        &self,
        request: Request<rpc::LoseAgentRequest>,
    ) -> Result<Response<rpc::LoseAgentResponse>, Status> {
        agents::lose(self, request).await
    }

    async fn expunge_hypervisor(
        &self,
        request: Request<rpc::ExpungeHypervisorRequest>,
    ) -> Result<Response<rpc::ExpungeHypervisorResponse>, Status> {
        expunging::hypervisor(self, request).await
    }

    async fn expunge_storage_pool(
        &self,
        request: Request<rpc::ExpungeStoragePoolRequest>,
    ) -> Result<Response<rpc::ExpungeStoragePoolResponse>, Status> {
        expunging::pool(self, request).await
    }

    async fn create_token(
        &self,
        request: Request<rpc::CreateTokenRequest>,
    ) -> Result<Response<rpc::CreateTokenResponse>, Status> {
        tokens::create(&self.identities, request).await
    }

    async fn list_tokens(
        &self,
        request: Request<rpc::ListTokensRequest>,
    ) -> Result<Response<rpc::ListTokensResponse>, Status> {
        tokens::list(&self.identities, request).await
    }

    async fn revoke_token(
        &self,
        request: Request<rpc::RevokeTokenRequest>,
    ) -> Result<Response<rpc::RevokeTokenResponse>, Status> {
        tokens::revoke(&self.identities, request).await
    }

    async fn revoke_identity(
        &self,
        request: Request<rpc::RevokeIdentityRequest>,
    ) -> Result<Response<rpc::RevokeIdentityResponse>, Status> {
        revocations::revoke(self, request).await
    }

    async fn list_revocations(
        &self,
        request: Request<rpc::ListRevocationsRequest>,
    ) -> Result<Response<rpc::ListRevocationsResponse>, Status> {
        revocations::list(&self.identities, request).await
    }

    async fn list_audit(
        &self,
        request: Request<rpc::ListAuditRequest>,
    ) -> Result<Response<AuditLines>, Status> {
        auditing::list(self, request).await
    }
}
