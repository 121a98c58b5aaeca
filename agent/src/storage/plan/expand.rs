//! Which devices to grow and which spares to add, so that a pool grows by what is asked and by as little more as can
//! be.
//!
//! Members that were shrunk come first, since that moves nothing. Then spares: the set with the least excess, found
//! by trying all sets of up to [`TRIED_AT_MOST`] spares, and good enough beyond.

use std::cmp::Reverse;

use hostler_common::bytes::Bytes;

use super::profile::usable;
use super::{
    ALIGNMENT, Amount, Refusal, RefusedSpare, StoragePlan, aligned, refuse_degraded, refuse_unsettled,
};
use crate::storage::plan::floor::sum;
use crate::storage::pool::{Change, PoolState, Presence, Spare};

/// Spares of which every set is tried: 65 536 sets, a few milliseconds.
const TRIED_AT_MOST: usize = 16;

/// Plans to grow the pool by at least `min`.
///
/// # Errors
/// When it cannot grow by so much, with all the numbers, is degraded, or a device is leaving it.
pub fn expand(state: &PoolState, min: Bytes) -> Result<StoragePlan, Refusal> {
    refuse_unsettled(state, None)?;
    let room = Room::of(state);
    let grown = room.members_grown();
    let taken = match room.growth(&grown, &[]) >= min {
        true => Vec::new(),
        false => room
            .least_spares(&grown, min)
            .ok_or_else(|| room.not_enough(min))?,
    };
    let grown = room.no_more_than_needed(grown, &taken, min);
    let grows = state
        .members
        .iter()
        .zip(&grown)
        .filter(|(member, to)| **to > member.share)
        .map(|(member, to)| Change::Grow {
            device: member.name.clone(),
            from: member.share,
            to: *to,
        });
    let adds = taken.iter().map(|spare| Change::Add {
        device: room.spares[*spare].name.clone(),
        capacity: room.spares[*spare].capacity,
    });
    Ok(StoragePlan {
        changes: grows.chain(adds).collect(),
        before: state.size,
        after: state.size.plus(room.size_gained(&grown, &taken)),
        notes: refused(state).iter().map(ToString::to_string).collect(),
    })
}

/// What an expand can add to the pool's size at most. A device that is leaving is not counted until it has left.
pub fn spare(state: &PoolState) -> Bytes {
    match refuse_degraded(state) {
        Err(_) => Bytes::ZERO,
        Ok(()) => Room::of(state).most(),
    }
}

fn refused(state: &PoolState) -> Vec<RefusedSpare> {
    let refused = |spare: &Spare| {
        spare.problem.as_ref().map(|problem| RefusedSpare {
            device: spare.name.clone(),
            problem: problem.clone(),
        })
    };
    state.spares.iter().filter_map(refused).collect()
}

/// Where a pool can grow.
struct Room<'a> {
    state: &'a PoolState,
    now: Vec<Bytes>,
    spares: Vec<&'a Spare>,
}

impl<'a> Room<'a> {
    fn of(state: &'a PoolState) -> Self {
        let takes = |spare: &&Spare| spare.problem.is_none() && aligned(spare.capacity) > Bytes::ZERO;
        Self {
            state,
            now: state.members.iter().map(|member| member.share).collect(),
            spares: state.spares.iter().filter(takes).collect(),
        }
    }

    /// The members' shares with all of them as large as their devices.
    fn members_grown(&self) -> Vec<Bytes> {
        let members = self.state.members.iter();
        let grown = members.map(|member| match member.presence {
            // It shows no share, and was not shrunk.
            Presence::Leaving => member.share,
            Presence::Present | Presence::Missing => aligned(member.capacity).max(member.share),
        });
        grown.collect()
    }

    fn with_spares(&self, members: &[Bytes], taken: &[usize]) -> Vec<Bytes> {
        let spares = taken.iter().map(|spare| aligned(self.spares[*spare].capacity));
        members.iter().copied().chain(spares).collect()
    }

    /// By how much the kernel's figure of the size rises.
    fn size_gained(&self, members: &[Bytes], taken: &[usize]) -> Bytes {
        let after = sum(&self.with_spares(members, taken));
        let raw = after.saturating_sub(sum(&self.now));
        let gained = raw / u128::from(self.state.data.copies());
        Bytes(u64::try_from(gained).unwrap_or(u64::MAX))
    }

    /// By how much more can be stored, and no more than the kernel will say.
    fn growth(&self, members: &[Bytes], taken: &[usize]) -> Bytes {
        let data = self.state.data;
        let after = usable(data, &self.with_spares(members, taken));
        after
            .minus(usable(data, &self.now))
            .min(self.size_gained(members, taken))
    }

    fn most(&self) -> Bytes {
        let all: Vec<_> = (0..self.spares.len()).collect();
        self.growth(&self.members_grown(), &all)
    }

    fn capacity(&self, taken: &[usize]) -> u128 {
        taken
            .iter()
            .map(|spare| u128::from(self.spares[*spare].capacity.0))
            .sum()
    }

    /// The set of spares with the least capacity that is enough; among equals the fewest, then the first configured.
    fn least_spares(&self, members: &[Bytes], min: Bytes) -> Option<Vec<usize>> {
        let count = self.spares.len();
        if self.most() < min {
            return None;
        }
        if count > TRIED_AT_MOST {
            return self.few_spares(members, min);
        }
        let mut best: Option<(u128, usize, Vec<usize>)> = None;
        for set in 1_u32..1 << count {
            let taken: Vec<_> = (0..count).filter(|spare| set & (1 << spare) != 0).collect();
            let cost = (self.capacity(&taken), taken.len());
            let is_better = best
                .as_ref()
                .is_none_or(|(capacity, devices, first)| (cost, &taken) < ((*capacity, *devices), first));
            if is_better && self.growth(members, &taken) >= min {
                best = Some((cost.0, cost.1, taken));
            }
        }
        best.map(|(.., taken)| taken)
    }

    /// A set that is enough and of which none can be left out, for more spares than can be tried in all sets.
    fn few_spares(&self, members: &[Bytes], min: Bytes) -> Option<Vec<usize>> {
        let mut largest_first: Vec<_> = (0..self.spares.len()).collect();
        largest_first.sort_by_key(|spare| Reverse(self.spares[*spare].capacity));
        let mut taken = Vec::new();
        for spare in &largest_first {
            if self.growth(members, &taken) >= min {
                break;
            }
            taken.push(*spare);
        }
        // The last one may be larger than it needs to be.
        let smallest_last = largest_first.iter().rev().find(|spare| {
            let mut other = taken.clone();
            other.pop();
            other.push(**spare);
            !taken[..taken.len().saturating_sub(1)].contains(spare) && self.growth(members, &other) >= min
        });
        if let (Some(smallest), Some(last)) = (smallest_last, taken.last_mut()) {
            *last = *smallest;
        }
        for spare in largest_first.iter().rev() {
            let without: Vec<_> = taken.iter().copied().filter(|other| other != spare).collect();
            if self.growth(members, &without) >= min {
                taken = without;
            }
        }
        (self.growth(members, &taken) >= min).then_some(taken)
    }

    /// Takes back what the members would grow in excess, those with the least room first, so that few change.
    fn no_more_than_needed(&self, mut grown: Vec<Bytes>, taken: &[usize], min: Bytes) -> Vec<Bytes> {
        let mut order: Vec<_> = (0..grown.len()).collect();
        order.sort_by_key(|member| grown[*member].minus(self.now[*member]));
        for member in order {
            let (now, most) = (self.now[member], grown[member]);
            grown[member] = now;
            if self.growth(&grown, taken) >= min {
                continue;
            }
            // `most` is enough and `low` is not; shares are multiples of the alignment.
            let (mut low, mut high) = (now.0 / ALIGNMENT, most.0.div_ceil(ALIGNMENT));
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                grown[member] = Bytes(middle * ALIGNMENT).min(most);
                match self.growth(&grown, taken) >= min {
                    true => high = middle,
                    false => low = middle,
                }
            }
            grown[member] = Bytes(high.saturating_mul(ALIGNMENT)).min(most);
        }
        grown
    }

    fn not_enough(&self, wanted: Bytes) -> Refusal {
        let members = self.state.members.iter().zip(self.members_grown());
        let members = members
            .map(|(member, grown)| Amount::of(&member.name, grown.minus(member.share)))
            .filter(|amount| amount.bytes > Bytes::ZERO);
        let spares = self.spares.iter();
        let spares = spares.map(|spare| Amount::of(&spare.name, spare.capacity));
        Refusal::NotEnough {
            wanted,
            can_give: self.most(),
            data: self.state.data,
            devices: members.chain(spares).collect(),
            refused: refused(self.state),
        }
    }
}
