//! The guest's domain: defined and started, stopped and undefined.

use std::sync::Arc;
use std::time::Duration;

use super::super::StepFault;
use super::Guest;
use crate::executor::step::{Before, Progress, Step, StepError};
use crate::libvirt::DomainState;

/// Defines the domain.
pub(super) struct Define(pub(super) Arc<Guest>);

/// Starts the domain.
pub(super) struct Start(pub(super) Arc<Guest>);

/// Stops the domain, as pulling the plug does.
pub(super) struct Stop(pub(super) Arc<Guest>);

/// Forgets the domain.
pub(super) struct Undefine(pub(super) Arc<Guest>);

impl Guest {
    fn before(&self) -> Result<Before, StepError> {
        Ok(match self.owned()? {
            None => Before::Absent,
            Some(DomainState::Off) => Before::Inactive,
            Some(DomainState::Running | DomainState::Halted) => Before::Active,
        })
    }

    fn ensure_started(&self) -> Result<(), StepFault> {
        match self.owned()? {
            Some(DomainState::Running) => Ok(()),
            Some(DomainState::Halted) => Err(StepFault::Halted {
                name: self.name.clone(),
            }),
            Some(DomainState::Off) | None => {
                let started = self.site.libvirt.start_domain(self.uuid);
                started.map_err(StepFault::libvirt(format!("start domain {}", self.name)))
            }
        }
    }

    fn ensure_stopped(&self) -> Result<(), StepFault> {
        match self.state()? {
            None | Some(DomainState::Off) => Ok(()),
            Some(DomainState::Running | DomainState::Halted) => {
                let stopped = self.site.libvirt.destroy_domain(self.uuid);
                stopped.map_err(StepFault::libvirt(format!("stop domain {}", self.name)))
            }
        }
    }

    fn ensure_undefined(&self) -> Result<(), StepFault> {
        if self.state()?.is_none() {
            return Ok(());
        }
        let undefined = self.site.libvirt.undefine_domain(self.uuid);
        undefined.map_err(StepFault::libvirt(format!("undefine domain {}", self.name)))
    }
}

impl Step for Define {
    fn name(&self) -> String {
        format!("define domain {}", self.0.name)
    }

    fn deadline(&self) -> Duration {
        self.0.site.calls(4)
    }

    fn look(&self) -> Result<Before, StepError> {
        self.0.before()
    }

    /// A domain of ours that is off gets the definition that the configuration asks for now; one that runs is
    /// left as it is.
    fn apply(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        if before == Before::Active {
            progress.say(format!("domain {} runs already", self.0.name));
            return Ok(());
        }
        self.0.owned()?;
        Ok(self.0.define()?)
    }

    /// A definition that was there before is not brought back: it was made by this agent too, from an older
    /// configuration.
    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        match before {
            Before::Absent => Ok(self.0.ensure_undefined()?),
            Before::Nothing | Before::Inactive | Before::Active => Ok(()),
        }
    }
}

impl Step for Start {
    fn name(&self) -> String {
        format!("start domain {}", self.0.name)
    }

    fn deadline(&self) -> Duration {
        self.0.site.calls(3)
    }

    fn look(&self) -> Result<Before, StepError> {
        self.0.before()
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(self.0.ensure_started()?)
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        match before {
            Before::Absent | Before::Inactive => Ok(self.0.ensure_stopped()?),
            Before::Nothing | Before::Active => Ok(()),
        }
    }
}

impl Step for Stop {
    fn name(&self) -> String {
        format!("stop domain {}", self.0.name)
    }

    fn deadline(&self) -> Duration {
        self.0.site.calls(3)
    }

    fn look(&self) -> Result<Before, StepError> {
        self.0.before()
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(self.0.ensure_stopped()?)
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        match before {
            Before::Active => Ok(self.0.ensure_started()?),
            Before::Nothing | Before::Absent | Before::Inactive => Ok(()),
        }
    }
}

impl Step for Undefine {
    fn name(&self) -> String {
        format!("undefine domain {}", self.0.name)
    }

    fn deadline(&self) -> Duration {
        self.0.site.calls(4)
    }

    fn look(&self) -> Result<Before, StepError> {
        self.0.before()
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(self.0.ensure_undefined()?)
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        let existed = match before {
            Before::Inactive | Before::Active => true,
            Before::Nothing | Before::Absent => false,
        };
        if existed && self.0.state()?.is_none() {
            self.0.define()?;
        }
        Ok(())
    }
}
