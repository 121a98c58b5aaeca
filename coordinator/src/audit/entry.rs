//! One line of the log. Field names are stable, since programs read them: a field is added, never renamed.

use std::time::Duration;

use hostler_common::id::OperationId;
use hostler_common::units::UnixMillis;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Code;

/// The longest text of an entry, in characters.
const TEXT_AT_MOST: usize = 500;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Somebody called.
    Call,
    /// Somebody without a certificate that is taken wanted to connect.
    Handshake,
    /// A host wanted a certificate for a token.
    Enrolment,
    /// An agent wanted a session.
    Session,
    /// Refusals that were not written one by one.
    HeldBack,
    /// Entries for which there was no room.
    Lost,
}

/// Whom a refusal is about, by what he has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// A certificate of ours.
    Peer,
    /// A token that was made here.
    Holder,
    /// Nothing that is good at the port for enrolment.
    Guesser,
    /// Nothing that is good at the port.
    Stranger,
    /// A certificate that our CA has signed and that is not taken, as a revoked one.
    Outcast,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// When, RFC 3339 in UTC with milliseconds.
    time: String,
    /// What.
    event: Event,
    /// The URI of the certificate; empty when none is known.
    identity: String,
    /// From where.
    address: String,
    /// As `/hostler.site.v1.SiteService/CreateToken`.
    #[serde(skip_serializing_if = "String::is_empty")]
    rpc: String,
    /// As it was received, without secrets.
    #[serde(skip_serializing_if = "Value::is_null")]
    request: Value,
    /// As gRPC names it, OK or PERMISSION_DENIED.
    code: &'static str,
    /// What was answered. Empty when there is nothing to say.
    message: String,
    /// The operations that it made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operations: Vec<String>,
    /// How long the answer took.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    /// How many more there were.
    #[serde(skip_serializing_if = "is_zero")]
    held_back: u64,
    #[serde(skip)]
    refusal: bool,
    /// Whoever it is about has shown the secret of a token.
    #[serde(skip)]
    holder: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    /// What happened now, from `address`, and was done.
    pub fn done(event: Event, identity: impl ToString, address: impl ToString) -> Self {
        Self {
            time: millis(UnixMillis::now()),
            event,
            identity: identity.to_string(),
            address: address.to_string(),
            rpc: String::new(),
            request: Value::Null,
            code: name(Code::Ok),
            message: String::new(),
            operations: Vec::new(),
            duration_ms: None,
            held_back: 0,
            refusal: false,
            holder: false,
        }
    }

    /// What happened now, from `address`, and was refused.
    pub fn refused(
        event: Event,
        identity: impl ToString,
        address: impl ToString,
        code: Code,
        why: &str,
    ) -> Self {
        Self {
            refusal: true,
            ..Self::done(event, identity, address).answered(code, why)
        }
    }

    /// Refusals or entries that are only counted.
    pub(super) fn counted(event: Event, count: u64, why: &str) -> Self {
        Self {
            held_back: count,
            ..Self::done(event, "", "").answered(Code::ResourceExhausted, why)
        }
    }

    /// The same about somebody who has shown a token's secret: no guess, and not one of a storm of guesses.
    #[must_use]
    pub fn of_a_holder(self) -> Self {
        Self { holder: true, ..self }
    }

    /// The same about an rpc.
    #[must_use]
    pub fn rpc(self, rpc: &str, request: Value, took: Duration) -> Self {
        Self {
            rpc: bounded(rpc),
            request,
            duration_ms: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            ..self
        }
    }

    /// The same with an answer.
    #[must_use]
    pub fn answered(self, code: Code, message: &str) -> Self {
        Self {
            code: name(code),
            message: bounded(message),
            ..self
        }
    }

    /// The same with what it made.
    #[must_use]
    pub fn with_operations(self, operations: &[OperationId]) -> Self {
        Self {
            operations: operations.iter().map(ToString::to_string).collect(),
            ..self
        }
    }

    /// Who was refused. None of what was done: nobody causes any number of that.
    pub(super) fn refused_whom(&self) -> Option<Refused> {
        self.refusal.then_some(match self.event {
            _ if self.holder => Refused::Holder,
            Event::Enrolment => Refused::Guesser,
            Event::Handshake if self.identity.is_empty() => Refused::Stranger,
            Event::Handshake => Refused::Outcast,
            _ => Refused::Peer,
        })
    }

    /// With its line feed.
    pub(super) fn to_line(&self) -> String {
        // Strings, numbers, lists and string-keyed maps always serialise.
        let mut line = serde_json::to_string(self).expect("entries serialise");
        line.push('\n');
        line
    }
}

fn bounded(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_AT_MOST)
        .collect()
}

fn millis(at: UnixMillis) -> String {
    let nanos = i128::from(at.0) * 1_000_000;
    let text = OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok());
    text.unwrap_or_else(|| at.to_string())
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
