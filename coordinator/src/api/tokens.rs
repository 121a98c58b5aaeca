//! The tokens of hostler.site.v1: translates, and shows a secret once, to who asked for it.

use std::time::Duration;

use hostler_common::id::HostName;
use hostler_common::rpc::hostler::site::v1 as rpc;
use hostler_common::units::UnixMillis;
use hostler_pki::TokenId;
use tonic::{Request, Response, Status};

use super::listener::Peer;
use super::status;
use crate::audit;
use crate::identity::tokens::{Ended, Standing, TokenRecord};
use crate::identity::{EnrolmentPort, Identities};

/// How long a token may be used when nothing is said, in seconds.
const USUAL_LIFE: u32 = 3600;

/// How long a token may be used, in seconds.
const LIVES: std::ops::RangeInclusive<u32> = 60..=604_800;

pub(super) async fn create(
    identities: &Identities,
    request: Request<rpc::CreateTokenRequest>,
) -> Result<Response<rpc::CreateTokenResponse>, Status> {
    let by = Peer::of(&request)?.identity.to_string();
    let request = request.into_inner();
    let host: HostName = request.host.parse().map_err(|error| status::of_invalid(&error))?;
    let life = match request.expires_seconds {
        0 => USUAL_LIFE,
        life if LIVES.contains(&life) => life,
        life => {
            return Err(Status::invalid_argument(format!(
                "a token cannot expire after {life} s; use 60 s to 604800 s (7 days)"
            )));
        }
    };
    let (Some(port), Some(own)) = (identities.enrolment(), identities.own()) else {
        return Err(Status::failed_precondition(
            "this coordinator enrols no hosts: [enrolment] with ca_dir is missing in its configuration",
        ));
    };
    let life = Duration::from_secs(life.into());
    let (token, kept) = identities
        .tokens
        .create(host, own.root(), &by, life)
        .await
        .map_err(|error| status::of_tokens(&error))?;
    tracing::info!(token = %token.id(), host = %kept.host, by, expires = %kept.expires_at, "token made");
    // By its id the enrolment that follows names it.
    audit::said(&format!("token {}", token.id()));
    Ok(Response::new(rpc::CreateTokenResponse {
        token: token.to_word().to_string(),
        kept: Some(listed(&kept, UnixMillis::now())),
        enrol_port: port.listen.port().into(),
        addresses: addresses(port),
    }))
}

/// Where agents connect, with the port for enrolment.
fn addresses(port: &EnrolmentPort) -> Vec<String> {
    let enrol_port = port.listen.port();
    let addresses = port.advertise.iter().map(|address| match address.host() {
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{enrol_port}"),
        host => format!("{host}:{enrol_port}"),
    });
    addresses.collect()
}

pub(super) async fn list(
    identities: &Identities,
    _request: Request<rpc::ListTokensRequest>,
) -> Result<Response<rpc::ListTokensResponse>, Status> {
    let all = identities.tokens.all().await;
    let all = all.map_err(|error| status::of_tokens(&error))?;
    let now = UnixMillis::now();
    let tokens = all.iter().map(|record| listed(record, now)).collect();
    Ok(Response::new(rpc::ListTokensResponse { tokens }))
}

pub(super) async fn revoke(
    identities: &Identities,
    request: Request<rpc::RevokeTokenRequest>,
) -> Result<Response<rpc::RevokeTokenResponse>, Status> {
    let by = Peer::of(&request)?.identity.to_string();
    let id: TokenId = request
        .into_inner()
        .id
        .parse()
        .map_err(|error: hostler_pki::TokenError| Status::invalid_argument(error.to_string()))?;
    let revoked = identities.tokens.revoke(id, &by).await;
    let record = revoked.map_err(|error| status::of_tokens(&error))?;
    tracing::info!(token = %id, host = %record.host, by, "token revoked");
    Ok(Response::new(rpc::RevokeTokenResponse {
        token: Some(listed(&record, UnixMillis::now())),
    }))
}

fn listed(record: &TokenRecord, now: UnixMillis) -> rpc::Token {
    let state = match record.standing(now) {
        Standing::Open => rpc::TokenState::Open,
        Standing::Used => rpc::TokenState::Used,
        Standing::Expired => rpc::TokenState::Expired,
        Standing::Revoked => rpc::TokenState::Revoked,
    };
    let (ended_at, ended_by) = match &record.ended {
        Some(Ended::Used { at, from, .. }) => (Some((*at).into()), from.clone()),
        Some(Ended::Revoked { at, by }) => (Some((*at).into()), by.clone()),
        None => (None, String::new()),
    };
    rpc::Token {
        id: record.id.clone(),
        host: record.host.to_string(),
        state: state.into(),
        created_by: record.created_by.clone(),
        created_at: Some(record.created_at.into()),
        expires_at: Some(record.expires_at.into()),
        ended_at,
        ended_by,
    }
}
