//! One line of a journal: a CRC-32 in eight hex digits, a space, JSON, a newline.
//!
//! Old journals stay readable: a field is only ever added with a default, an entry never changes its name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_common::id::{Fence, OperationId, ProcessToken, ResourceName};
use hostler_common::units::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::executor::state::Outcome;
use crate::executor::step::Before;

/// The version of the format, in every first record.
pub const VERSION: u32 = 1;

/// The request of an operation, as it was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRequest {
    /// Its type.
    pub type_url: String,
    /// Its bytes, in base64.
    pub value: String,
}

impl From<&prost_types::Any> for StoredRequest {
    fn from(request: &prost_types::Any) -> Self {
        Self {
            type_url: request.type_url.clone(),
            value: STANDARD.encode(&request.value),
        }
    }
}

impl TryFrom<&StoredRequest> for prost_types::Any {
    type Error = base64::DecodeError;

    fn try_from(stored: &StoredRequest) -> Result<Self, base64::DecodeError> {
        Ok(Self {
            type_url: stored.type_url.clone(),
            value: STANDARD.decode(&stored.value)?,
        })
    }
}

/// What happened to an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// First, and only once: the operation is ours.
    Begun {
        /// The format's version.
        version: u32,
        /// The operation.
        operation: OperationId,
        /// What it is on.
        resource: ResourceName,
        /// The fence of our lease.
        fence: Fence,
        /// The token that holds it.
        token: ProcessToken,
        /// What was asked for.
        request: StoredRequest,
        /// How often it has been offered.
        attempt: u32,
    },
    /// It is ours under a new lease.
    Took {
        /// The fence of the new lease.
        fence: Fence,
        /// The token that holds it.
        token: ProcessToken,
    },
    /// What the steps rest on was decided by looking at the world. Before the first step, at most once.
    Planned {
        /// As the planner wants it back.
        detail: Value,
    },
    /// The step is about to run.
    StepStarted {
        /// Its name.
        step: String,
        /// What was true before.
        before: Before,
    },
    /// The step is done.
    StepDone {
        /// Its name.
        step: String,
        /// What the step said that the operation came to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        concluded: Option<String>,
    },
    /// The step failed; from here on everything is undone.
    StepFailed {
        /// Its name.
        step: String,
        /// Why, in one line.
        cause: String,
        /// Somebody cancelled the operation before the step or in it.
        #[serde(default, skip_serializing_if = "is_false")]
        cancelled: bool,
    },
    /// The step's undo is about to run.
    UndoStarted {
        /// Its name.
        step: String,
    },
    /// The step is undone.
    UndoDone {
        /// Its name.
        step: String,
    },
    /// The step could not be undone.
    UndoFailed {
        /// Its name.
        step: String,
        /// Why, in one line.
        cause: String,
    },
    /// Nothing more happens; only the coordinator has to be told.
    Ended {
        /// How it ended.
        outcome: Outcome,
        /// What happened, for a person.
        message: String,
    },
}

/// What is not said in a journal reads as false, so it need not be written.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// An entry and when it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, for people.
    pub at: UnixMillis,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Why a line is not a record.
#[derive(Debug, Error)]
pub enum LineFault {
    /// The line is not whole: its checksum is missing or wrong.
    #[error("its checksum is wrong")]
    Checksum,
    /// The line is as it was written, and this version cannot read it.
    #[error("it is whole, but this version cannot read it")]
    Content(#[source] serde_json::Error),
}

/// The line of `record`, with its newline.
///
/// # Errors
/// Never for the entries above; serde's type has the possibility.
pub fn encode(record: &Record) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
}

/// The record of a line without its newline.
///
/// # Errors
/// When the line is torn, or of another version.
pub fn decode(line: &[u8]) -> Result<Record, LineFault> {
    let (sum, rest) = line.split_at_checked(8).ok_or(LineFault::Checksum)?;
    let json = rest.strip_prefix(b" ").ok_or(LineFault::Checksum)?;
    if format!("{:08x}", crc32fast::hash(json)).as_bytes() != sum {
        return Err(LineFault::Checksum);
    }
    serde_json::from_slice(json).map_err(LineFault::Content)
}
