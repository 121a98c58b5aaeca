//! The site's part of the coordinator that plays fixed parts.

use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::hostler::site::v1::site_service_server::SiteService;
use hostler_common::rpc::operations::v1::OperationState;
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{ID, Player, Responses};

/// A host whose agent is connected.
pub(crate) const ALIVE: &str = "alive";

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_795_000_000 + seconds,
        nanos: 0,
    })
}

fn token(id: &str, state: site::TokenState) -> site::Token {
    site::Token {
        id: id.to_owned(),
        host: "hv7".to_owned(),
        state: state.into(),
        created_by: "spiffe://example.org/client/admin/ada".to_owned(),
        created_at: at(0),
        expires_at: at(3600),
        ended_at: (state == site::TokenState::Used).then(|| at(60)).flatten(),
        ended_by: match state {
            site::TokenState::Used => "192.0.2.7".to_owned(),
            _ => String::new(),
        },
    }
}

impl Player {
    fn asked_of_site<T: std::fmt::Debug>(&self, request: &Request<T>) {
        let mut asked = self.0.lock().unwrap();
        asked.of_site.push(format!("{:?}", request.get_ref()));
    }
}

#[tonic::async_trait]
impl SiteService for Player {
    type ListAuditStream = Responses<site::ListAuditResponse>;

    async fn get_status(
        &self,
        _: Request<site::GetStatusRequest>,
    ) -> Result<Response<site::GetStatusResponse>, Status> {
        Ok(Response::new(site::GetStatusResponse {
            coordinator: "c1".to_owned(),
            version: "0.1.0".to_owned(),
            started_at: at(0),
            certificate_not_after: at(86_400),
            cas: vec![site::TrustedCa {
                name: "Hostler CA of example.org".to_owned(),
                fingerprint: "ab".repeat(32),
                not_after: at(864_000),
                signs: true,
                certificates: 3,
            }],
            agents: 3,
            agents_connected: 2,
            hypervisors: 4,
            pools: 1,
            operations_unended: 5,
            needing_attention: 0,
            warnings: vec![
                "1 of 3 agents are not connected (hv7): see `hostler agents list`\x1b[2J".to_owned(),
            ],
        }))
    }

    async fn list_agents(
        &self,
        _: Request<site::ListAgentsRequest>,
    ) -> Result<Response<site::ListAgentsResponse>, Status> {
        let connected = site::Agent {
            host: ALIVE.to_owned(),
            connected: true,
            address: "192.0.2.7:40312".to_owned(),
            version: "0.1.0".to_owned(),
            last_heard: at(10),
            certificate_not_after: at(86_400),
            certificate_ca: "CN=Hostler CA 3f9a12c0 fleet.test".to_owned(),
            hypervisor_ids: vec!["alive".to_owned(), "nested-1".to_owned()],
            pools: vec!["tank".to_owned()],
            ..Default::default()
        };
        let gone = site::Agent {
            host: "hv7".to_owned(),
            revoked_at: at(5),
            hypervisor_ids: vec!["hv7".to_owned()],
            ..Default::default()
        };
        let agents = vec![connected, gone];
        Ok(Response::new(site::ListAgentsResponse { agents }))
    }

    async fn lose_agent(
        &self,
        request: Request<site::LoseAgentRequest>,
    ) -> Result<Response<site::LoseAgentResponse>, Status> {
        self.asked_of_site(&request);
        match request.get_ref().host.as_str() {
            ALIVE => Err(Status::failed_precondition(
                "the agent of host alive is connected from 192.0.2.7:40312: what is alive is not lost",
            )),
            "nobody" => Err(Status::not_found("no host is called nobody")),
            _ => Ok(Response::new(site::LoseAgentResponse {
                operations: vec![fleet::Operation {
                    id: ID.to_owned(),
                    resource: "hv7".to_owned(),
                    kind: "CreateHypervisor".to_owned(),
                    state: OperationState::Failed.into(),
                    ..Default::default()
                }],
            })),
        }
    }

    async fn expunge_hypervisor(
        &self,
        request: Request<site::ExpungeHypervisorRequest>,
    ) -> Result<Response<site::ExpungeHypervisorResponse>, Status> {
        self.asked_of_site(&request);
        match request.get_ref().id.as_str() {
            ALIVE => Err(Status::failed_precondition(
                "hypervisor alive is reported by the agent of host alive, which is connected",
            )),
            _ => Ok(Response::new(site::ExpungeHypervisorResponse {})),
        }
    }

    async fn expunge_storage_pool(
        &self,
        request: Request<site::ExpungeStoragePoolRequest>,
    ) -> Result<Response<site::ExpungeStoragePoolResponse>, Status> {
        self.asked_of_site(&request);
        Ok(Response::new(site::ExpungeStoragePoolResponse {}))
    }

    async fn create_token(
        &self,
        request: Request<site::CreateTokenRequest>,
    ) -> Result<Response<site::CreateTokenResponse>, Status> {
        self.asked_of_site(&request);
        Ok(Response::new(site::CreateTokenResponse {
            token: "hostler1-the-secret".to_owned(),
            kept: Some(token("3f2a9c1e", site::TokenState::Open)),
            enrol_port: 1313,
            addresses: Vec::new(),
        }))
    }

    async fn list_tokens(
        &self,
        _: Request<site::ListTokensRequest>,
    ) -> Result<Response<site::ListTokensResponse>, Status> {
        let tokens = vec![
            token("3f2a9c1e", site::TokenState::Open),
            token("77aa0011", site::TokenState::Used),
            token("00ff00ff", site::TokenState::Expired),
        ];
        Ok(Response::new(site::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<site::RevokeTokenRequest>,
    ) -> Result<Response<site::RevokeTokenResponse>, Status> {
        self.asked_of_site(&request);
        match request.get_ref().id.as_str() {
            "3f2a9c1e" => Ok(Response::new(site::RevokeTokenResponse {
                token: Some(token("3f2a9c1e", site::TokenState::Revoked)),
            })),
            id => Err(Status::not_found(format!("no token {id} is kept"))),
        }
    }

    async fn revoke_identity(
        &self,
        request: Request<site::RevokeIdentityRequest>,
    ) -> Result<Response<site::RevokeIdentityResponse>, Status> {
        self.asked_of_site(&request);
        let request = request.into_inner();
        match request.subject.as_str() {
            "agent/hv77" if !request.unknown => {
                return Err(Status::not_found(
                    "no host is known here by the name hv77; names like it: hv7. Nothing was revoked; with --unknown it is",
                ));
            }
            "client/admin/ada" => return Err(Status::failed_precondition("that is your own certificate")),
            _ => {}
        }
        Ok(Response::new(site::RevokeIdentityResponse {
            revocation: Some(site::Revocation {
                subject: request.subject,
                revoked_at: at(0),
                revoked_by: "spiffe://example.org/client/admin/ada".to_owned(),
                reason: request.reason,
            }),
            connections_ended: 1,
        }))
    }

    async fn list_revocations(
        &self,
        _: Request<site::ListRevocationsRequest>,
    ) -> Result<Response<site::ListRevocationsResponse>, Status> {
        let revocations = vec![site::Revocation {
            subject: "agent/hv7".to_owned(),
            revoked_at: at(5),
            revoked_by: "spiffe://example.org/client/admin/ada".to_owned(),
            reason: "disk was stolen".to_owned(),
        }];
        Ok(Response::new(site::ListRevocationsResponse { revocations }))
    }

    async fn list_audit(
        &self,
        request: Request<site::ListAuditRequest>,
    ) -> Result<Response<Self::ListAuditStream>, Status> {
        self.asked_of_site(&request);
        let line = |rpc: &str, code: &str, message: &str| {
            format!(
                r#"{{"time":"2026-11-21T22:56:40Z","event":"call","identity":"spiffe://example.org/client/operator/alice","address":"192.0.2.7:40312","rpc":"/hostler.site.v1.SiteService/{rpc}","request":{{"host":"hv7"}},"code":"{code}","message":"{message}","operations":[],"duration_ms":3}}"#
            )
        };
        let parts = vec![
            Ok(site::ListAuditResponse {
                lines: vec![line("CreateToken", "OK", "")],
            }),
            Ok(site::ListAuditResponse {
                lines: vec![line(
                    "LoseAgent",
                    "PERMISSION_DENIED",
                    "LoseAgent needs the role admin",
                )],
            }),
        ];
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }
}
