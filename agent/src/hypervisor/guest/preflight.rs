//! What must be so before a guest is built or removed. It looks and changes nothing.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::super::StepFault;
use super::super::domain_type::DomainType;
use super::Guest;
use super::overlay::KnownOurs;
use crate::executor::step::{Before, Progress, Step, StepError};
use crate::inventory::Machine;
use crate::libvirt::{DomainState, Presence};

/// Checks what building a guest needs.
pub(super) struct CheckBuild(pub(super) Arc<Guest>);

/// Checks what removing a guest needs: nothing may be half removed because its pool was inactive or its volume is
/// somebody else's.
pub(super) struct CheckRemoval {
    pub(super) guest: Arc<Guest>,
    pub(super) known: KnownOurs,
}

impl Guest {
    fn check_build(&self, progress: &Progress) -> Result<(), StepFault> {
        let Self { config, site, .. } = self;
        let state = self.owned()?;
        let domain_type = DomainType::choose(config.domain_type, &site.libvirt)?;
        progress.say(format!("it will run by {domain_type}"));
        self.check_pool()?;
        self.base_image()?;
        for path in [&config.kernel, &config.initrd, &config.template]
            .into_iter()
            .flatten()
        {
            File::open(path).map_err(|source| StepFault::File {
                path: path.clone(),
                source,
            })?;
        }
        // libvirt makes the log, and not the folder that it is in.
        if let Some(log) = &config.serial_log {
            let folder = log.parent().unwrap_or(log);
            std::fs::read_dir(folder).map_err(|source| StepFault::LogFolder {
                log: log.clone(),
                source,
            })?;
        }
        // A guest that runs has its memory already.
        if state != Some(DomainState::Running) {
            let available_mb = Machine::read().available_mb;
            if available_mb < config.memory_mb.get() {
                return Err(StepFault::MemoryShort {
                    domain: self.name.clone(),
                    available_mb,
                    needed_mb: config.memory_mb.get(),
                });
            }
        }
        Ok(())
    }

    fn check_pool(&self) -> Result<(), StepFault> {
        let pool = &self.config.pool;
        let presence = self.site.libvirt.pool(pool);
        match presence.map_err(StepFault::libvirt(format!("look for pool {pool}")))? {
            Presence::Active => Ok(()),
            Presence::Inactive => Err(StepFault::PoolNotActive { pool: pool.clone() }),
            Presence::Absent => Err(StepFault::NotDefined {
                object: format!("pool {pool}"),
            }),
        }
    }
}

impl Step for CheckBuild {
    fn name(&self) -> String {
        format!("check what {} needs", self.0.name)
    }

    fn deadline(&self) -> Duration {
        self.0.site.calls(2)
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        Ok(self.0.check_build(progress)?)
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}

impl Step for CheckRemoval {
    fn name(&self) -> String {
        format!("check that {} can be removed", self.guest.name)
    }

    fn deadline(&self) -> Duration {
        self.guest.site.calls(5)
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        self.guest.owned()?;
        self.guest.check_pool()?;
        Ok(self.guest.check_overlay(&self.known)?)
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}
