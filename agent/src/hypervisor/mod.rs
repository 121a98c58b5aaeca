//! The hypervisors of this host: what an operation does to each, and what is true of it.
//!
//! What is true is read from libvirt and from the site's own status command each time; nothing here remembers
//! whether a hypervisor is in service.

mod domain_type;
mod fault;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzed;
mod guest;
mod host;
mod probe;
mod report;
mod wait;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hostler_common::id::HypervisorId;
use hostler_common::operation::{OperationKind, Request};
use hostler_common::rpc::hostler::agent::v1::{Gpu, HostReport, SharedStorage};
use thiserror::Error;

use crate::command::CommandFault;
use crate::config::{AgentConfig, GpuOverride, HypervisorConfig};
use crate::executor::plan::Planned;
use crate::inventory::storage::SharedPath;
use crate::libvirt::Libvirt;

pub use fault::StepFault;
use guest::Guest;
use host::Host;

/// Why the configured hypervisors cannot be served.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A file that the configuration names cannot be read.
    #[error("cannot read {} for hypervisor {id}", path.display())]
    Read {
        /// The hypervisor.
        id: HypervisorId,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program that it needs cannot be run.
    #[error("hypervisor {id} cannot be served")]
    Program {
        /// The hypervisor.
        id: HypervisorId,
        /// Why.
        #[source]
        source: CommandFault,
    },
    /// A definition is not of what the configuration says.
    #[error("{} of hypervisor {id} is not the definition of {object}: {problem}", path.display())]
    Definition {
        /// The hypervisor.
        id: HypervisorId,
        /// The file.
        path: PathBuf,
        /// What it should define.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The domain template is not a template.
    #[error("the domain template of hypervisor {id} is not valid")]
    Template {
        /// The hypervisor.
        id: HypervisorId,
        /// Why.
        #[source]
        source: Box<minijinja::Error>,
    },
}

/// Why there are no steps for an operation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The configuration does not hold the hypervisor.
    #[error("hypervisor {id} is not in the agent's configuration; was it removed?")]
    NotConfigured {
        /// The hypervisor.
        id: HypervisorId,
    },
    /// The operation is on something else.
    #[error("{} is not an operation on a hypervisor", kind.name())]
    NotOnAHypervisor {
        /// What it does.
        kind: OperationKind,
    },
}

/// Where an operation brings a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    InService,
    OutOfService,
}

/// What every hypervisor of the host shares.
struct Site {
    libvirt: Libvirt,
    call_timeout: Duration,
    state_dir: PathBuf,
    run_dir: PathBuf,
    shared_storage: Vec<SharedPath>,
    gpu_names: Vec<GpuOverride>,
}

impl Site {
    /// Time for `calls` libvirt calls, one after the other.
    fn calls(&self, calls: u32) -> Duration {
        self.call_timeout.saturating_mul(calls)
    }
}

enum Hypervisor {
    Host(Arc<Host>),
    Guest(Arc<Guest>),
}

/// How much of the host is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What a domain that starts or ends changes. GPUs and shared storage are as last seen.
    Quick,
    /// All of it.
    Whole,
}

/// What only a whole look reads.
struct Seen {
    /// Cards do not leave while libvirt is down, and a report without them would say so.
    gpus: Vec<Gpu>,
    shared_storage: Vec<SharedStorage>,
}

/// Every configured hypervisor of this host.
pub struct Hypervisors {
    site: Arc<Site>,
    all: Vec<Hypervisor>,
    seen: Mutex<Seen>,
}

impl Hypervisors {
    /// Reads what the configuration names and finds the programs it needs. It does not talk to libvirt.
    ///
    /// # Errors
    /// When a file or a program is missing or is not what it should be.
    pub fn new(config: &AgentConfig, libvirt: Libvirt) -> Result<Self, SetupError> {
        let site = Arc::new(Site {
            libvirt,
            call_timeout: config.libvirt.call_timeout,
            state_dir: config.state_dir.to_path_buf(),
            run_dir: config.run_dir.to_path_buf(),
            shared_storage: config
                .shared_storage
                .iter()
                .cloned()
                .map(SharedPath::new)
                .collect(),
            gpu_names: config.gpus.clone(),
        });
        let set_up = |hypervisor: &HypervisorConfig| {
            Ok(match hypervisor {
                HypervisorConfig::Host(host) => Hypervisor::Host(Arc::new(Host::new(host, site.clone())?)),
                HypervisorConfig::Guest(guest) => {
                    Hypervisor::Guest(Arc::new(Guest::new(guest, site.clone())?))
                }
            })
        };
        let all = config.hypervisors.iter().map(set_up).collect::<Result<_, _>>()?;
        let seen = Mutex::new(Seen {
            gpus: Vec::new(),
            shared_storage: report::unchecked(&site),
        });
        Ok(Self { site, all, seen })
    }

    /// The steps of an operation, in order. It looks at nothing, so it does not block.
    ///
    /// # Errors
    /// When the configuration does not hold the hypervisor, or the request is about something else.
    pub fn plan(&self, request: &Request) -> Result<Planned, PlanError> {
        let (id, aim, past) = match request {
            Request::CreateHypervisor(id) => (id, Aim::InService, "created"),
            Request::DestroyHypervisor(id) => (id, Aim::OutOfService, "destroyed"),
            Request::ExpandStorage { .. }
            | Request::ShrinkStorage { .. }
            | Request::CreateBackup
            | Request::VerifyBackup { .. }
            | Request::RestoreBackup { .. }
            | Request::DeleteBackup { .. } => {
                return Err(PlanError::NotOnAHypervisor { kind: request.kind() });
            }
        };
        let hypervisor = self.all.iter().find(|hypervisor| hypervisor.id() == id);
        let steps = match hypervisor.ok_or_else(|| PlanError::NotConfigured { id: id.clone() })? {
            Hypervisor::Host(host) => host.plan(aim),
            Hypervisor::Guest(guest) => guest.plan(aim),
        };
        Ok(Planned {
            success: format!("{id} is {past}: {} steps done", steps.len()),
            steps,
            // The configuration says everything.
            decided: serde_json::Value::Null,
            says: Vec::new(),
        })
    }

    /// The host and every hypervisor as they are now. It blocks. It never fails: what cannot be told is
    /// reported so, with the reason.
    pub fn report(&self, look: Look) -> HostReport {
        report::read(self, look)
    }

    /// The host and every hypervisor before anything was asked of libvirt: from the configuration and the
    /// machine alone.
    pub fn unseen(&self) -> HostReport {
        report::unseen(self)
    }
}

impl Hypervisor {
    fn id(&self) -> &HypervisorId {
        match self {
            Self::Host(host) => host.id(),
            Self::Guest(guest) => guest.id(),
        }
    }
}
