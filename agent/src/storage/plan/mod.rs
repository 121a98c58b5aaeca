//! Decides how a pool grows or shrinks: pure functions from what a pool is to a list of changes.
//!
//! Nothing here looks at a device or changes one. The invariant: carried out in their order, the changes of a plan
//! never leave the pool below its reserve, with too few devices for its profiles, or without room for what is on it.

mod expand;
mod fit;
mod floor;
mod moves;
mod profile;
mod shrink;
#[cfg(test)]
mod tests;

use std::fmt;

use hostler_common::bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::pool::{Change, DeviceName, PoolState, Presence, Profile};

pub use expand::{expand, spare};
pub use fit::{Misfit, still_fits, still_safe};
pub use floor::{InvalidReserve, Lack, Reserve};
pub use profile::usable;
pub use shrink::{LEAST_SHARE, shrink, smallest};

/// The kernel keeps a device's share in whole sectors of this many bytes.
pub const ALIGNMENT: u64 = 4096;

/// How much of a device a pool can use.
fn aligned(capacity: Bytes) -> Bytes {
    Bytes(capacity.0 / ALIGNMENT * ALIGNMENT)
}

/// What is to be done to a pool, decided once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePlan {
    /// In order.
    pub changes: Vec<Change>,
    /// The pool's size before, as the kernel tells it.
    pub before: Bytes,
    /// Its size after.
    pub after: Bytes,
    /// What a person may wonder about, as why a spare device is passed over.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl StoragePlan {
    /// For people, device by device, with the notes at the end.
    pub fn lines(&self) -> Vec<String> {
        let line = |change: &Change| match change {
            Change::Grow { from, to, .. } => format!("{change}: {} more", to.minus(*from)),
            Change::Add { .. } => change.to_string(),
            Change::Remove { allocated, .. } => {
                format!("{change}: {allocated} on it move to the other devices first")
            }
            Change::Shrink { from, to, .. } => {
                format!("{change}: {} less; what lies beyond moves first", from.minus(*to))
            }
        };
        self.changes
            .iter()
            .map(line)
            .chain(self.notes.iter().cloned())
            .collect()
    }

    /// How the size changes, in bytes; negative for a shrink.
    pub fn size_change(&self) -> i64 {
        let change = i128::from(self.after.0) - i128::from(self.before.0);
        i64::try_from(change).unwrap_or(match change < 0 {
            true => i64::MIN,
            false => i64::MAX,
        })
    }
}

/// What one device could give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    /// The device.
    pub device: DeviceName,
    /// How much.
    pub bytes: Bytes,
}

impl Amount {
    fn of(device: &DeviceName, bytes: Bytes) -> Self {
        Self {
            device: device.clone(),
            bytes,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.bytes, self.device)
    }
}

/// A device that is configured as a spare and cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSpare {
    /// The device.
    pub device: DeviceName,
    /// Why, and what to do.
    pub problem: String,
}

impl fmt::Display for RefusedSpare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most problems name the device themselves.
        match self.problem.contains(&self.device.0) {
            true => write!(f, "not taken: {}", self.problem),
            false => write!(f, "{} is not taken: {}", self.device, self.problem),
        }
    }
}

/// Why there is no plan. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A device is gone.
    #[error(
        "it is degraded: {} is missing; replace or remove it (`btrfs replace`, `btrfs device remove missing`) and ask again",
        list(missing)
    )]
    Degraded {
        /// Which.
        missing: Vec<DeviceName>,
    },
    /// A device is being removed: what it will come to is not known yet.
    #[error("{} is being removed from it; ask again when that has ended", list(leaving))]
    Leaving {
        /// Which.
        leaving: Vec<DeviceName>,
    },
    /// The spares do not suffice.
    #[error(
        "it cannot grow by {}: {} can be added{}{}{}",
        wanted.exact(),
        can_give.exact(),
        parts(" (", devices, ")"),
        copies_note(*data, devices),
        parts("; ", refused, "")
    )]
    NotEnough {
        /// At least this.
        wanted: Bytes,
        /// All that there is.
        can_give: Bytes,
        /// How data is laid out: copies take room too.
        data: Profile,
        /// Device by device.
        devices: Vec<Amount>,
        /// Devices that are configured and cannot be taken.
        refused: Vec<RefusedSpare>,
    },
    /// Nothing can be given up.
    #[error(
        "it has nothing to give: its size is {}, {} are used, and with a reserve of {} % it may not be smaller than {}; \
         the smallest safe size is {}{}",
        size.exact(), used.exact(), reserve.percent(), floor.exact(), smallest.exact(),
        binding(*wanted, *size, *floor, *smallest, *data, *metadata, *devices)
    )]
    NothingToGive {
        /// At most this.
        wanted: Bytes,
        /// The size now.
        size: Bytes,
        /// How much is used.
        used: Bytes,
        /// What is to stay free.
        reserve: Reserve,
        /// Used and reserve together.
        floor: Bytes,
        /// The smallest size that a larger request could reach.
        smallest: Bytes,
        /// How data is laid out.
        data: Profile,
        /// How metadata is laid out.
        metadata: Profile,
        /// On how many devices.
        devices: usize,
    },
}

fn list<T: fmt::Display>(all: &[T]) -> String {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn parts<T: fmt::Display>(before: &str, all: &[T], after: &str) -> String {
    match all {
        [] => String::new(),
        all => format!("{before}{}{after}", list(all)),
    }
}

fn copies_note(data: Profile, devices: &[Amount]) -> String {
    match data {
        Profile::Single | Profile::Raid0 => String::new(),
        _ if devices.is_empty() => String::new(),
        profile => format!(", laid out as {profile}"),
    }
}

/// What else is in the way, where used and reserve are not.
fn binding(
    wanted: Bytes,
    size: Bytes,
    floor: Bytes,
    smallest: Bytes,
    data: Profile,
    metadata: Profile,
    devices: usize,
) -> String {
    if smallest < size {
        format!(", but {} is less than a device can give up", wanted.exact())
    } else if floor < size {
        format!(
            ": data ({data}) and metadata ({metadata}) need the rest, and room to move, on its {devices} devices, each of which \
             keeps at least {LEAST_SHARE}"
        )
    } else {
        String::new()
    }
}

fn members_that(state: &PoolState, are: Presence) -> Vec<DeviceName> {
    let members = state.members.iter().filter(|member| member.presence == are);
    members.map(|member| member.name.clone()).collect()
}

/// That a pool misses a device, when it does. One line.
pub fn degraded(state: &PoolState) -> Option<String> {
    refuse_degraded(state).err().map(|refusal| refusal.to_string())
}

fn refuse_degraded(state: &PoolState) -> Result<(), Refusal> {
    let missing = members_that(state, Presence::Missing);
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Refusal::Degraded { missing }),
    }
}

/// Refuses a pool of which a device is missing or on its way out, unless it is `own` that leaves.
fn refuse_unsettled(state: &PoolState, own: Option<&DeviceName>) -> Result<(), Refusal> {
    refuse_degraded(state)?;
    let mut leaving = members_that(state, Presence::Leaving);
    leaving.retain(|device| own != Some(device));
    match leaving.is_empty() {
        true => Ok(()),
        false => Err(Refusal::Leaving { leaving }),
    }
}
