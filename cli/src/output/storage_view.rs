//! Storage pools and backups as `--output json` prints them: field names and words here are stable, since programs
//! read them. Amounts are in bytes, times RFC 3339 in UTC.

use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::units::UnixMillis;
use serde::Serialize;

use super::view::rfc3339;

/// The document of `hostler storage list`.
#[derive(Debug, Serialize)]
pub(crate) struct Pools<'a> {
    pub(crate) pools: &'a [Pool],
}

/// The document of `hostler backups list`.
#[derive(Debug, Serialize)]
pub(crate) struct Backups<'a> {
    pub(crate) pool: &'a str,
    pub(crate) backups: &'a [Backup],
}

/// What can be done with a pool now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PoolState {
    /// An operation can begin.
    Ready,
    /// One has begun; others wait.
    Busy,
    /// Its host has no live session.
    Unreachable,
    /// `problem` says why.
    NotUsable,
}

impl PoolState {
    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::NotUsable => "not usable",
        }
    }
}

/// What a device is to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Member,
    Spare,
    Refused,
    Missing,
    Unknown,
}

impl Role {
    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Spare => "spare",
            Self::Refused => "refused",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// A device of a pool, or one that it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Device {
    pub(crate) path: String,
    pub(crate) role: Role,
    pub(crate) capacity_bytes: u64,
    pub(crate) share_bytes: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) problem: String,
}

impl From<agent::PoolDevice> for Device {
    fn from(it: agent::PoolDevice) -> Self {
        use agent::DeviceRole;
        let role = match it.role() {
            DeviceRole::Member => Role::Member,
            DeviceRole::Spare => Role::Spare,
            DeviceRole::Refused => Role::Refused,
            DeviceRole::Missing => Role::Missing,
            DeviceRole::Unspecified => Role::Unknown,
        };
        Self {
            path: it.path,
            role,
            capacity_bytes: it.capacity_bytes,
            share_bytes: it.share_bytes,
            allocated_bytes: it.allocated_bytes,
            problem: it.problem,
        }
    }
}

/// A storage pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) is_default: bool,
    pub(crate) host: String,
    pub(crate) backend: String,
    pub(crate) path: String,
    pub(crate) state: PoolState,
    pub(crate) problem: String,
    pub(crate) connected: bool,
    pub(crate) size_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) spare_bytes: u64,
    pub(crate) smallest_bytes: u64,
    pub(crate) reserve_percent: u32,
    pub(crate) data_profile: String,
    pub(crate) metadata_profile: String,
    pub(crate) backup_repository: String,
    pub(crate) devices: Vec<Device>,
    pub(crate) operation_ids: Vec<String>,
    pub(crate) changed: Option<String>,
    pub(crate) enrolled: Option<String>,
}

impl From<fleet::StoragePool> for Pool {
    fn from(it: fleet::StoragePool) -> Self {
        let report = it.report.unwrap_or_default();
        let is_busy = !it.operation_ids.is_empty();
        // What the host said last is old news while it is away.
        let problem = match (it.connected, report.problem.is_empty()) {
            (true, false) => report.problem,
            _ => it.reason,
        };
        let state = match (it.connected, problem.is_empty()) {
            (false, _) => PoolState::Unreachable,
            // The operation may be the reason.
            (true, _) if is_busy => PoolState::Busy,
            (true, false) => PoolState::NotUsable,
            (true, true) => PoolState::Ready,
        };
        Self {
            name: it.name,
            is_default: it.is_default,
            host: it.host,
            backend: report.backend,
            path: report.path,
            state,
            problem,
            connected: it.connected,
            size_bytes: report.size_bytes,
            used_bytes: report.used_bytes,
            free_bytes: report.size_bytes.saturating_sub(report.used_bytes),
            spare_bytes: report.spare_bytes,
            smallest_bytes: report.smallest_bytes,
            reserve_percent: report.reserve_percent,
            data_profile: report.data_profile,
            metadata_profile: report.metadata_profile,
            backup_repository: report.backup_repository,
            devices: report.devices.into_iter().map(Device::from).collect(),
            operation_ids: it.operation_ids,
            changed: it.changed.map(rfc3339),
            enrolled: it.enrolled.map(rfc3339),
        }
    }
}

/// A backup. Files and bytes are null when they are not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Backup {
    pub(crate) id: String,
    pub(crate) time: String,
    pub(crate) host: String,
    pub(crate) operation_id: String,
    pub(crate) files: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) tags: Vec<String>,
}

impl From<agent::Backup> for Backup {
    fn from(it: agent::Backup) -> Self {
        // Of an empty backup both are 0 too, but there is none: it counts as failed.
        let known = |figure: u64| (figure > 0).then_some(figure);
        Self {
            id: it.id,
            time: UnixMillis(it.time_unix_ms).to_string(),
            host: it.host,
            operation_id: it.operation_id,
            files: known(it.files),
            bytes: known(it.bytes),
            tags: it.tags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_json_of_pools_is_stable() {
        let pools = samples::pools();
        insta::assert_snapshot!(serde_json::to_string_pretty(&Pools { pools: &pools }).unwrap());
    }

    #[test]
    fn the_json_of_backups_is_stable() {
        let backups = samples::backups();
        let document = Backups {
            pool: "fast",
            backups: &backups,
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
    }

    #[test]
    fn a_pool_whose_host_is_away_is_unreachable_whatever_it_said_last() {
        let pool = Pool::from(fleet::StoragePool {
            report: Some(agent::PoolReport {
                problem: "not mounted".into(),
                ..Default::default()
            }),
            reason: "its host node1 is not connected".into(),
            operation_ids: vec!["a".into()],
            ..Default::default()
        });
        assert_eq!(pool.state, PoolState::Unreachable);
        assert_eq!(pool.problem, "its host node1 is not connected");
    }
}
