//! The host's readiness: the last step of putting it in service.

use std::sync::Arc;
use std::time::Duration;

use super::Host;
use crate::executor::step::{Before, Progress, Step, StepError};

/// Waits until the host's probe says that it is ready.
pub(super) struct AwaitReadiness {
    host: Arc<Host>,
}

impl AwaitReadiness {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

impl Step for AwaitReadiness {
    fn name(&self) -> String {
        format!("wait until {} is ready", self.host.config.id)
    }

    fn deadline(&self) -> Duration {
        self.host.config.readiness_timeout + self.host.site.calls(1)
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        let Some(probe) = &self.host.probe else {
            return Ok(());
        };
        probe.wait(self.host.config.readiness_timeout, || progress.check_cancelled())
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}
