//! The one place that turns errors into `tonic::Status`.
//!
//! IsardVDI's clients show a gRPC error as "Not authorized" or a bare 500 (wire.md, point 6), so what an
//! administrator should read is streamed as FAILED instead. Statuses are for who may not call, for calls
//! that make no sense, and for a coordinator that cannot serve.

use hostler_common::error::Chain;
use hostler_common::id::InvalidId;
use hostler_common::operation::{InvalidHold, RequestError};
use tonic::Status;

use crate::identity::revocation::RevokeError;
use crate::identity::tokens::TokensError;
use crate::operation::engine::EngineError;
use crate::operation::hold::HoldError;
use crate::session::asks::AskError;
use crate::site::expunge::ExpungeError;
use crate::site::known::UnknownError;
use crate::site::lose::LoseError;
use crate::store::json::RecordError;

/// INVALID_ARGUMENT.
pub(super) fn of_invalid(error: &InvalidId) -> Status {
    Status::invalid_argument(error.to_string())
}

/// INVALID_ARGUMENT.
pub(super) fn of_request(error: &RequestError) -> Status {
    Status::invalid_argument(Chain(error).to_string())
}

/// INVALID_ARGUMENT.
pub(super) fn of_invalid_hold(error: &InvalidHold) -> Status {
    Status::invalid_argument(error.to_string())
}

/// FAILED_PRECONDITION, unless the coordinator cannot serve.
pub(super) fn of_hold(error: &HoldError) -> Status {
    match error {
        HoldError::Engine(error) => of_engine(error),
        HoldError::Locked(_)
        | HoldError::Busy(_)
        | HoldError::Attention { .. }
        | HoldError::NotHeld { .. } => Status::failed_precondition(error.to_string()),
    }
}

/// What fits the error: who asked gets the agent's own words.
pub(super) fn of_ask(error: &AskError) -> Status {
    let message = error.to_string();
    match error {
        AskError::NotConnected { .. } | AskError::WentAway { .. } | AskError::Late { .. } => {
            Status::unavailable(message)
        }
        AskError::TooMany { .. } => Status::resource_exhausted(message),
        AskError::Refused { .. } | AskError::Unfit { .. } => Status::failed_precondition(message),
    }
}

/// What fits the error; its whole chain is the message.
pub(super) fn of_engine(error: &EngineError) -> Status {
    let message = Chain(error).to_string();
    match error {
        EngineError::NoSuchOperation { .. } => Status::not_found(message),
        EngineError::Illegal { .. } | EngineError::NotItsTurn { .. } => Status::failed_precondition(message),
        EngineError::ForeignHost { .. } | EngineError::NotForAgents { .. } => {
            Status::permission_denied(message)
        }
        EngineError::Record(error) => of_record(error),
    }
}

/// What fits the error.
pub(super) fn of_lose(error: &LoseError) -> Status {
    match error {
        LoseError::Connected { .. } => Status::failed_precondition(error.to_string()),
        LoseError::Unknown { .. } => Status::not_found(error.to_string()),
        LoseError::Engine(error) => of_engine(error),
    }
}

/// What fits the error.
pub(super) fn of_expunge(error: &ExpungeError) -> Status {
    match error {
        ExpungeError::Unknown { .. } => Status::not_found(error.to_string()),
        ExpungeError::Reported { .. } | ExpungeError::Unended { .. } | ExpungeError::Attention { .. } => {
            Status::failed_precondition(error.to_string())
        }
        ExpungeError::Record(error) => of_record(error),
    }
}

/// What fits the error.
pub(super) fn of_tokens(error: &TokensError) -> Status {
    let message = Chain(error).to_string();
    match error {
        TokensError::TooMany => Status::resource_exhausted(message),
        TokensError::NoSuchToken { .. } => Status::not_found(message),
        TokensError::AlreadyUsed { .. } => Status::failed_precondition(message),
        TokensError::Make(_) => Status::unavailable(message),
        TokensError::Record(error) => of_record(error),
    }
}

/// NOT_FOUND with a way to mean it all the same, unless the coordinator cannot serve.
pub(super) fn of_unknown(error: &UnknownError) -> Status {
    match error {
        UnknownError::Unknown { .. } => Status::not_found(format!(
            "{error}. Nothing was revoked; with --unknown it is, as for a certificate that was made by hand"
        )),
        UnknownError::Tokens(error) => of_tokens(error),
    }
}

/// What fits the error.
pub(super) fn of_revoke(error: &RevokeError) -> Status {
    let message = Chain(error).to_string();
    match error {
        RevokeError::OneOwn { .. } | RevokeError::Coordinator { .. } => Status::failed_precondition(message),
        RevokeError::TooMany => Status::resource_exhausted(message),
        // It holds; what is left of it is for a person.
        RevokeError::NotGone { .. } => Status::deadline_exceeded(message),
        RevokeError::Record(error) => of_record(error),
    }
}

/// UNAVAILABLE, or DATA_LOSS; the log has it too.
pub(super) fn of_record(error: &RecordError) -> Status {
    let message = Chain(error).to_string();
    match error {
        RecordError::Store(_) => {
            tracing::error!(error = message, "the store does not serve");
            Status::unavailable(message)
        }
        RecordError::Unreadable { .. } => {
            tracing::error!(error = message, "the store holds what cannot be read");
            Status::data_loss(message)
        }
    }
}

/// The coordinator ends while a stream is open.
pub(super) fn ending() -> Status {
    Status::unavailable("the coordinator is ending; operations go on: repeat the call to be attached again")
}
