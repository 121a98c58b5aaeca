//! The messages of the stream, made from what the agent knows.

use hostler_common::id::{Fence, OperationId, ProcessToken, ResourceName};
use hostler_common::operation::Cancelling;
use hostler_common::rpc::hostler::agent::v1::session_request::Message;
use hostler_common::rpc::hostler::agent::v1::{
    AskAnswer, Finish, Heartbeat, Hello, HostReport, Measure, Measured, Outcome as WireOutcome, Propose,
    Renew, SessionRequest, Trust, Welcome, ask_answer,
};
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;

use crate::executor::run::Lease;
use crate::executor::state::{Ending, Outcome};

/// The version of the protocol that this agent speaks.
const PROTOCOL: u32 = 1;

/// One proposal, before it has a request id.
pub(super) struct Proposal<'a> {
    pub(super) operation: OperationId,
    pub(super) resource: &'a ResourceName,
    pub(super) token: &'a ProcessToken,
    /// Zero to take it.
    pub(super) fence: Fence,
    /// The newest seen on the resource.
    pub(super) newest_fence: Fence,
    pub(super) lock_for_seconds: u32,
    /// Nothing to log when empty.
    pub(super) line: String,
    pub(super) cancelling: Cancelling,
}

fn request(message: Message) -> SessionRequest {
    SessionRequest {
        message: Some(message),
    }
}

pub(super) fn hello(host: &str, token: &ProcessToken, journaled: Vec<OperationId>) -> SessionRequest {
    request(Message::Hello(Hello {
        host: host.to_owned(),
        agent_version: hostler_common::VERSION.to_owned(),
        process_token: token.to_string(),
        journaled_operation_ids: journaled.iter().map(ToString::to_string).collect(),
        protocol: PROTOCOL,
    }))
}

pub(super) fn heartbeat() -> SessionRequest {
    request(Message::Heartbeat(Heartbeat {}))
}

pub(super) fn report(report: &HostReport) -> SessionRequest {
    request(Message::Report(report.clone()))
}

pub(super) fn propose(request_id: u64, proposal: Proposal<'_>) -> SessionRequest {
    request(Message::Propose(Propose {
        request_id,
        operation_id: proposal.operation.to_string(),
        proposal: Some(ProposeOperationRequest {
            name: proposal.resource.to_string(),
            // Hostler has one project.
            project: "default".to_owned(),
            lock_for_seconds: proposal.lock_for_seconds,
            log_message: proposal.line,
            is_disabled_cancel: proposal.cancelling == Cancelling::Disabled,
            proposing_peer_token: proposal.token.to_string(),
        }),
        fence: proposal.fence.0,
        newest_fence: proposal.newest_fence.0,
    }))
}

pub(super) fn measured(operation: OperationId, lease: &Lease, measure: Measure) -> SessionRequest {
    request(Message::Measured(Measured {
        operation_id: operation.to_string(),
        fence: lease.fence.0,
        measure: Some(measure),
    }))
}

pub(super) fn answer(request_id: u64, answer: ask_answer::Answer) -> SessionRequest {
    request(Message::AskAnswer(AskAnswer {
        request_id,
        answer: Some(answer),
    }))
}

/// The CAs that a Welcome names. It comes over a connection that the coordinator has just opened with what it shows.
pub(super) fn trust(welcome: Welcome) -> Trust {
    Trust {
        ca_pem: welcome.ca_pem,
        coordinator_pem: String::new(),
        signing_root: welcome.signing_root,
    }
}

pub(super) fn renew(wish: Renew) -> SessionRequest {
    request(Message::Renew(wish))
}

pub(super) fn finish(operation: OperationId, lease: &Lease, ending: &Ending) -> SessionRequest {
    let outcome = match ending.outcome {
        Outcome::Done => WireOutcome::Done,
        Outcome::Failed => WireOutcome::Failed,
        Outcome::NeedsAttention => WireOutcome::NeedsAttention,
    };
    request(Message::Finish(Finish {
        operation_id: operation.to_string(),
        fence: lease.fence.0,
        outcome: outcome.into(),
        message: ending.message.clone(),
        process_token: lease.token.to_string(),
    }))
}
