//! An agent that does nothing: it takes every operation and says at once that it is done. Its hypervisors stay out of
//! service, so that they can be created again and again.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use hostler_common::id::ProcessToken;
use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::rpc::hostler::agent::v1::agent_service_client::AgentServiceClient;
use hostler_common::rpc::hostler::agent::v1::{session_request, session_response};
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Messages of ours that wait for the transport: a proposal and an end of each hypervisor of a host.
const OUT_BOUND: usize = 64;

/// Serves `hypervisors` of `host` until the coordinator ends the session, which is an error.
pub(crate) async fn serve(channel: Channel, host: String, hypervisors: Vec<String>) -> anyhow::Result<()> {
    let (out, requests) = mpsc::channel(OUT_BOUND);
    let token = ProcessToken::generate().to_string();
    let hello = rpc::Hello {
        host,
        agent_version: hostler_common::VERSION.to_owned(),
        process_token: token.clone(),
        journaled_operation_ids: Vec::new(),
        protocol: 1,
    };
    send(&out, session_request::Message::Hello(hello)).await?;
    let stream = AgentServiceClient::new(channel)
        .session(ReceiverStream::new(requests))
        .await;
    let mut stream = stream.context("no session")?.into_inner();
    let mut lease_seconds = 1;
    // The operations that it has proposed for, by the number of the proposal: a few at a time.
    let (mut proposals, mut taken) = (0, HashMap::new());
    while let Some(message) = stream.message().await? {
        use session_response::Message;
        match message.message {
            Some(Message::Welcome(welcome)) => {
                lease_seconds = welcome.lease_seconds;
                send(&out, session_request::Message::Report(report(&hypervisors))).await?;
            }
            Some(Message::Heartbeat(_)) => {
                send(&out, session_request::Message::Heartbeat(rpc::Heartbeat {})).await?;
            }
            Some(Message::Offer(offer)) => {
                // An offer may be repeated.
                if taken.values().any(|id| *id == offer.operation_id) {
                    continue;
                }
                proposals += 1;
                taken.insert(proposals, offer.operation_id.clone());
                let proposal = ProposeOperationRequest {
                    name: offer.resource,
                    project: "default".to_owned(),
                    lock_for_seconds: lease_seconds,
                    log_message: "taken".to_owned(),
                    is_disabled_cancel: false,
                    proposing_peer_token: token.clone(),
                };
                let propose = rpc::Propose {
                    request_id: proposals,
                    operation_id: offer.operation_id,
                    proposal: Some(proposal),
                    fence: 0,
                    newest_fence: 0,
                };
                send(&out, session_request::Message::Propose(propose)).await?;
            }
            Some(Message::ProposeAnswer(answer)) if answer.accepted => {
                let id = taken.get(&answer.request_id);
                let finish = rpc::Finish {
                    operation_id: id.context("an answer to no proposal")?.clone(),
                    fence: answer.fence,
                    outcome: rpc::Outcome::Done.into(),
                    message: "nothing was to be done".to_owned(),
                    process_token: token.clone(),
                };
                send(&out, session_request::Message::Finish(finish)).await?;
            }
            // Of an offer that was repeated after the end.
            Some(Message::ProposeAnswer(answer)) => drop(taken.remove(&answer.request_id)),
            Some(Message::FinishAnswer(answer)) => taken.retain(|_, id| *id != answer.operation_id),
            Some(other) => bail!("the coordinator says {other:?}"),
            None => {}
        }
    }
    bail!("the coordinator ended the session")
}

async fn send(
    out: &mpsc::Sender<rpc::SessionRequest>,
    message: session_request::Message,
) -> anyhow::Result<()> {
    let request = rpc::SessionRequest {
        message: Some(message),
    };
    out.send(request).await.context("the session has ended")
}

/// All of them out of service.
pub(crate) fn report(hypervisors: &[String]) -> rpc::HostReport {
    let inventory = rpc::Inventory {
        cpu_threads: 8,
        memory_mb: 16_384,
        ..rpc::Inventory::default()
    };
    let hypervisors = hypervisors.iter().map(|id| rpc::HypervisorReport {
        id: id.clone(),
        kind: rpc::HypervisorKind::Host.into(),
        observed: rpc::Observed::OutOfService.into(),
        detail: String::new(),
        inventory: Some(inventory.clone()),
    });
    rpc::HostReport {
        hypervisors: hypervisors.collect(),
        inventory: Some(inventory.clone()),
        ..rpc::HostReport::default()
    }
}
