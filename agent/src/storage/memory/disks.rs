//! The devices of a pool in memory, and what lies on them.
//!
//! Plain values: no lock, no fault, nothing that waits. The invariant: the copies of a piece lie on different members.

use hostler_common::bytes::Bytes;

use crate::storage::plan::ALIGNMENT;
use crate::storage::pool::{Change, DeviceName, Member, PoolState, Presence, Profile, Spare};

/// What moves off a device, to which nothing new goes meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emptying {
    Nothing,
    /// It is shrunk.
    Partly,
    /// It is removed: its share shows as none already.
    Wholly,
}

#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) name: DeviceName,
    pub(super) capacity: u64,
    /// Of a member.
    pub(super) share: Option<u64>,
    pub(super) emptying: Emptying,
    pub(super) is_gone: bool,
    pub(super) problem: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) blob: String,
    pub(super) bytes: u64,
    /// One device for each copy.
    pub(super) on: Vec<DeviceName>,
}

/// Everything that a pool is.
#[derive(Debug, Clone)]
pub(super) struct Disks {
    pub(super) data: Profile,
    pub(super) devices: Vec<Device>,
    pub(super) pieces: Vec<Piece>,
}

/// How much of a device the pool can use.
pub(super) fn usable(capacity: u64) -> u64 {
    capacity / ALIGNMENT * ALIGNMENT
}

impl Disks {
    pub(super) fn device(&mut self, name: &DeviceName) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.name == *name)
    }

    pub(super) fn member(&self, name: &DeviceName) -> Option<&Device> {
        self.devices
            .iter()
            .find(|device| device.name == *name && device.share.is_some())
    }

    pub(super) fn allocated(&self, name: &DeviceName) -> u64 {
        let pieces = self.pieces.iter().filter(|piece| piece.on.contains(name));
        pieces.map(|piece| piece.bytes).sum()
    }

    /// Members that can take `size` more, the emptiest first.
    pub(super) fn with_room(&self, size: u64) -> Vec<DeviceName> {
        let mut room: Vec<_> = self
            .devices
            .iter()
            .filter(|device| device.emptying == Emptying::Nothing && !device.is_gone)
            .filter_map(|device| {
                let free = device.share?.checked_sub(self.allocated(&device.name))?;
                (free >= size).then(|| (free, device.name.clone()))
            })
            .collect();
        room.sort_by(|a, b| b.cmp(a));
        room.into_iter().map(|(_, name)| name).collect()
    }

    pub(super) fn places(&self, size: u64) -> Option<Vec<DeviceName>> {
        let copies = usize::try_from(self.data.copies()).unwrap_or(usize::MAX);
        let mut room = self.with_room(size);
        room.truncate(copies);
        (room.len() == copies).then_some(room)
    }

    /// Moves the copy of a piece that lies on `from`; one that fits nowhere is halved first, once.
    pub(super) fn move_piece(&mut self, at: usize, from: &DeviceName) -> bool {
        let piece = self.pieces[at].clone();
        let target = |disks: &Self, bytes| {
            let room = disks.with_room(bytes);
            room.into_iter().find(|device| !piece.on.contains(device))
        };
        let place = |on: &mut Vec<DeviceName>, to: DeviceName| {
            on.iter_mut()
                .filter(|device| *device == from)
                .for_each(|device| *device = to.clone());
        };
        if let Some(to) = target(self, piece.bytes) {
            place(&mut self.pieces[at].on, to);
            return true;
        }
        let half = piece.bytes / 2;
        let Some(to) = target(self, half.max(1)) else {
            return false;
        };
        if half == 0 {
            return false;
        }
        self.pieces[at].bytes -= half;
        let mut other = Piece {
            bytes: half,
            ..piece.clone()
        };
        place(&mut other.on, to);
        self.pieces.push(other);
        true
    }

    pub(super) fn state(&self) -> PoolState {
        let members: Vec<_> = self
            .devices
            .iter()
            .filter_map(|device| {
                Some(Member {
                    name: device.name.clone(),
                    capacity: Bytes(device.capacity),
                    share: match device.emptying {
                        Emptying::Wholly => Bytes::ZERO,
                        Emptying::Nothing | Emptying::Partly => Bytes(device.share?),
                    },
                    allocated: Bytes(self.allocated(&device.name)),
                    presence: match (device.is_gone, device.emptying) {
                        (true, _) => Presence::Missing,
                        (false, Emptying::Wholly) => Presence::Leaving,
                        (false, Emptying::Nothing | Emptying::Partly) => Presence::Present,
                    },
                })
            })
            .collect();
        let spares = self.devices.iter().filter(|device| device.share.is_none());
        let spares = spares.map(|device| Spare {
            name: device.name.clone(),
            capacity: Bytes(device.capacity),
            problem: match device.is_gone {
                true => Some(format!("{} does not exist", device.name)),
                false => device.problem.clone(),
            },
        });
        let used = Bytes(self.pieces.iter().map(|piece| piece.bytes).sum());
        let raw: u64 = self.devices.iter().filter_map(|device| device.share).sum();
        PoolState {
            size: Bytes(raw / self.data.copies()),
            used,
            data_used: used,
            metadata_used: Bytes::ZERO,
            data_free: Bytes::ZERO,
            metadata_allocated: Bytes::ZERO,
            data: self.data,
            metadata: self.data,
            spares: spares.collect(),
            members,
        }
    }

    pub(super) fn is_done(&self, change: &Change) -> bool {
        let share = self.member(change.device()).and_then(|device| device.share);
        match change {
            Change::Add { .. } => share.is_some(),
            Change::Remove { .. } => share.is_none(),
            Change::Grow { to, .. } => share.is_some_and(|share| share >= to.0),
            Change::Shrink { to, .. } => share.is_some_and(|share| share <= to.0),
        }
    }
}
