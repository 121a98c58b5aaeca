//! What is stored of a hypervisor, as JSON under `/hypervisors/<id>`, and of a storage pool, under `/pools/<name>`.
//!
//! Stored data is read by later versions: a field is added with a default, never renamed or removed.
//! Running domains are not stored: they change with every desktop that starts. A pool's figures are stored with
//! whatever else changes, never for their own sake: they change with every file that is written.

use hostler_common::id::{HostName, HypervisorId, PoolName};
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::units::UnixMillis;
use serde::{Deserialize, Serialize};

/// Where hypervisors lie in the store.
pub const PREFIX: &str = "/hypervisors/";

/// Where storage pools lie in the store.
pub const POOLS_PREFIX: &str = "/pools/";

/// An enrolled hypervisor, as last reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HypervisorRecord {
    /// Its id.
    pub id: HypervisorId,
    /// The host that it belongs to for good.
    pub host: HostName,
    /// Its kind.
    pub kind: Kind,
    /// What the agent saw.
    pub observed: Observed,
    /// What the agent said of it.
    pub detail: String,
    /// What it has.
    pub inventory: agent::Inventory,
    /// When it was first reported.
    pub enrolled_at: UnixMillis,
    /// When any of this last changed.
    pub changed_at: UnixMillis,
}

impl HypervisorRecord {
    /// Where it lies in the store.
    pub fn key(id: &HypervisorId) -> String {
        format!("{PREFIX}{id}")
    }
}

/// What a hypervisor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The host itself.
    Host,
    /// A domain that the agent builds.
    Guest,
}

impl From<Kind> for agent::HypervisorKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Host => Self::Host,
            Kind::Guest => Self::Guest,
        }
    }
}

/// What an agent saw of a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// It cannot be told.
    Unknown,
    /// In service.
    InService,
    /// Out of service.
    OutOfService,
}

/// An enrolled storage pool, as last reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Its name.
    pub name: PoolName,
    /// The host that owns it for good.
    pub host: HostName,
    /// What the owner said of it when it was last stored.
    pub report: agent::PoolReport,
    /// When it was first reported.
    pub enrolled_at: UnixMillis,
    /// When anything of it but its figures last changed.
    pub changed_at: UnixMillis,
}

impl PoolRecord {
    /// Where it lies in the store.
    pub fn key(name: &PoolName) -> String {
        format!("{POOLS_PREFIX}{name}")
    }
}

/// Whether two reports of a pool say the same but for the figures that change while it is used.
pub fn same_but_figures(one: &agent::PoolReport, other: &agent::PoolReport) -> bool {
    without_figures(one) == without_figures(other)
}

fn without_figures(report: &agent::PoolReport) -> agent::PoolReport {
    let mut report = agent::PoolReport {
        used_bytes: 0,
        spare_bytes: 0,
        smallest_bytes: 0,
        ..report.clone()
    };
    for device in &mut report.devices {
        device.allocated_bytes = 0;
    }
    report
}
