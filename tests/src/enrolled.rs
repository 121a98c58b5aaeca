//! A host that enrols with a token over the real port, without a process of its own.

use hostler_common::rpc::hostler::enrol::v1::enrol_service_client::EnrolServiceClient;
use hostler_common::rpc::hostler::enrol::v1::{EnrolRequest, EnrolResponse};
use hostler_common::rpc::hostler::site::v1::CreateTokenRequest;
use hostler_pki::{ChannelOptions, Credentials, EnrolToken, KeyRequest, TlsFiles, TrustBundle};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use crate::fleet::Fleet;

/// A new key of the token's host gets a certificate.
///
/// # Errors
/// When the coordinator gives none.
///
/// # Panics
/// When the token is none, or nobody listens.
pub async fn enrol(fleet: &Fleet, token: &str) -> Result<(EnrolResponse, KeyRequest), Status> {
    let parsed = EnrolToken::parse(token).expect("a token");
    let key = KeyRequest::new().expect("a key");
    let channel = hostler_pki::connect_to_enrol(&fleet.enrol_at(), parsed.ca(), ChannelOptions::default())
        .await
        .expect("hosts enrol");
    let request = EnrolRequest {
        token: token.to_owned(),
        csr_der: key.csr_der().to_vec(),
        agent_version: String::new(),
    };
    let answer = EnrolServiceClient::new(channel).enrol(request).await?;
    Ok((answer.into_inner(), key))
}

/// A channel with a certificate for `host` that was made just now, by a token.
///
/// # Panics
/// When there is none.
pub async fn channel(fleet: &Fleet, host: &str) -> Channel {
    let request = CreateTokenRequest {
        host: host.to_owned(),
        expires_seconds: 0,
    };
    let made = fleet.site("admin").create_token(request).await;
    let token = made.expect("a token").into_inner().token;
    let (answer, key) = enrol(fleet, &token).await.expect("a certificate");
    let dir = TempDir::new().expect("a directory");
    let (ca, identity) = (dir.path().join("ca.crt"), dir.path().join("agent.pem"));
    let roots = TrustBundle::parse(&answer.ca_pem).expect("CAs");
    roots.write(&ca).expect("CAs are written");
    let issued = key
        .complete(&answer.certificate_pem)
        .expect("its own certificate");
    issued.write_one_file(&identity).expect("it is written");
    let files = TlsFiles {
        ca,
        certificate: identity.clone(),
        key: identity,
    };
    let credentials = Credentials::load(&files).expect("credentials");
    let config = hostler_pki::client_config(&credentials).expect("TLS");
    let address = fleet.address.to_string().parse().expect("an address");
    hostler_pki::channel(&address, config, ChannelOptions::default())
}
