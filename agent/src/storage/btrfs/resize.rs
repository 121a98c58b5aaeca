//! The pool uses more or less of a device that it has, to the byte.
//!
//! Less means that the kernel first moves what is beyond, a transaction a chunk: whenever that stops the share is
//! what it was. The kernel rounds down to whole sectors, so that what it made is read back.

use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;

use super::beyond::Shrinking;
use super::figures::Exclusive;
use super::long::{Ended, Large};
use super::members;
use super::mount::Access;
use super::room::after_shrink;
use super::{Btrfs, cannot_tell};
use crate::executor::step::{Progress, StepError};
use crate::storage::pool::DeviceName;

impl Btrfs {
    /// Makes the share of `device` `to`, when it is `from` or `to` already.
    pub(super) fn resize(
        &self,
        device: &DeviceName,
        from: Bytes,
        to: Bytes,
        progress: &Progress,
    ) -> Result<(), StepError> {
        let pool = &self.settings.pool;
        let never = |why: String| Err(StepError::message(why, Retry::Never));
        let block = members::find(device)?;
        let mut compacted = false;
        loop {
            let view = self.view(Access::Write)?;
            let Some(member) = view.member(block) else {
                return never(format!("{device} is no part of pool {pool}"));
            };
            let mut shrinking = Shrinking::new(self, &device.0, member, to);
            let mut look = || {
                if to < from {
                    shrinking.look(progress);
                }
            };
            let running = view.exclusive()?;
            // While a shrink runs the share is its aim already.
            if running == Exclusive::Resize && member.share == to && to < from {
                progress.say(format!(
                    "{device} is being shrunk already: following that to its end"
                ));
                let followed = self.follow_large(Large::Resize, &view.sysfs, progress, &mut look)?;
                let after = self.view(Access::Read)?;
                let made = after.member(block).is_some_and(|member| member.share == to);
                match followed.cancelled {
                    Some(cancelled) if !made => return Err(cancelled),
                    _ => continue,
                }
            }
            if member.share == to && running != Exclusive::Resize {
                return Ok(());
            }
            if running != Exclusive::Nothing {
                self.wait_for_turn(&view.sysfs, progress)?;
                continue;
            }
            if member.share != from {
                return never(format!(
                    "pool {pool} uses {} of {device} and not the {} that were planned with: somebody changed it, or it \
                     is another device now",
                    member.share.exact(),
                    from.exact()
                ));
            }
            let capacity = member.capacity(view.sysfs.sector().map_err(cannot_tell)?);
            if to > capacity {
                return never(format!(
                    "{device} has {}, so pool {pool} cannot use {} of it",
                    capacity.exact(),
                    to.exact()
                ));
            }
            progress.check_cancelled()?;
            let room = after_shrink(member.id, from, to, &view.show.devices);
            if to < from && !room.is_enough() {
                if compacted {
                    return Err(room.refusal(&format!("shrink {device} of pool {pool}")).into());
                }
                compacted = true;
                self.compact(&view, progress)?;
                continue;
            }
            let aim = format!("{}:{}", member.id.0, to.0);
            let path = self.path();
            let arguments = ["filesystem", "resize", &aim, &path];
            let failed = |why: String, retry| {
                let what = format!(
                    "pool {pool} still uses {} of {device}, and nothing is lost: {why}",
                    from.exact()
                );
                Err(StepError::message(what, retry))
            };
            match self.run_large(Large::Resize, &arguments, &view.sysfs, progress, &mut look)? {
                Ended::Busy => {}
                Ended::Done => {
                    let share = self.view(Access::Read)?.member(block).map(|member| member.share);
                    return match share {
                        Some(share) if share == to => Ok(()),
                        share => never(format!(
                            "pool {pool} uses {} of {device} now, and {} were asked for",
                            share.unwrap_or_default().exact(),
                            to.exact()
                        )),
                    };
                }
                Ended::NoRoom => {
                    let why =
                        "the kernel found no room for what has to move; free some space or give up less";
                    return failed(why.into(), Retry::Never);
                }
                Ended::Killed(how) => return failed(how, Retry::ReadBack),
                Ended::Failed(why) => return failed(why, Retry::Never),
            }
        }
    }

    /// Takes back what the pool has of `device` beyond `share`: a device that was shrunk, removed and added again
    /// comes back whole.
    pub(super) fn no_more_than(
        &self,
        device: &DeviceName,
        share: Bytes,
        progress: &Progress,
    ) -> Result<(), StepError> {
        let view = self.view(Access::Read)?;
        match view.member(members::find(device)?).map(|member| member.share) {
            Some(now) if now > share => self.resize(device, now, share, progress),
            Some(_) | None => Ok(()),
        }
    }

    /// Stops a shrink of `device` to `to` that runs: it shows its aim already. Another resize is somebody else's.
    pub(super) fn stop_shrink(&self, device: &DeviceName, to: Bytes) -> Result<(), StepError> {
        let view = self.view(Access::Write)?;
        let member = view.member(members::find(device)?);
        match member.is_some_and(|member| member.share == to) {
            true => self.stop_large(Large::Resize, &view.sysfs),
            false => Ok(()),
        }
    }
}
