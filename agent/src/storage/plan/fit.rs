//! Whether what was decided still fits what is true: between a decision and its steps, and between two steps, data
//! arrives and people change devices.

use hostler_common::bytes::Bytes;
use thiserror::Error;

use super::floor::{Floor, Lack, ROUNDING, Reserve, left};
use super::{Refusal, StoragePlan, refuse_unsettled};
use crate::storage::pool::{Change, DeviceName, Member, PoolState};

/// How a decision does not fit any more. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Misfit {
    /// A device is gone, or on its way out.
    #[error("the pool cannot be changed now")]
    NotNow(#[source] Refusal),
    /// A member left the pool, or vanished.
    #[error("device {device} is not part of the pool any more; ask again")]
    NoMember {
        /// Which.
        device: DeviceName,
    },
    /// A member has another share.
    #[error("the pool has {} of device {device} and not {}, as when it was decided; ask again", found.exact(), expected.exact())]
    OtherShare {
        /// Which.
        device: DeviceName,
        /// When it was decided.
        expected: Bytes,
        /// Now.
        found: Bytes,
    },
    /// A member is too small.
    #[error("device {device} has {} now, less than the {} that were decided; ask again", found.exact(), wanted.exact())]
    TooSmall {
        /// Which.
        device: DeviceName,
        /// When it was decided.
        wanted: Bytes,
        /// Now.
        found: Bytes,
    },
    /// A spare is not configured or not there any more.
    #[error("device {device} is no spare device any more; ask again")]
    NoSpare {
        /// Which.
        device: DeviceName,
    },
    /// A spare cannot be taken any more.
    #[error("device {device} cannot be taken any more: {problem}")]
    RefusedSpare {
        /// Which.
        device: DeviceName,
        /// Why.
        problem: String,
    },
    /// Too much was written meanwhile.
    #[error(
        "{change} is not safe any more: {} are used now, and {} would be left of the pool; {}. Ask again",
        used.exact(), left.exact(), lacking(*lack, *reserve)
    )]
    Unsafe {
        /// The change.
        change: String,
        /// How much is used.
        used: Bytes,
        /// What would be left of the pool.
        left: Bytes,
        /// What is to stay free.
        reserve: Reserve,
        /// What would be missing.
        lack: Lack,
    },
}

fn lacking(lack: Lack, reserve: Reserve) -> String {
    match lack {
        Lack::Devices => "its profiles need more devices".to_owned(),
        Lack::Reserve => format!("the reserve of {} % would be broken", reserve.percent()),
        Lack::Room => "what is on it would find no room to move".to_owned(),
    }
}

/// Whether nothing of `plan` is done and all of it can be done.
///
/// # Errors
/// The first thing that does not fit.
pub fn still_fits(state: &PoolState, plan: &StoragePlan, reserve: Reserve) -> Result<(), Misfit> {
    refuse_unsettled(state, None).map_err(Misfit::NotNow)?;
    for change in &plan.changes {
        match change {
            Change::Grow { device, from, to } => {
                let member = with_share(state, device, *from)?;
                if member.capacity < *to {
                    return Err(Misfit::TooSmall {
                        device: device.clone(),
                        wanted: *to,
                        found: member.capacity,
                    });
                }
            }
            Change::Add { device, capacity } => check_spare(state, device, *capacity)?,
            Change::Remove { device, share, .. } => {
                with_share(state, device, *share)?;
            }
            Change::Shrink { device, from, .. } => {
                with_share(state, device, *from)?;
            }
        }
    }
    safe_after(state, &plan.changes, reserve)
}

/// Whether `change` alone may be made now. One that is made already, or half, is judged as if it were not.
///
/// # Errors
/// When the pool would be left with too little.
pub fn still_safe(state: &PoolState, change: &Change, reserve: Reserve) -> Result<(), Misfit> {
    refuse_unsettled(state, Some(change.device())).map_err(Misfit::NotNow)?;
    safe_after(state, std::slice::from_ref(change), reserve)
}

fn with_share<'a>(state: &'a PoolState, device: &DeviceName, expected: Bytes) -> Result<&'a Member, Misfit> {
    let device = device.clone();
    match state.members.iter().find(|member| member.name == device) {
        None => Err(Misfit::NoMember { device }),
        Some(member) if member.share != expected => Err(Misfit::OtherShare {
            device,
            expected,
            found: member.share,
        }),
        Some(member) => Ok(member),
    }
}

fn check_spare(state: &PoolState, device: &DeviceName, wanted: Bytes) -> Result<(), Misfit> {
    let device = device.clone();
    let Some(spare) = state.spares.iter().find(|spare| spare.name == device) else {
        return Err(Misfit::NoSpare { device });
    };
    if let Some(problem) = spare.problem.clone() {
        return Err(Misfit::RefusedSpare { device, problem });
    }
    match spare.capacity < wanted {
        true => Err(Misfit::TooSmall {
            device,
            wanted,
            found: spare.capacity,
        }),
        false => Ok(()),
    }
}

/// The floor after all of `changes` that take something away.
fn safe_after(state: &PoolState, changes: &[Change], reserve: Reserve) -> Result<(), Misfit> {
    let mut before: Vec<_> = state.members.iter().map(|member| member.share).collect();
    let mut after: Vec<_> = before.iter().copied().map(Some).collect();
    let mut last = None;
    for change in changes {
        let place = |device: &DeviceName| state.members.iter().position(|member| member.name == *device);
        // The kernel counts a device that is on its way out as empty, and its size still as before.
        let (member, had, gets) = match change {
            Change::Grow { .. } | Change::Add { .. } => continue,
            Change::Remove { device, share, .. } => (place(device), *share, None),
            Change::Shrink { device, from, to } => (place(device), *from, Some(*to)),
        };
        let Some(member) = member else { continue };
        before[member] = had;
        after[member] = gets;
        last = Some(change);
    }
    let Some(change) = last else { return Ok(()) };
    let floor = Floor {
        state,
        reserve,
        rounding: ROUNDING,
    };
    floor.holds(&before, &after).map_err(|lack| Misfit::Unsafe {
        change: change.to_string(),
        used: state.used,
        left: state.size.minus(floor.size_lost(&before, &left(&after))),
        reserve,
        lack,
    })
}
