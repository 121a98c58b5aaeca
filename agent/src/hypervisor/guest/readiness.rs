//! The guest's readiness: the last step of building it.

use std::sync::Arc;
use std::time::Duration;

use super::super::{StepFault, probe};
use super::Guest;
use crate::executor::step::{Before, Progress, Step, StepError};
use crate::libvirt::DomainState;

/// Waits until the guest's probe says that it is ready, or the guest ends.
pub(super) struct AwaitReadiness(pub(super) Arc<Guest>);

impl Step for AwaitReadiness {
    fn name(&self) -> String {
        format!("wait until {} is ready", self.0.name)
    }

    fn deadline(&self) -> Duration {
        self.0.config.readiness_timeout + self.0.site.calls(2)
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        let guest = &self.0;
        let Some(probe) = &guest.probe else { return Ok(()) };
        probe.wait(guest.config.readiness_timeout, || match guest.state()? {
            Some(DomainState::Running | DomainState::Halted) => progress.check_cancelled(),
            Some(DomainState::Off) | None => Err(StepError::from(StepFault::StoppedEarly {
                name: guest.name.clone(),
                last_line: guest
                    .config
                    .serial_log
                    .as_ref()
                    .map(probe::last_line_of)
                    .unwrap_or_default(),
            })),
        })
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}
