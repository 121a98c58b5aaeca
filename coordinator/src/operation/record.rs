//! What is stored of an operation, as JSON under `/operations/<id>`.
//!
//! Stored data is read by later versions: a field is added with a default, never renamed or removed
//! (frozen samples in the tests).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_common::id::{Fence, HostName, OperationId, ResourceName};
use hostler_common::operation::Purpose;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1::OperationState;
use hostler_common::units::UnixMillis;
use prost_types::Any;
use serde::{Deserialize, Serialize};

use super::state::{End, Lease, Life, Operator, Phase};

/// Where operations lie in the store.
pub const PREFIX: &str = "/operations/";

/// Lines kept of one operation, and their bytes. Progress beyond them drops the oldest but the first: each line
/// writes the whole record.
const LINES_AT_MOST: usize = 300;
const LINE_BYTES_AT_MOST: usize = 32 * 1024;

/// The largest request that goes into lists, in bytes of base64. A restore may name a thousand files, and a page
/// holds a thousand operations.
const LISTED_REQUEST_AT_MOST: usize = 1024;

/// One durable request on one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Its id.
    pub id: OperationId,
    /// What it locks.
    pub resource: ResourceName,
    /// The host whose agent may take it; of a client's lock, the host of what is locked.
    pub host: HostName,
    /// What it is for.
    pub kind: Purpose,
    /// The request as it was received.
    pub request: StoredRequest,
    /// The URI of who asked.
    pub requested_by: String,
    /// When it was accepted.
    pub requested_at: UnixMillis,
    /// Why, in the words of who asked.
    pub reason: String,
    /// Where it stands.
    pub life: Life,
    /// The fence of its last holder.
    pub fence: Fence,
    /// What was said of it.
    pub logs: Logs,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
    /// Who wants it to stop, and why.
    #[serde(default)]
    pub cancel: Option<String>,
}

/// A `google.protobuf.Any` as JSON holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRequest {
    /// As `type.googleapis.com/operations.v1.CreateHypervisorRequest`.
    pub type_url: String,
    /// The message, base64.
    pub value: String,
}

impl From<&Any> for StoredRequest {
    fn from(any: &Any) -> Self {
        Self {
            type_url: any.type_url.clone(),
            value: STANDARD.encode(&any.value),
        }
    }
}

impl From<&StoredRequest> for Any {
    fn from(stored: &StoredRequest) -> Self {
        // Only our own encoder writes it; were it damaged, the request would decode as malformed.
        Self {
            type_url: stored.type_url.clone(),
            value: STANDARD.decode(&stored.value).unwrap_or_default(),
        }
    }
}

/// The lines of an operation, numbered from its first.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Lines dropped after the first one.
    dropped: u64,
    lines: Vec<Log>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// When it was accepted.
    pub at: UnixMillis,
    /// What was said.
    pub message: String,
}

impl Logs {
    /// Appends a line.
    pub fn push(&mut self, at: UnixMillis, message: impl Into<String>) {
        let message = message.into();
        let bytes = |lines: &[Log]| lines.iter().map(|log| log.message.len()).sum::<usize>();
        while self.lines.len() > 1
            && (self.lines.len() >= LINES_AT_MOST || bytes(&self.lines) + message.len() > LINE_BYTES_AT_MOST)
        {
            self.lines.remove(1);
            self.dropped = self.dropped.saturating_add(1);
        }
        self.lines.push(Log { at, message });
    }

    /// How many lines there have been.
    pub fn count(&self) -> u64 {
        self.dropped.saturating_add(self.lines.len() as u64)
    }

    /// The lines after the first `seen`, as far as they are kept.
    pub fn after(&self, seen: u64) -> &[Log] {
        let from = if seen == 0 {
            0
        } else {
            seen.saturating_sub(self.dropped).max(1)
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.lines.len());
        &self.lines[from..]
    }

    /// The last line; every operation has one.
    pub fn last(&self) -> &str {
        self.lines.last().map_or("", |log| &log.message)
    }
}

impl OperationRecord {
    /// Where it lies in the store.
    pub fn key(id: OperationId) -> String {
        format!("{PREFIX}{id}")
    }

    /// Who carries it out.
    pub fn operator(&self) -> Operator {
        match self.kind {
            Purpose::Work(_) => Operator::Agent,
            Purpose::Hold(_) => Operator::Client,
        }
    }

    /// The lease on it, while somebody holds it.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.life.phase {
            Phase::Active(lease) => Some(lease),
            Phase::Scheduled | Phase::Ended(_) => None,
        }
    }

    /// How it ended, when it has.
    pub fn end(&self) -> Option<End> {
        match self.life.phase {
            Phase::Ended(end) => Some(end),
            Phase::Scheduled | Phase::Active(_) => None,
        }
    }

    /// Its state on the wire.
    pub fn state(&self) -> OperationState {
        match &self.life.phase {
            Phase::Scheduled => OperationState::Scheduled,
            Phase::Active(_) => OperationState::Active,
            Phase::Ended(End::Completed) => OperationState::Completed,
            Phase::Ended(End::Failed | End::NeedsAttention) => OperationState::Failed,
        }
    }

    /// The whole of it on the wire; without logs for lists.
    pub fn to_rpc(&self, logs: Include) -> fleet::Operation {
        let lease = self.lease();
        let lines = match logs {
            Include::Logs => self.logs.after(0),
            Include::Summary => &[],
        };
        let listed = logs == Include::Logs || self.request.value.len() <= LISTED_REQUEST_AT_MOST;
        let to_log = |log: &Log| n0stack::operation::Log {
            ts: Some(log.at.into()),
            message: log.message.clone(),
        };
        fleet::Operation {
            id: self.id.to_string(),
            resource: self.resource.to_string(),
            kind: self.kind.name().to_owned(),
            state: self.state().into(),
            message: self.logs.last().to_owned(),
            requested_by: self.requested_by.clone(),
            requested: Some(self.requested_at.into()),
            reason: self.reason.clone(),
            ended: self.ended_at.map(Into::into),
            attempts: self.life.attempts,
            needs_attention: self.end() == Some(End::NeedsAttention),
            lease: Some(n0stack::Operation {
                operation_request: listed.then(|| (&self.request).into()),
                locked_until: lease.map(|lease| lease.locked_until.into()),
                is_disabled_cancel: lease.is_some_and(|lease| lease.is_disabled_cancel),
                proposing_peer_token: lease.map(|lease| lease.token.to_string()).unwrap_or_default(),
                logs: lines.iter().map(to_log).collect(),
            }),
            fence: self.fence.0,
        }
    }
}

/// How much of an operation goes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// With its logs.
    Logs,
    /// Without, and without a request that is long.
    Summary,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_when_old_ones_are_dropped() {
        let mut logs = Logs::default();
        for line in 0..LINES_AT_MOST + 10 {
            logs.push(UnixMillis(0), line.to_string());
        }
        assert_eq!(logs.count(), LINES_AT_MOST as u64 + 10);
        assert_eq!(logs.after(0)[0].message, "0");
        let seen = logs.count() - 2;
        let last: Vec<_> = logs.after(seen).iter().map(|log| log.message.clone()).collect();
        assert_eq!(
            last,
            [(LINES_AT_MOST + 8).to_string(), (LINES_AT_MOST + 9).to_string()]
        );
        assert_eq!(logs.after(5)[0].message, "11", "what was dropped is skipped");
        assert!(logs.after(u64::MAX).is_empty());
    }

    #[test]
    fn a_long_request_is_not_repeated_in_lists() {
        let sample = include_str!("../../tests/frozen/operation-ended-1.json");
        let mut record: OperationRecord = serde_json::from_str(sample).unwrap();
        let has = |record: &OperationRecord, logs| {
            let lease = record.to_rpc(logs).lease.unwrap();
            lease.operation_request.is_some()
        };
        assert!(has(&record, Include::Summary));
        record.request.value = "A".repeat(LISTED_REQUEST_AT_MOST + 1);
        assert!(!has(&record, Include::Summary));
        assert!(has(&record, Include::Logs));
    }
}
