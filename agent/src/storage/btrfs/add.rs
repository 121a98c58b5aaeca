//! A spare device becomes part of the pool.
//!
//! `btrfs device add` runs without `-f`, so that it refuses whatever slipped through our own checks, and without the
//! discard of the whole device: that takes minutes on some, holds up every look at the devices meanwhile, and is the
//! only part that a person could not take back.

use std::path::Path;
use std::time::Duration;

use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;

use super::figures::{Exclusive, Show};
use super::members::{self, whole_sectors};
use super::mount::Access;
use super::{Btrfs, cannot_tell};
use crate::executor::step::{Progress, StepError};
use crate::storage::PoolFault;
use crate::storage::pool::DeviceName;

/// Milliseconds, unless the device or a commit hangs.
const ADDED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// How large a device must be to be the one that is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    /// As it was planned with.
    Exactly(Bytes),
    /// As much as the pool had of it.
    AtLeast(Bytes),
}

impl Btrfs {
    /// Adds `device`, unless it is another one than is `wanted`.
    pub(super) fn add(
        &self,
        device: &DeviceName,
        wanted: Wanted,
        progress: &Progress,
    ) -> Result<(), StepError> {
        let pool = &self.settings.pool;
        let block = members::find(device)?;
        let is_in = |access| {
            let view = self.view(access)?;
            let share = view.member(block).map(|member| member.share);
            Ok::<_, PoolFault>((view, share.is_some_and(|share| share > Bytes::ZERO)))
        };
        let (mut view, mut there) = is_in(Access::Write)?;
        if !there && view.exclusive()? != Exclusive::Nothing {
            self.wait_for_turn(&view.sysfs, progress)?;
            // What was waited for may have been just this.
            (view, there) = is_in(Access::Write)?;
        }
        if there {
            return Ok(());
        }
        let sector = view.sysfs.sector().map_err(cannot_tell)?;
        let added = {
            let _alone = self.devices();
            let never = |why: String| StepError::message(why, Retry::Never);
            let clean = self
                .checks
                .check_thoroughly(Path::new(&device.0))
                .map_err(never)?;
            let found = whole_sectors(clean.capacity, sector);
            let other = match wanted {
                Wanted::Exactly(planned) if found != planned => Some(("", planned)),
                Wanted::AtLeast(had) if found < had => Some(("at least ", had)),
                Wanted::Exactly(_) | Wanted::AtLeast(_) => None,
            };
            if let Some((at_least, planned)) = other {
                return Err(never(format!(
                    "{device} has {} and not {at_least}the {} that were planned with: it may be another device now",
                    found.exact(),
                    planned.exact()
                )));
            }
            let path = clean.path.display().to_string();
            let command = ["device", "add", "--nodiscard", "--", &path, &self.path()].map(str::to_owned);
            self.btrfs.command(command).succeed(ADDED_WITHIN)
        };
        let (after, there) = is_in(Access::Read)?;
        if let Some(member) = after.member(block).filter(|_| there) {
            // The pool stays writable when one device loses its superblock, so that the kernel reports no failure.
            return match after.sysfs.lost_writes(member.id).map_err(cannot_tell)? {
                0 => Ok(()),
                lost => self.give_back_failing(device, lost, progress),
            };
        }
        let state = self.state_after_failure(device, &view.show, &after.show, progress);
        let what = format!("cannot add {device} to pool {pool}, {state}");
        Err(match added {
            Ok(_) => StepError::message(what, Retry::ReadBack),
            Err(fault) => PoolFault::caused(what, fault.retry(), fault).into(),
        })
    }

    fn give_back_failing(
        &self,
        device: &DeviceName,
        lost: u64,
        progress: &Progress,
    ) -> Result<(), StepError> {
        let pool = &self.settings.pool;
        self.take_back_add(device, progress)?;
        Err(StepError::message(
            format!(
                "{device} failed while it was added: {lost} writes to it were lost; pool {pool} is as before"
            ),
            Retry::Never,
        ))
    }

    fn state_after_failure(
        &self,
        device: &DeviceName,
        before: &Show,
        after: &Show,
        progress: &Progress,
    ) -> String {
        self.clear_if_possible(device, after, progress);
        if let Err(fault) = self.view(Access::Write) {
            return fault.to_string();
        }
        let ids = |show: &Show| show.devices.iter().map(|shown| shown.id.0).collect::<Vec<_>>();
        match ids(before) == ids(after) {
            true => "whose devices are as before".to_owned(),
            false => "whose devices others changed meanwhile".to_owned(),
        }
    }

    /// Takes back what an add did, or did half. A device that is gone, or cannot be read, was not added.
    pub(super) fn take_back_add(&self, device: &DeviceName, progress: &Progress) -> Result<(), StepError> {
        let view = self.view(Access::Read)?;
        match members::find(device) {
            Ok(block) if view.member(block).is_some() => {
                let removed = self.remove(device, None, Bytes::ZERO, progress);
                match self.view(Access::Read)?.member(block) {
                    Some(_) => removed,
                    None => Ok(()),
                }
            }
            Err(fault) if view.missing() => Err(fault.into()),
            Ok(_) | Err(_) => {
                self.clear_if_possible(device, &view.show, progress);
                Ok(())
            }
        }
    }

    /// A failing device may not even be readable; it is no part of the pool all the same.
    fn clear_if_possible(&self, device: &DeviceName, show: &Show, progress: &Progress) {
        if Path::new(&device.0).exists()
            && let Err(error) = self.clear_own_signature(device, show)
        {
            progress.say(error.to_string());
        }
    }
}
