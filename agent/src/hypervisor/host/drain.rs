//! Draining: a host goes out of service without its domains being stopped or moved (wire.md, point 10).

use std::sync::Arc;
use std::time::Duration;

use super::super::{StepFault, wait};
use super::Host;
use crate::config::OnRunningDomains;
use crate::executor::step::{Before, Progress, Step, StepError};

/// How many domains an error names.
const NAMED: usize = 5;

/// What going out of service may do about running domains.
pub(super) enum Verdict {
    /// There are none.
    Empty,
    /// They go on running.
    Left {
        /// How many.
        count: usize,
    },
}

impl Host {
    fn running(&self) -> Result<Vec<String>, StepFault> {
        let seen = self.site.libvirt.running_domains();
        let seen = seen.map_err(StepFault::libvirt("list the running domains"))?;
        Ok(seen.into_iter().map(|domain| domain.name).collect())
    }

    /// Whether networks and pools may go down now.
    ///
    /// # Errors
    /// When domains run and may not be left.
    pub(super) fn drained(&self) -> Result<Verdict, StepFault> {
        let mut names = self.running()?;
        let count = names.len();
        if count == 0 {
            return Ok(Verdict::Empty);
        }
        match self.config.on_running_domains {
            OnRunningDomains::Leave => Ok(Verdict::Left { count }),
            OnRunningDomains::Refuse => {
                names.truncate(NAMED);
                Err(StepFault::DomainsRun { count, names })
            }
        }
    }
}

/// Waits until no domain runs, then follows `on_running_domains`.
pub(super) struct Drain {
    host: Arc<Host>,
}

impl Drain {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

impl Step for Drain {
    fn name(&self) -> String {
        format!("drain {}", self.host.config.id)
    }

    fn deadline(&self) -> Duration {
        self.host.config.drain_wait + self.host.site.calls(2)
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        let at_most = self.host.config.drain_wait;
        let mut said = None;
        wait::until(at_most, Duration::from_secs(1), || {
            let count = self.host.running()?.len();
            if count == 0 {
                return Ok::<_, StepError>(Some(()));
            }
            progress.check_cancelled()?;
            if !at_most.is_zero() && said.replace(count) != Some(count) {
                progress.say(format!(
                    "waiting up to {at_most:?} for {count} running domains to end"
                ));
            }
            Ok(None)
        })?;
        if let Verdict::Left { count } = self.host.drained()? {
            progress.say(format!(
                "{count} domains go on running, with the networks and pools that they may need"
            ));
        }
        Ok(())
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}
