//! Whether what has to move finds room: asked before the kernel is, since it does not always take a no well.
//!
//! Data that finds no room is left where it is. Metadata that finds none aborts a transaction, and the kernel then
//! makes the whole pool read-only (seen on Linux 6.18: device remove while no other device has unallocated room). So
//! the invariant: nothing moves unless unallocated room is left for the metadata that moves with it, and some more.

use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;

use super::figures::{self, DeviceId, Shown};
use super::long::{Ended, Large};
use super::{Btrfs, View, cannot_tell};
use crate::executor::step::{Progress, StepError};
use crate::storage::PoolFault;

/// Left unallocated besides: moving data changes metadata, which may want a chunk more.
const LEFT: Bytes = Bytes(64 << 20);

/// Chunks of data that are less full are packed into others when there is no room: what that gives is most of
/// what there is to get, and it moves at most half of what it looks at.
const COMPACTED: &str = "-dusage=50";

/// What has to move, and where it could go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// What must be unallocated elsewhere.
    pub(super) needed: Bytes,
    /// What is. Nothing, when it is on too few devices.
    pub(super) unallocated: Bytes,
}

impl Room {
    pub(super) fn is_enough(self) -> bool {
        self.unallocated >= self.needed
    }

    /// For people.
    pub(super) fn refusal(self, what: &str) -> PoolFault {
        let why = format!(
            "no room to {what}: what is on it may need {} that no data or metadata is assigned to yet, and the pool \
             then has {}; free some space or add a device",
            self.needed, self.unallocated
        );
        PoolFault::new(why, Retry::Never)
    }
}

impl Btrfs {
    /// The room for everything on `leaving`. What is empty needs none: a spare that was just added to a full pool can
    /// be given back.
    pub(super) fn room_without(&self, view: &View, leaving: &Shown) -> Result<Room, PoolFault> {
        if leaving.allocated == Bytes::ZERO {
            return Ok(Room {
                needed: Bytes::ZERO,
                unallocated: Bytes::ZERO,
            });
        }
        let usage = self.ask(&["device", "usage", "-b", &self.path()])?;
        let metadata = figures::parse_metadata_on(&usage, leaving.id).ok_or_else(|| {
            let what = format!("`btrfs device usage` does not tell about device {}", leaving.id.0);
            PoolFault::new(what, Retry::Never)
        })?;
        let (data, in_profile) = view.sysfs.spaces().map_err(cannot_tell)?;
        let spread = in_profile.profile.min_devices();
        let free = data.free_on_devices;
        Ok(without(leaving, metadata, free, spread, &view.show.devices))
    }

    /// Packs data closer, so that whole chunks become free. It helps where all room is assigned to half-empty chunks.
    pub(super) fn compact(&self, view: &View, progress: &Progress) -> Result<(), StepError> {
        progress.say("no room to relocate: packing data closer first");
        let arguments = ["balance", "start", COMPACTED, &self.path()].map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match self.run_large(Large::Balance, &arguments, &view.sysfs, progress, &mut || ())? {
            // Whether it helped shows when room is looked for again.
            Ended::Done | Ended::NoRoom | Ended::Busy | Ended::Failed(_) => Ok(()),
            Ended::Killed(how) => Err(StepError::message(how, Retry::ReadBack)),
        }
    }
}

fn unallocated<'a>(devices: impl Iterator<Item = &'a Shown>) -> Bytes {
    devices.map(|device| device.share.minus(device.allocated)).sum()
}

/// `spread` is on how many devices a chunk of metadata lies at least: so many must have some room, or none helps.
fn without(leaving: &Shown, metadata: Bytes, free_in_data: Bytes, spread: usize, all: &[Shown]) -> Room {
    // What is free in the chunks that leave is counted in `free_in_data` as well, and need not move.
    let data = leaving.allocated.minus(metadata).minus(free_in_data);
    let others = || all.iter().filter(|other| other.id != leaving.id);
    let with_room = others().filter(|other| other.share.minus(other.allocated) >= LEFT);
    Room {
        needed: metadata.plus(data).plus(LEFT),
        unallocated: match with_room.count() >= spread {
            true => unallocated(others()),
            false => Bytes::ZERO,
        },
    }
}

/// The room when the share of one device becomes smaller. Which chunks lie beyond the end is not known, so all of
/// what is given up must be unallocated somewhere.
pub(super) fn after_shrink(id: DeviceId, from: Bytes, to: Bytes, all: &[Shown]) -> Room {
    debug_assert!(all.iter().any(|device| device.id == id));
    Room {
        needed: from.minus(to).plus(LEFT),
        unallocated: unallocated(all.iter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn device(id: u64, share: u64, allocated: u64) -> Shown {
        Shown {
            id: DeviceId(id),
            share: Bytes(share * MIB),
            allocated: Bytes(allocated * MIB),
            path: Some("/dev/sdb".into()),
        }
    }

    #[test]
    fn metadata_needs_unallocated_room_and_data_may_use_what_is_free_in_chunks() {
        let leaving = device(1, 1024, 900);
        let room = |spread, other, free| {
            let all = [leaving.clone(), other, device(3, 1024, 1024)];
            without(&leaving, Bytes(100 * MIB), Bytes(free * MIB), spread, &all)
        };
        assert!(room(1, device(2, 1024, 60), 0).is_enough());
        assert!(!room(1, device(2, 1024, 61), 0).is_enough());
        assert!(
            !room(1, device(2, 1024, 1023), 2000).is_enough(),
            "metadata finds nothing"
        );
        assert!(room(1, device(2, 1024, 860), 800).is_enough());
        assert!(
            !room(2, device(2, 1024, 0), 0).is_enough(),
            "its copy finds nothing"
        );
    }

    #[test]
    fn a_shrink_leaves_some_room_unallocated() {
        let all = [device(1, 1024, 500), device(2, 1024, 1024)];
        let to = |to| after_shrink(DeviceId(1), Bytes(1024 * MIB), Bytes(to * MIB), &all);
        assert!(to(564).is_enough());
        assert!(!to(563).is_enough());
    }
}
