//! What `--output json` prints: field names and words here are stable, since programs read them. Tables are
//! drawn from the same values. Times are RFC 3339 in UTC, memory is in MB (2^20 bytes).

use hostler_common::rpc::hostler::agent::v1::{self as agent, HypervisorKind};
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::n0stack::protobuf::operation::Log;
use hostler_common::rpc::operations::v1 as operations;
use hostler_common::units::UnixMillis;
use prost_types::Timestamp;
use serde::Serialize;

use super::asked::Asked;
use super::text;

/// Whether a hypervisor is in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Unreachable, busy or locked.
    Unknown,
    /// AVAILABLE_TO_CREATE on the wire.
    OutOfService,
    /// AVAILABLE_TO_DESTROY on the wire.
    InService,
}

impl State {
    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::OutOfService => "out of service",
            Self::InService => "in service",
        }
    }
}

/// What kind of hypervisor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Host,
    Guest,
    Unknown,
}

impl Kind {
    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Guest => "guest",
            Self::Unknown => "unknown",
        }
    }
}

/// What a hypervisor can do beyond running domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Capability {
    Storage,
    Gpu,
}

impl Capability {
    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Gpu => "gpu",
        }
    }
}

/// A physical GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Gpu {
    pub(crate) pci_address: String,
    pub(crate) brand: String,
    pub(crate) model: String,
}

/// A shared path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SharedStorage {
    pub(crate) path: String,
    pub(crate) usable: bool,
    pub(crate) problem: String,
}

/// libvirt on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Libvirt {
    pub(crate) uri: String,
    pub(crate) version: String,
    pub(crate) problem: String,
}

/// A running domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Domain {
    pub(crate) name: String,
    pub(crate) uuid: String,
}

/// One hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Hypervisor {
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) connected: bool,
    pub(crate) cpu_threads: u32,
    pub(crate) memory_mb: u64,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) shared_storage: Vec<SharedStorage>,
    pub(crate) libvirt: Option<Libvirt>,
    pub(crate) running_domains: Vec<Domain>,
    pub(crate) operation_ids: Vec<String>,
    pub(crate) agent_version: String,
    pub(crate) last_heard: Option<String>,
    pub(crate) inventory_changed: Option<String>,
    pub(crate) enrolled: Option<String>,
}

impl From<fleet::Hypervisor> for Hypervisor {
    fn from(it: fleet::Hypervisor) -> Self {
        let (state, kind) = (it.state(), it.kind());
        let inventory = it.inventory.unwrap_or_default();
        let mut capabilities = Vec::new();
        // The same rule as ListHypervisors'.
        if !inventory.shared_storage.is_empty()
            && inventory.shared_storage.iter().all(|storage| storage.usable)
        {
            capabilities.push(Capability::Storage);
        }
        if !inventory.gpus.is_empty() {
            capabilities.push(Capability::Gpu);
        }
        Self {
            id: it.id,
            host: it.host,
            kind: match kind {
                HypervisorKind::Unspecified => Kind::Unknown,
                HypervisorKind::Host => Kind::Host,
                HypervisorKind::Guest => Kind::Guest,
            },
            state: match state {
                operations::HypervisorState::Unspecified | operations::HypervisorState::Unknown => {
                    State::Unknown
                }
                operations::HypervisorState::AvailableToCreate => State::OutOfService,
                operations::HypervisorState::AvailableToDestroy => State::InService,
            },
            reason: it.reason,
            connected: it.connected,
            cpu_threads: inventory.cpu_threads,
            memory_mb: inventory.memory_mb,
            capabilities,
            gpus: inventory
                .gpus
                .into_iter()
                .map(|gpu| Gpu {
                    pci_address: gpu.pci_address,
                    brand: gpu.brand,
                    model: gpu.model,
                })
                .collect(),
            shared_storage: inventory
                .shared_storage
                .into_iter()
                .map(|it| SharedStorage {
                    path: it.path,
                    usable: it.usable,
                    problem: it.problem,
                })
                .collect(),
            libvirt: inventory.libvirt.map(|it| Libvirt {
                uri: it.uri,
                version: it.version,
                problem: it.problem,
            }),
            running_domains: inventory
                .running_domains
                .into_iter()
                .map(|domain| Domain {
                    name: domain.name,
                    uuid: domain.uuid,
                })
                .collect(),
            operation_ids: it.operation_ids,
            agent_version: it.agent_version,
            last_heard: it.last_heard.map(rfc3339),
            inventory_changed: it.inventory_changed.map(rfc3339),
            enrolled: it.enrolled.map(rfc3339),
        }
    }
}

/// The document of `hostler hypervisors list`.
#[derive(Debug, Serialize)]
pub(crate) struct Hypervisors<'a> {
    pub(crate) hypervisors: &'a [Hypervisor],
}

/// The document of `hostler operations list`.
#[derive(Debug, Serialize)]
pub(crate) struct Operations<'a> {
    pub(crate) operations: &'a [Operation],
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperationState {
    Unknown,
    Scheduled,
    Active,
    Failed,
    Completed,
}

impl OperationState {
    /// As in the log of a stream.
    pub(crate) fn capitals(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Scheduled => "SCHEDULED",
            Self::Active => "ACTIVE",
            Self::Failed => "FAILED",
            Self::Completed => "COMPLETED",
        }
    }

    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Scheduled => "scheduled",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }

    /// From the wire; a state of a later version is unknown.
    pub(crate) fn of_wire(state: i32) -> Self {
        match operations::OperationState::try_from(state) {
            Ok(operations::OperationState::Unspecified) | Err(_) => Self::Unknown,
            Ok(operations::OperationState::Scheduled) => Self::Scheduled,
            Ok(operations::OperationState::Active) => Self::Active,
            Ok(operations::OperationState::Failed) => Self::Failed,
            Ok(operations::OperationState::Completed) => Self::Completed,
        }
    }
}

/// A line of an operation's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LogLine {
    pub(crate) time: Option<String>,
    pub(crate) message: String,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) resource: String,
    pub(crate) kind: String,
    pub(crate) state: OperationState,
    pub(crate) needs_attention: bool,
    pub(crate) message: String,
    pub(crate) requested_by: String,
    pub(crate) reason: String,
    pub(crate) requested: Option<String>,
    pub(crate) ended: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) fence: u64,
    pub(crate) locked_until: Option<String>,
    /// n0stack's: while it is held, it cannot be cancelled.
    pub(crate) is_disabled_cancel: bool,
    /// What it asks for beyond its kind and resource. Absent when that is nothing, or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Asked>,
    /// Absent in lists, which carry no logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logs: Option<Vec<LogLine>>,
}

impl Operation {
    /// As a list has it.
    pub(crate) fn listed(it: fleet::Operation) -> Self {
        let lease = it.lease.unwrap_or_default();
        Self {
            state: OperationState::of_wire(it.state),
            id: it.id,
            resource: it.resource,
            kind: text::snake_case(&it.kind),
            needs_attention: it.needs_attention,
            message: it.message,
            requested_by: it.requested_by,
            reason: it.reason,
            requested: it.requested.map(rfc3339),
            ended: it.ended.map(rfc3339),
            attempts: it.attempts,
            fence: it.fence,
            locked_until: lease.locked_until.map(rfc3339),
            is_disabled_cancel: lease.is_disabled_cancel,
            request: lease.operation_request.as_ref().and_then(Asked::of),
            logs: None,
        }
    }

    /// Whole, with its logs.
    pub(crate) fn whole(mut it: fleet::Operation) -> Self {
        let logs = it
            .lease
            .as_mut()
            .map(|lease| std::mem::take(&mut lease.logs))
            .unwrap_or_default();
        let line = |log: Log| LogLine {
            time: log.ts.map(rfc3339),
            message: log.message,
        };
        Self {
            logs: Some(logs.into_iter().map(line).collect()),
            ..Self::listed(it)
        }
    }
}

/// How far an operation is, in a line of JSON. 0 and null: not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Measure<'a> {
    pub(crate) what: &'a str,
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) percent: u64,
    pub(crate) bytes_per_second: u64,
    pub(crate) seconds_left: Option<u64>,
    pub(crate) done_files: u64,
    pub(crate) total_files: u64,
}

impl<'a> Measure<'a> {
    /// From the wire.
    pub(crate) fn of(it: &'a agent::Measure) -> Self {
        Self {
            what: &it.what,
            done_bytes: it.done_bytes,
            total_bytes: it.total_bytes,
            percent: hostler_common::measure::percent(it),
            bytes_per_second: it.bytes_per_second,
            seconds_left: it.seconds_left,
            done_files: it.done_files,
            total_files: it.total_files,
        }
    }
}

/// RFC 3339 in UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    UnixMillis::from(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_json_of_hypervisors_is_stable() {
        let list = samples::hypervisors();
        insta::assert_snapshot!(serde_json::to_string_pretty(&Hypervisors { hypervisors: &list }).unwrap());
    }

    #[test]
    fn the_json_of_operations_is_stable() {
        let mut list = samples::operations();
        list[1].logs = None;
        list[2].logs = None;
        insta::assert_snapshot!(serde_json::to_string_pretty(&Operations { operations: &list }).unwrap());
    }
}
