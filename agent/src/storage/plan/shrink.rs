//! Which devices to take out of a pool and which to shrink, so that it gives up as much of what is asked as is safe,
//! and never more.
//!
//! Whole members first, since a device that is free is worth more than one that is half used; then the rest from
//! one that stays. More than one is shrunk only where a profile needs them even, or where one is at its least. The
//! invariant: no plan passes what [`Floor`] holds, at any of its changes.

use std::cmp::Reverse;

use hostler_common::bytes::Bytes;

use super::floor::{Floor, Reserve, left};
use super::profile::usable;
use super::{ALIGNMENT, Refusal, StoragePlan, refuse_unsettled};
use crate::storage::pool::{Change, Member, PoolState};

/// The kernel refuses to resize a device below this (`btrfs_ioctl_resize`).
pub const LEAST_SHARE: Bytes = Bytes(256 << 20);
/// Members of which every set is tried: 65 536 sets, a few milliseconds.
const TRIED_AT_MOST: usize = 16;

/// Plans to shrink the pool by at most `max`, and by as much of it as is safe.
///
/// # Errors
/// When it has nothing to give, with all the numbers, is degraded, or a device is leaving it.
pub fn shrink(state: &PoolState, max: Bytes, reserve: Reserve) -> Result<StoragePlan, Refusal> {
    refuse_unsettled(state, None)?;
    let give = Give {
        floor: Floor {
            state,
            reserve,
            rounding: Bytes(0),
        },
        now: state.members.iter().map(|member| member.share).collect(),
        max,
    };
    let mut shares: Vec<_> = give.now.iter().copied().map(Some).collect();
    for member in give.most_members() {
        shares[member] = None;
    }
    while let Some((member, to)) = give.most_of_one(&shares) {
        shares[member] = Some(to);
    }
    let changes = give.changes(&shares);
    if changes.is_empty() {
        return Err(give.nothing());
    }
    let after = left(&shares);
    Ok(StoragePlan {
        changes,
        before: state.size,
        after: state.size.minus(give.floor.size_lost(&give.now, &after)),
        notes: Vec::new(),
    })
}

/// The size that the largest shrink leaves; the size itself while none may be made. Whole members go first, and then the most
/// of one: a smaller request, which begins with others, may come to a smaller size.
pub fn smallest(state: &PoolState, reserve: Reserve) -> Bytes {
    shrink(state, Bytes(u64::MAX), reserve).map_or(state.size, |plan| plan.after)
}

/// What going without some members is worth: the sum of their shares, then what is on them, then how many they are.
type Worth = (u128, Reverse<u128>, Reverse<usize>);

struct Give<'a> {
    floor: Floor<'a>,
    now: Vec<Bytes>,
    max: Bytes,
}

impl Give<'_> {
    fn members(&self) -> &[Member] {
        &self.floor.state.members
    }

    /// Whether the pool may be left with these shares: safe, and not more given up than was asked for, neither as the
    /// kernel counts nor in what can be stored.
    fn may_leave(&self, shares: &[Option<Bytes>]) -> bool {
        let data = self.floor.state.data;
        let after = left(shares);
        self.floor.size_lost(&self.now, &after) <= self.max
            && usable(data, &self.now).minus(usable(data, &after)) <= self.max
            && self.floor.holds(&self.now, shares).is_ok()
    }

    fn without(&self, removed: &[usize]) -> Vec<Option<Bytes>> {
        let stays = |(member, share): (usize, &Bytes)| (!removed.contains(&member)).then_some(*share);
        self.now.iter().enumerate().map(stays).collect()
    }

    /// The set of members with the largest sum that may go; among equals the one with the least to move.
    fn most_members(&self) -> Vec<usize> {
        let count = self.members().len();
        if count > TRIED_AT_MOST {
            return self.many_members();
        }
        let sum = |removed: &[usize], of: fn(&Member) -> Bytes| -> u128 {
            let members = removed.iter().map(|member| &self.members()[*member]);
            members.map(|member| u128::from(of(member).0)).sum()
        };
        let mut best: Option<(Worth, Vec<usize>)> = None;
        for set in 1_u32..1 << count {
            let removed: Vec<_> = (0..count).filter(|member| set & (1 << member) != 0).collect();
            let worth = (
                sum(&removed, |member| member.share),
                Reverse(sum(&removed, |member| member.allocated)),
                Reverse(removed.len()),
            );
            let is_better = best.as_ref().is_none_or(|(other, _)| worth > *other);
            if is_better && self.may_leave(&self.without(&removed)) {
                best = Some((worth, removed));
            }
        }
        best.map(|(_, removed)| removed).unwrap_or_default()
    }

    /// The largest first, each if it may still go, for more members than can be tried in all sets.
    fn many_members(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.members().len()).collect();
        order.sort_by_key(|member| {
            let member = &self.members()[*member];
            (Reverse(member.share), member.allocated)
        });
        let mut removed = Vec::new();
        for member in order {
            removed.push(member);
            if !self.may_leave(&self.without(&removed)) {
                removed.pop();
            }
        }
        removed
    }

    /// The member that can give the most by itself, and what is left of its share.
    fn most_of_one(&self, shares: &[Option<Bytes>]) -> Option<(usize, Bytes)> {
        let candidates = shares.iter().enumerate().filter_map(|(member, share)| {
            let to = self.least_share(shares, member, (*share)?)?;
            Some((member, (*share)?, to))
        });
        // Rather one that is shrunk already, then the one with the least to move and on it, then the first.
        let best = candidates.min_by_key(|(member, share, to)| {
            let known = &self.members()[*member];
            (
                Reverse(share.minus(*to)),
                known.share >= super::aligned(known.capacity),
                known.allocated.minus(*to),
                known.allocated,
            )
        });
        best.map(|(member, _, to)| (member, to))
    }

    /// The least share that `member` may be left with, below the one that it has.
    fn least_share(&self, shares: &[Option<Bytes>], member: usize, share: Bytes) -> Option<Bytes> {
        let mut trial = shares.to_vec();
        let mut may_have = |units: u64| {
            trial[member] = Some(Bytes(units * ALIGNMENT));
            self.may_leave(&trial)
        };
        let least = LEAST_SHARE.0 / ALIGNMENT;
        let mut high = share.0.saturating_sub(1) / ALIGNMENT;
        if high < least || !may_have(high) {
            return None;
        }
        // `high` may be had, what is below `low` may not.
        let mut low = least;
        while low < high {
            let middle = low + (high - low) / 2;
            match may_have(middle) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Some(Bytes(high * ALIGNMENT))
    }

    /// Members with the least on them go first, so that nothing moves to one that goes after it.
    fn changes(&self, shares: &[Option<Bytes>]) -> Vec<Change> {
        let members = || self.members().iter().zip(shares);
        let mut gone: Vec<_> = members()
            .filter(|(_, share)| share.is_none())
            .map(|(member, _)| member)
            .collect();
        gone.sort_by_key(|member| member.allocated);
        let removes = gone.into_iter().map(|member| Change::Remove {
            device: member.name.clone(),
            share: member.share,
            allocated: member.allocated,
        });
        let shrinks = members().filter_map(|(member, share)| {
            let to = (*share).filter(|to| *to < member.share)?;
            Some(Change::Shrink {
                device: member.name.clone(),
                from: member.share,
                to,
            })
        });
        removes.chain(shrinks).collect()
    }

    fn nothing(&self) -> Refusal {
        let Floor { state, reserve, .. } = self.floor;
        let smallest = match self.max {
            Bytes(u64::MAX) => state.size,
            _ => smallest(state, reserve),
        };
        Refusal::NothingToGive {
            wanted: self.max,
            size: state.size,
            used: state.used,
            reserve,
            floor: reserve.smallest_size(state.used),
            smallest,
            data: state.data,
            metadata: state.metadata,
            devices: state.members.len(),
        }
    }
}
