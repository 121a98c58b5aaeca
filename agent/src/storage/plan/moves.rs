//! Whether what has to move finds room, device by device and in the order of the changes.
//!
//! Free bytes are not enough: the kernel moves into room that no chunk holds yet, and where metadata finds none it makes
//! the whole pool read-only. The backend asks again with the kernel's exact figures before it acts; here is what can
//! be told from a pool's figures. The invariant: what passes here passes there, since a plan that the backend refuses may
//! by then have moved data for hours.

use hostler_common::bytes::Bytes;

use super::floor::sum;
use crate::storage::pool::{PoolState, Profile};

/// Left without a chunk besides: moving data changes metadata, which may want one more.
const LEFT: u128 = 64 << 20;
/// Block groups are allocated in pieces of at most this, on each device.
const CHUNK: u128 = 1 << 30;

/// The members' chunks while a plan is gone through.
pub(super) struct Moves<'a> {
    state: &'a PoolState,
    /// Share and what of it is taken, of the members that are left.
    members: Vec<Option<(u128, u128)>>,
    /// In chunks of data and not used.
    slack: u128,
    /// What moves may begin a chunk of data that stays half empty, with its copies.
    begun: u128,
}

impl<'a> Moves<'a> {
    /// With the shares that the members have now.
    pub(super) fn new(state: &'a PoolState, before: &[Bytes]) -> Self {
        let members = state.members.iter().zip(before);
        let members: Vec<_> = members
            .map(|(member, share)| Some((u128::from(share.0), u128::from(member.allocated.min(*share).0))))
            .collect();
        Self {
            state,
            slack: state.data_free.0.into(),
            begun: CHUNK.min(sum(before) / 10) * u128::from(state.data.copies()),
            members,
        }
    }

    /// Goes from the shares `before` to `after`, members that leave first, those with the least on them before others.
    /// False where something would find no room.
    pub(super) fn find_room(mut self, after: &[Option<Bytes>]) -> bool {
        let mut leaving: Vec<_> = (0..after.len()).filter(|at| after[*at].is_none()).collect();
        leaving.sort_by_key(|at| self.state.members[*at].allocated);
        leaving.into_iter().all(|at| self.leave(at))
            && after
                .iter()
                .enumerate()
                .all(|(at, to)| to.is_none_or(|to| self.shrink(at, to.0.into())))
    }

    fn unallocated(&self) -> impl Iterator<Item = u128> {
        self.members.iter().flatten().map(|(share, taken)| share - taken)
    }

    /// Whether so much finds room on the members that are left: in all, and on as many as a chunk needs.
    fn fits(&self, moved: u128) -> bool {
        let (data, metadata) = (self.state.data, self.state.metadata);
        let on = |room: u128| self.unallocated().filter(|free| *free >= room).count();
        let wide = match data {
            // A block group moves as a whole, with its part on every device.
            Profile::Raid0 | Profile::Raid10 | Profile::Raid5 | Profile::Raid6 => {
                on(moved.min(CHUNK) + LEFT) == self.members.iter().flatten().count()
            }
            Profile::Single | Profile::Dup | Profile::Raid1 | Profile::Raid1c3 | Profile::Raid1c4 => true,
        };
        wide && on(LEFT) >= metadata.min_devices()
            && self.unallocated().sum::<u128>() >= moved + self.begun + LEFT
    }

    /// What moved is spread to where there is the most room.
    fn take(&mut self, mut moved: u128) {
        while moved > 0 {
            let roomiest = self
                .members
                .iter_mut()
                .flatten()
                .max_by_key(|(share, taken)| share - *taken);
            let Some((share, taken)) = roomiest else { return };
            let piece = moved.min(CHUNK).min(*share - *taken);
            if piece == 0 {
                return;
            }
            *taken += piece;
            moved -= piece;
        }
    }

    fn leave(&mut self, at: usize) -> bool {
        let Some((_, taken)) = self.members[at].take() else {
            return true;
        };
        // All of it may lie here. Only data moves into what others have left, and an extent only where it fits whole: a
        // chunk's worth of scattered room is not counted on.
        let metadata = taken.min(self.state.metadata_allocated.0.into());
        let absorbed = (taken - metadata).min(self.slack.saturating_sub(self.begun));
        let moved = taken - absorbed;
        if taken > 0 && !self.fits(moved) {
            return false;
        }
        self.slack -= absorbed;
        self.take(moved + if taken > 0 { self.begun } else { 0 });
        true
    }

    /// Which chunks lie beyond the new end is not known, so all of what is given up must be free of chunks somewhere.
    fn shrink(&mut self, at: usize, to: u128) -> bool {
        let Some((share, taken)) = self.members[at] else {
            return true;
        };
        if to >= share {
            return true;
        }
        if taken > 0 && !self.fits(share - to) {
            return false;
        }
        self.members[at] = Some((to, taken.min(to)));
        self.take(taken.saturating_sub(to) + if taken > 0 { self.begun } else { 0 });
        true
    }
}
