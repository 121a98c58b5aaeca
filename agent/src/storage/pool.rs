//! A pool as its backend sees it, and the changes that can be made to it. Plain values: whoever plans works on
//! these alone.

use std::fmt;
use std::path::PathBuf;

use hostler_common::bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A device: for btrfs the path of a block device, as configured or as the kernel names it; for Ceph an OSD; for
/// LVM a physical volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceName(pub String);

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device that is part of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name. A configured spare keeps its configured, stable path.
    pub name: DeviceName,
    /// How large the device is.
    pub capacity: Bytes,
    /// How much of it the pool may use: less than its capacity after a shrink.
    pub share: Bytes,
    /// How much of its share data and metadata take.
    pub allocated: Bytes,
    /// Whether it is there.
    pub presence: Presence,
}

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// It is, and is being removed: nothing new goes there, and its share is none already.
    Leaving,
    /// It is gone: the pool is degraded.
    Missing,
}

/// A device that the configuration names for the pool and that is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spare {
    /// Its configured name.
    pub name: DeviceName,
    /// How large it is; zero when that cannot be told.
    pub capacity: Bytes,
    /// Why it cannot be taken, when it cannot.
    pub problem: Option<String>,
}

/// How copies are laid out over devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// One copy, anywhere.
    Single,
    /// Two copies, on one device if need be.
    Dup,
    /// Striped over all devices.
    Raid0,
    /// Two copies on two devices.
    Raid1,
    /// Three copies on three devices.
    Raid1c3,
    /// Four copies on four devices.
    Raid1c4,
    /// Two copies, striped.
    Raid10,
    /// Striped, with one device's worth of parity.
    Raid5,
    /// Striped, with two devices' worth of parity.
    Raid6,
}

/// A pool as it is now. The figures are the kernel's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolState {
    /// What it may use, as `statfs` says.
    pub size: Bytes,
    /// What it uses, as `statfs` says.
    pub used: Bytes,
    /// Data in it, in bytes before copies.
    pub data_used: Bytes,
    /// Metadata in it, in bytes before copies.
    pub metadata_used: Bytes,
    /// What the pieces that data has been given could still take, with copies.
    pub data_free: Bytes,
    /// What all that is no data has been given, used or not, with copies.
    pub metadata_allocated: Bytes,
    /// How data is laid out.
    pub data: Profile,
    /// How metadata is laid out.
    pub metadata: Profile,
    /// Its devices, in the backend's order.
    pub members: Vec<Member>,
    /// Devices that it may take, in configured order.
    pub spares: Vec<Spare>,
}

/// One change to a pool. It names the sizes on both sides, so that it can be undone, and told to be done, after a
/// crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// The pool uses more of a device that it has.
    Grow {
        /// Which.
        device: DeviceName,
        /// The share before.
        from: Bytes,
        /// The share after.
        to: Bytes,
    },
    /// A spare device becomes part of the pool.
    Add {
        /// Which.
        device: DeviceName,
        /// How large it is.
        capacity: Bytes,
    },
    /// A device leaves the pool: what is on it moves to the others first.
    Remove {
        /// Which.
        device: DeviceName,
        /// Its share before.
        share: Bytes,
        /// How much of it is to be moved.
        allocated: Bytes,
    },
    /// The pool uses less of a device: what is beyond moves first.
    Shrink {
        /// Which.
        device: DeviceName,
        /// The share before.
        from: Bytes,
        /// The share after.
        to: Bytes,
    },
}

impl Change {
    /// The device that it changes.
    pub fn device(&self) -> &DeviceName {
        match self {
            Self::Grow { device, .. }
            | Self::Add { device, .. }
            | Self::Remove { device, .. }
            | Self::Shrink { device, .. } => device,
        }
    }
}

/// For people: `add device /dev/sdb (4.00 GiB)`. It is the name of the step, so it never depends on anything else.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grow { device, from, to } => write!(f, "grow device {device} from {from} to {to}"),
            Self::Add { device, capacity } => write!(f, "add device {device} ({capacity})"),
            Self::Remove { device, share, .. } => write!(f, "remove device {device} ({share})"),
            Self::Shrink { device, from, to } => write!(f, "shrink device {device} from {from} to {to}"),
        }
    }
}

/// A read-only picture of the pool at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where its files are.
    pub path: PathBuf,
}
