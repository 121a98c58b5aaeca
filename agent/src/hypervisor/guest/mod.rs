//! Kind `guest`: a domain that the agent builds from a base image.
//!
//! The domain is ours when its UUID is the one derived from the hypervisor's id. A domain of the same name with
//! another UUID is somebody else's and is never touched; nor is a volume of our name that neither is an overlay of
//! the base image nor a disk of our domain.

mod domain;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzed;
mod overlay;
mod preflight;
mod readiness;
mod template;

use std::sync::Arc;

use hostler_common::error::Chain;
use hostler_common::id::HypervisorId;
use hostler_common::rpc::hostler::agent::v1::Observed;
use uuid::Uuid;

use super::domain_type::DomainType;
use super::probe::Probe;
use super::{Aim, SetupError, Site, StepFault};
use crate::config::{DomainName, GuestConfig, VolumeName};
use crate::executor::step::Step;
use crate::libvirt::DomainState;
use domain::{Define, Start, Stop, Undefine};
use overlay::{CreateOverlay, DeleteOverlay, KnownOurs};
use preflight::{CheckBuild, CheckRemoval};
use readiness::AwaitReadiness;
use template::{Template, Values};

/// The namespace of every guest's UUID (RFC 9562, version 5). It never changes: domains in the field are
/// recognised by it.
const NAMESPACE: Uuid = Uuid::from_u128(0x5a2e_91c4_6d0f_4b7e_a3c8_1f94_d7b6_e025);

/// A guest hypervisor.
pub(super) struct Guest {
    config: GuestConfig,
    site: Arc<Site>,
    name: DomainName,
    uuid: Uuid,
    overlay: VolumeName,
    template: Template,
    probe: Option<Probe>,
}

impl Guest {
    /// Reads the template and finds the programs that `config` names.
    pub(super) fn new(config: &GuestConfig, site: Arc<Site>) -> Result<Self, SetupError> {
        let id = &config.id;
        let template = match &config.template {
            None => Template::built_in(),
            Some(path) => {
                let source = std::fs::read_to_string(path).map_err(|source| SetupError::Read {
                    id: id.clone(),
                    path: path.to_path_buf(),
                    source,
                })?;
                Template::parse(source).map_err(|source| SetupError::Template {
                    id: id.clone(),
                    source,
                })?
            }
        };
        let probe = Probe::new(config.readiness.as_ref(), config.serial_log.as_ref());
        let probe = probe.map_err(|source| SetupError::Program {
            id: id.clone(),
            source,
        })?;
        let is_a_name = "an id holds only characters that a libvirt name may hold";
        Ok(Self {
            name: id.as_str().parse().expect(is_a_name),
            uuid: Uuid::new_v5(&NAMESPACE, id.as_str().as_bytes()),
            overlay: format!("hostler-{id}.qcow2").parse().expect(is_a_name),
            config: config.clone(),
            site,
            template,
            probe,
        })
    }

    pub(super) fn id(&self) -> &HypervisorId {
        &self.config.id
    }

    pub(super) fn config(&self) -> &GuestConfig {
        &self.config
    }

    /// The steps of an operation, in order.
    pub(super) fn plan(self: &Arc<Self>, aim: Aim) -> Vec<Box<dyn Step>> {
        match aim {
            Aim::InService => {
                let mut steps: Vec<Box<dyn Step>> = vec![
                    Box::new(CheckBuild(self.clone())),
                    Box::new(CreateOverlay(self.clone())),
                    Box::new(Define(self.clone())),
                    Box::new(Start(self.clone())),
                ];
                if self.probe.is_some() {
                    steps.push(Box::new(AwaitReadiness(self.clone())));
                }
                steps
            }
            Aim::OutOfService => {
                let known = KnownOurs::default();
                vec![
                    Box::new(CheckRemoval {
                        guest: self.clone(),
                        known: known.clone(),
                    }),
                    Box::new(Stop(self.clone())),
                    Box::new(Undefine(self.clone())),
                    Box::new(DeleteOverlay {
                        guest: self.clone(),
                        known,
                    }),
                ]
            }
        }
    }

    /// Whether the guest is in service, and why that is what is seen.
    pub(super) fn observe(&self) -> (Observed, String) {
        match self.owned() {
            Ok(Some(DomainState::Running)) => (Observed::InService, String::new()),
            Ok(Some(DomainState::Off)) => (
                Observed::OutOfService,
                format!("domain {} is off and still defined", self.name),
            ),
            Ok(None) => (Observed::OutOfService, self.left_over()),
            Ok(Some(DomainState::Halted)) => (
                Observed::Unknown,
                format!("domain {} is paused, suspended or going down", self.name),
            ),
            Err(fault) => (Observed::Unknown, Chain(&fault).to_string()),
        }
    }

    /// What a destroy would still remove although there is no domain; empty when nothing.
    fn left_over(&self) -> String {
        match self.overlay_seen() {
            Ok(Some(_)) => format!("volume {} is still there", self.overlay),
            // A pool that is not active is the matter of the next create.
            Ok(None) | Err(_) => String::new(),
        }
    }

    /// The state of our domain, or nothing when there is none.
    fn state(&self) -> Result<Option<DomainState>, StepFault> {
        let state = self.site.libvirt.domain(self.uuid);
        state.map_err(StepFault::libvirt(format!("look for domain {}", self.name)))
    }

    /// The same, and refuses a domain of our name that is not ours.
    fn owned(&self) -> Result<Option<DomainState>, StepFault> {
        let state = self.state()?;
        if state.is_none() {
            let named = self.site.libvirt.domain_named(&self.name);
            let named = named.map_err(StepFault::libvirt(format!("look for domain {}", self.name)))?;
            if let Some(uuid) = named.filter(|uuid| *uuid != self.uuid) {
                return Err(StepFault::ForeignDomain {
                    name: self.name.clone(),
                    uuid,
                });
            }
        }
        Ok(state)
    }

    /// Defines our domain from the template.
    fn define(&self) -> Result<(), StepFault> {
        let overlay = self.overlay_seen()?.ok_or_else(|| StepFault::NotDefined {
            object: format!("volume {}", self.overlay),
        })?;
        let domain_type = DomainType::choose(self.config.domain_type, &self.site.libvirt)?;
        let values = Values {
            domain_type: domain_type.as_str(),
            machine: machine(domain_type),
            uuid: self.uuid.to_string(),
            disk: overlay.path.display().to_string(),
            ..Values::of(&self.config)
        };
        let xml = self
            .template
            .render(&values)
            .map_err(|source| StepFault::Template {
                name: self.name.clone(),
                source,
            })?;
        // libvirt takes a definition by the name and the UUID that are in it, so another's could be replaced.
        if let Some(problem) = template::other_domain(&xml, self.name.as_str(), self.uuid) {
            return Err(StepFault::OtherDomain {
                name: self.name.clone(),
                problem,
            });
        }
        let defined = self.site.libvirt.define_domain(&xml);
        defined.map_err(StepFault::libvirt(format!("define domain {}", self.name)))
    }
}

/// PCI devices are passed through to a PCI Express machine; libvirt's default on x86 is the older one. Other
/// architectures have a good default.
fn machine(domain_type: DomainType) -> Option<&'static str> {
    match domain_type {
        DomainType::Kvm | DomainType::Qemu => cfg!(target_arch = "x86_64").then_some("q35"),
        DomainType::Test => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_uuid_never_changes() {
        let uuid = Uuid::new_v5(&NAMESPACE, b"demo-guest-1");
        assert_eq!(uuid.to_string(), "ecd017ff-44f1-5243-b6fc-d1838fcea60f");
    }
}
