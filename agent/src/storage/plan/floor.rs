//! What must be left of a pool: the fewest devices, the reserve, and room for what is on it while it moves.
//!
//! It judges layouts, as lists of shares, and changes nothing. The invariant: a layout that holds still holds when a
//! share in it grows, so the planner may search by halves.

use hostler_common::bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::moves::Moves;
use super::profile::usable;
use crate::storage::pool::PoolState;

/// The kernel gives a device's first MiB to boot loaders.
const UNUSED_AT_START: u128 = 1 << 20;
/// Block groups of metadata are allocated in pieces of at most this on all but the largest pools.
const METADATA_CHUNK: u128 = 256 << 20;
/// Block groups of data are at most this large on each device, and at most a tenth of the pool.
const DATA_CHUNK: u128 = 1 << 30;
/// Superblocks, the chunk tree and what a transaction needs beside the metadata that is counted.
const METADATA_MARGIN: u128 = 16 << 20;
/// Metadata is laid out in so many pieces at most: enough to tell whether it fits, and quick on huge pools.
const PIECES_AT_MOST: u128 = 64;

/// The share of a pool's size that a shrink leaves free, 0 to 90 percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Reserve(u32);

/// More than 90 % would leave a pool for nothing but its reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a reserve of {percent} % leaves no pool; give 0 % to 90 %")]
pub struct InvalidReserve {
    /// What was given.
    pub percent: u32,
}

impl Reserve {
    /// In percent.
    pub fn percent(self) -> u32 {
        self.0
    }

    /// The smallest size of which this share is free beside `used`.
    pub fn smallest_size(self, used: Bytes) -> Bytes {
        let size = (u128::from(used.0) * 100).div_ceil(u128::from(100 - self.0));
        Bytes(u64::try_from(size).unwrap_or(u64::MAX))
    }

    fn is_kept(self, size: u128, used: u128) -> bool {
        used <= size && (size - used) * 100 >= size * u128::from(self.0)
    }
}

impl Default for Reserve {
    fn default() -> Self {
        Self(10)
    }
}

impl TryFrom<u32> for Reserve {
    type Error = InvalidReserve;

    fn try_from(percent: u32) -> Result<Self, InvalidReserve> {
        match percent {
            0..=90 => Ok(Self(percent)),
            _ => Err(InvalidReserve { percent }),
        }
    }
}

impl From<Reserve> for u32 {
    fn from(reserve: Reserve) -> Self {
        reserve.0
    }
}

/// What would be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Devices: the profiles need more.
    Devices,
    /// Free room: the reserve would be broken.
    Reserve,
    /// Room to lay out what is on the pool, and to move it.
    Room,
}

/// What must be left of one pool.
pub(super) struct Floor<'a> {
    pub(super) state: &'a PoolState,
    pub(super) reserve: Reserve,
    /// What the size may be below what the reserve wants. Nothing while a plan is made.
    pub(super) rounding: Bytes,
}

/// What the kernel's figure of the size may differ from a plan's, when several changes round it one after the other: statvfs(3)
/// counts blocks, and there are mirrors. A plan that was made to the byte still fits then.
pub(super) const ROUNDING: Bytes = Bytes(64 << 10);

pub(super) fn sum(shares: &[Bytes]) -> u128 {
    shares.iter().map(|share| u128::from(share.0)).sum()
}

/// The shares of the members that stay.
pub(super) fn left(shares: &[Option<Bytes>]) -> Vec<Bytes> {
    shares.iter().copied().flatten().collect()
}

impl Floor<'_> {
    /// How much the kernel's figure of the size falls when the shares go from `before` to `after`.
    pub(super) fn size_lost(&self, before: &[Bytes], after: &[Bytes]) -> Bytes {
        let raw = sum(before).saturating_sub(sum(after));
        let lost = raw.div_ceil(u128::from(self.state.data.copies()));
        Bytes(u64::try_from(lost).unwrap_or(u64::MAX))
    }

    /// Whether the members may have the shares `after` in place of `before`, which they have now; none is for one that
    /// leaves.
    pub(super) fn holds(&self, before: &[Bytes], after: &[Option<Bytes>]) -> Result<(), Lack> {
        let state = self.state;
        let members = after;
        let after: &[Bytes] = &left(after);
        let needed = state.data.min_devices().max(state.metadata.min_devices());
        if after.len() < needed {
            return Err(Lack::Devices);
        }
        let size = state.size.minus(self.size_lost(before, after));
        let rounded = u128::from(size.0) + u128::from(self.rounding.0);
        if size < state.used || !self.reserve.is_kept(rounded, state.used.0.into()) {
            return Err(Lack::Reserve);
        }
        // The kernel's size counts room that a mirror on uneven devices never fills.
        let metadata = u128::from(state.metadata_used.0) * u128::from(state.metadata.copies());
        let used = u128::from(state.data_used.0) + metadata / u128::from(state.data.copies());
        if !self.reserve.is_kept(usable(state.data, after).0.into(), used) {
            return Err(Lack::Reserve);
        }
        let finds_room = || Moves::new(state, before).find_room(members);
        match self.has_room(sum(before), after) && finds_room() {
            true => Ok(()),
            false => Err(Lack::Room),
        }
    }

    /// Metadata first, on the devices with the most room, as the kernel does; then the data, with room for the piece of it
    /// that is on its way, as large as pieces were when the pool had `total` bytes. How much of it the kernel has assigned already, and where, is [`Moves`]' part.
    fn has_room(&self, total: u128, shares: &[Bytes]) -> bool {
        let state = self.state;
        let mut free: Vec<u128> = shares
            .iter()
            .map(|share| u128::from(share.0).saturating_sub(UNUSED_AT_START))
            .collect();
        let metadata = u128::from(state.metadata_used.0) + METADATA_MARGIN;
        let pieces = metadata.div_ceil(METADATA_CHUNK).min(PIECES_AT_MOST);
        let (devices, times) = state.metadata.spread();
        let piece = metadata.div_ceil(pieces) * times;
        for _ in 0..pieces {
            free.sort_unstable_by(|a, b| b.cmp(a));
            for room in free.iter_mut().take(devices) {
                match room.checked_sub(piece) {
                    Some(left) => *room = left,
                    None => return false,
                }
            }
        }
        let left: Vec<_> = free
            .into_iter()
            .map(|room| Bytes(u64::try_from(room).unwrap_or(u64::MAX)))
            .collect();
        let on_its_way = DATA_CHUNK.min(total / 10).max(1);
        u128::from(usable(state.data, &left).0) >= u128::from(state.data_used.0) + on_its_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_share_of_the_size_that_is_left() {
        let reserve = |percent: u32| Reserve::try_from(percent).unwrap();
        assert_eq!(reserve(10).smallest_size(Bytes(90)), Bytes(100));
        assert_eq!(reserve(10).smallest_size(Bytes(91)), Bytes(102));
        assert_eq!(reserve(0).smallest_size(Bytes(91)), Bytes(91));
        assert_eq!(reserve(90).smallest_size(Bytes(u64::MAX)), Bytes(u64::MAX));
        assert!(reserve(10).is_kept(100, 90));
        assert!(!reserve(10).is_kept(100, 91));
        assert!(!reserve(0).is_kept(90, 91));
        assert_eq!(
            Reserve::try_from(91).unwrap_err().to_string(),
            "a reserve of 91 % leaves no pool; give 0 % to 90 %"
        );
    }
}
