//! What must be so before a host goes into service. It looks and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::units::UnixMillis;
use nix::sys::statvfs::statvfs;

use super::super::domain_type::DomainType;
use super::super::{Site, StepFault};
use super::Host;
use crate::config::FreeDisk;
use crate::executor::step::{Before, Progress, Step, StepError};
use crate::inventory::storage::DEADLINE;

/// 2026-11-01, before which this version was not there. A host whose clock says less lost its battery; its TLS
/// and its leases would be wrong too.
const MADE: UnixMillis = UnixMillis(1_793_491_200_000);

/// Checks the host.
pub(super) struct Preflight {
    host: Arc<Host>,
}

impl Preflight {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    fn check(&self, site: &Site, progress: &Progress) -> Result<(), StepFault> {
        let config = &self.host.config;
        check_clock(UnixMillis::now())?;
        let version = site.libvirt.version();
        let version = version.map_err(StepFault::libvirt("ask libvirt for its version"))?;
        progress.say(format!("libvirt {version} answers at {}", site.libvirt.uri()));
        let domain_type = DomainType::choose(config.domain_type, &site.libvirt)?;
        progress.say(format!("domains run by {domain_type}"));
        for storage in &site.shared_storage {
            storage.check(&site.libvirt).map_err(StepFault::Storage)?;
            let storage = storage.config();
            progress.say(format!(
                "{} is mounted from {} and writable",
                storage.path, storage.source
            ));
        }
        config.free_disk.iter().try_for_each(check_space)
    }
}

impl Step for Preflight {
    fn name(&self) -> String {
        format!("check what {} needs", self.host.config.id)
    }

    fn deadline(&self) -> Duration {
        let storage = u32::try_from(self.host.site.shared_storage.len()).unwrap_or(u32::MAX);
        let calls = self.host.site.calls(storage.saturating_add(2));
        // Its own deadline comes first, so that a path that hangs is named.
        calls + DEADLINE.saturating_mul(storage)
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        Ok(self.check(&self.host.site, progress)?)
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}

fn check_clock(now: UnixMillis) -> Result<(), StepFault> {
    if now < MADE {
        return Err(StepFault::ClockWrong { now: now.to_string() });
    }
    Ok(())
}

fn check_space(space: &FreeDisk) -> Result<(), StepFault> {
    let seen = statvfs(space.path.as_ref()).map_err(|errno| StepFault::File {
        path: space.path.clone(),
        source: errno.into(),
    })?;
    // What root's reserve leaves to everyone: libvirt's own processes need not be root.
    let free = seen.blocks_available().saturating_mul(seen.fragment_size());
    if free < space.at_least_mb.bytes() {
        return Err(StepFault::DiskFull {
            path: space.path.clone(),
            free_mb: free >> 20,
            needed_mb: space.at_least_mb.get(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_this_version_is_wrong() {
        check_clock(UnixMillis::now()).unwrap();
        let fault = check_clock(UnixMillis(0)).unwrap_err();
        assert!(fault.to_string().contains("1970-01-01"), "{fault}");
    }
}
