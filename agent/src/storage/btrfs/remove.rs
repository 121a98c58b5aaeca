//! A device leaves the pool: the kernel moves what is on it to the others, then forgets it.
//!
//! The kernel's work is transactional: whenever it stops, by cancel, kill, crash or for want of room, all data is
//! whole and the device still a member. The invariant: two removals never run at once, since one that runs
//! already is followed.

use std::time::Instant;

use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;

use super::figures::{DeviceId, Exclusive, Shown};
use super::long::{Ended, Large};
use super::members;
use super::mount::Access;
use super::rate::Rate;
use super::{Btrfs, View, cannot_tell};
use crate::executor::step::{Progress, StepError};
use crate::storage::PoolFault;
use crate::storage::pool::DeviceName;

impl Btrfs {
    /// Removes `device`, which must have this `share` when one was planned. `allocated` is what is to be moved.
    pub(super) fn remove(
        &self,
        device: &DeviceName,
        share: Option<Bytes>,
        allocated: Bytes,
        progress: &Progress,
    ) -> Result<(), StepError> {
        let pool = &self.settings.pool;
        let block = members::find(device)?;
        let mut rate = Rate::new(format!("relocate {device}"), allocated);
        let mut compacted = false;
        loop {
            let view = self.view(Access::Write)?;
            let Some(member) = view.member(block) else {
                return self.clear_own_signature(device, &view.show);
            };
            let id = member.id;
            let mut look = || self.measure(id, &mut rate, progress);
            // Only a device that is being removed has no share.
            if member.share == Bytes::ZERO && view.exclusive()? == Exclusive::Remove {
                progress.say(format!(
                    "{device} is being removed already: following that to its end"
                ));
                let followed = self.follow_large(Large::Remove, &view.sysfs, progress, &mut look)?;
                let still_there = self.view(Access::Read)?.member(block).is_some();
                match followed.cancelled {
                    Some(cancelled) if still_there => return Err(cancelled),
                    _ => continue,
                }
            }
            if view.exclusive()? != Exclusive::Nothing {
                self.wait_for_turn(&view.sysfs, progress)?;
                continue;
            }
            progress.check_cancelled()?;
            self.may_leave(device, member, share, &view)?;
            let room = self.room_without(&view, member)?;
            if !room.is_enough() {
                if compacted {
                    return Err(room.refusal(&format!("remove {device} from pool {pool}")).into());
                }
                compacted = true;
                self.compact(&view, progress)?;
                continue;
            }

            let id = id.0.to_string();
            let arguments = ["device", "remove", "--", &id, &self.path()].map(str::to_owned);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let failed = |why: String, retry| {
                let what = format!("{device} is still part of pool {pool}, and nothing is lost: {why}");
                Err(StepError::message(what, retry))
            };
            match self.run_large(Large::Remove, &arguments, &view.sysfs, progress, &mut look)? {
                Ended::Busy => {}
                Ended::Done => {
                    let view = self.view(Access::Read)?;
                    if view.member(block).is_some() {
                        return failed("its removal ended well, and it is there".into(), Retry::ReadBack);
                    }
                    progress.measure(rate.measure(Bytes::ZERO, Instant::now()));
                    return self.clear_own_signature(device, &view.show);
                }
                Ended::NoRoom if !compacted => {
                    compacted = true;
                    self.compact(&view, progress)?;
                }
                Ended::NoRoom => {
                    let why = "the kernel found no room on the other devices for what is on it, even after packing \
                               data closer; free some space or add a device";
                    return failed(why.into(), Retry::Never);
                }
                Ended::Killed(how) => return failed(how, Retry::ReadBack),
                Ended::Failed(why) => return failed(why, Retry::Never),
            }
        }
    }

    /// Stops a removal of `device` that runs.
    pub(super) fn stop_removal(&self, device: &DeviceName, progress: &Progress) -> Result<(), StepError> {
        let view = self.view(Access::Write)?;
        let member = view.member(members::find(device)?);
        if member.is_some_and(|member| member.share == Bytes::ZERO) {
            progress.say(format!("stopping the removal of {device}"));
            self.stop_large(Large::Remove, &view.sysfs)?;
        }
        Ok(())
    }

    /// Checks just before acting. Whether all of it finds room, only the kernel can tell.
    fn may_leave(
        &self,
        device: &DeviceName,
        member: &Shown,
        share: Option<Bytes>,
        view: &View,
    ) -> Result<(), PoolFault> {
        let pool = &self.settings.pool;
        let never = |why: String| Err(PoolFault::new(why, Retry::Never));
        if view.missing() {
            return never(format!(
                "pool {pool} misses a device; nothing is taken from it until it is whole again"
            ));
        }
        if let Some(planned) = share.filter(|planned| *planned != member.share) {
            return never(format!(
                "pool {pool} uses {} of {device} and not the {} that were planned with: somebody changed it, or it is \
                 another device now",
                member.share.exact(),
                planned.exact()
            ));
        }
        let others = view.show.devices.len() - 1;
        if others == 0 {
            return never(format!("{device} is the only device of pool {pool}"));
        }
        let (data, metadata) = view.sysfs.spaces().map_err(cannot_tell)?;
        for (what, space) in [("data", &data), ("metadata", &metadata)] {
            let least = space.profile.min_devices();
            if others < least {
                return never(format!(
                    "pool {pool} would be left with {others} device(s), and its {what} is {} and needs {least}",
                    space.profile
                ));
            }
        }
        let shares = view.show.devices.iter().filter(|other| other.id != member.id);
        let room: Bytes = shares.map(|other| other.share).sum();
        // One and the same in a pool of mixed block groups: then the larger alone.
        let held = match data == metadata {
            true => data.used_on_devices,
            false => data.used_on_devices.plus(metadata.used_on_devices),
        };
        if held > room {
            return never(format!(
                "pool {pool} holds {held} on its devices, and without {device} these have {room}"
            ));
        }
        Ok(())
    }

    fn measure(&self, id: DeviceId, rate: &mut Rate, progress: &Progress) {
        // A look that fails only says less.
        if let Ok(view) = self.view(Access::Read)
            && let Some(shown) = view.show.devices.iter().find(|shown| shown.id == id)
        {
            progress.measure(rate.measure(shown.allocated, Instant::now()));
        }
    }
}
