//! What a profile means for room: how many copies, on how many devices, and how much fits on given shares.
//!
//! Pure arithmetic after the kernel's allocator, which takes the devices with the most room first. Sums are in 128
//! bits, so no amount overflows.

use std::fmt;

use hostler_common::bytes::Bytes;

use crate::storage::pool::Profile;

impl Profile {
    /// How often each byte lies on devices, parity not counted. The kernel divides the sum of all shares by it to
    /// tell a pool's size.
    pub fn copies(self) -> u64 {
        match self {
            Self::Single | Self::Raid0 | Self::Raid5 | Self::Raid6 => 1,
            Self::Dup | Self::Raid1 | Self::Raid10 => 2,
            Self::Raid1c3 => 3,
            Self::Raid1c4 => 4,
        }
    }

    /// The fewest devices that the kernel accepts for it (`btrfs_raid_array`, Linux 5.15 and later).
    pub fn min_devices(self) -> usize {
        match self {
            Self::Single | Self::Dup | Self::Raid0 => 1,
            Self::Raid1 | Self::Raid10 | Self::Raid5 => 2,
            Self::Raid1c3 | Self::Raid6 => 3,
            Self::Raid1c4 => 4,
        }
    }

    /// On how many devices one piece of metadata lies at least, and how often on each.
    pub(super) fn spread(self) -> (usize, u128) {
        match self {
            Self::Dup => (1, 2),
            other => (other.min_devices(), 1),
        }
    }
}

/// As `mkfs.btrfs` and `btrfs filesystem df` write it.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Dup => "DUP",
            Self::Raid0 => "RAID0",
            Self::Raid1 => "RAID1",
            Self::Raid1c3 => "RAID1C3",
            Self::Raid1c4 => "RAID1C4",
            Self::Raid10 => "RAID10",
            Self::Raid5 => "RAID5",
            Self::Raid6 => "RAID6",
        })
    }
}

/// How much data of `profile` fits on devices with these shares.
pub fn usable(profile: Profile, shares: &[Bytes]) -> Bytes {
    let sum: u128 = shares.iter().map(|share| u128::from(share.0)).sum();
    let fits = match profile {
        Profile::Single | Profile::Raid0 => sum,
        Profile::Dup => sum / 2,
        Profile::Raid1 | Profile::Raid10 => mirrored(shares, 2),
        Profile::Raid1c3 => mirrored(shares, 3),
        Profile::Raid1c4 => mirrored(shares, 4),
        Profile::Raid5 => striped(shares, 1),
        Profile::Raid6 => striped(shares, 2),
    };
    Bytes(u64::try_from(fits).unwrap_or(u64::MAX))
}

fn sorted(shares: &[Bytes]) -> Vec<u128> {
    let mut sorted: Vec<u128> = shares.iter().map(|share| share.0.into()).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted
}

/// `copies` copies, each on another device: of the `j` largest devices each holds at most one copy of everything,
/// so the others must hold the remaining `copies - j`.
fn mirrored(shares: &[Bytes], copies: usize) -> u128 {
    let sorted = sorted(shares);
    (0..copies)
        .map(|j| sorted.iter().skip(j).sum::<u128>() / (copies - j) as u128)
        .min()
        .unwrap_or(0)
}

/// Stripes over every device that still has room, `parity` devices' worth of each being parity.
fn striped(shares: &[Bytes], parity: usize) -> u128 {
    let sorted = sorted(shares);
    let mut below = 0;
    let mut fits = 0;
    for (rank, share) in sorted.iter().enumerate().rev() {
        let wide = rank + 1;
        fits += (share - below) * wide.saturating_sub(parity) as u128;
        below = *share;
    }
    fits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Profile; 9] = [
        Profile::Single,
        Profile::Dup,
        Profile::Raid0,
        Profile::Raid1,
        Profile::Raid1c3,
        Profile::Raid1c4,
        Profile::Raid10,
        Profile::Raid5,
        Profile::Raid6,
    ];

    fn of(profile: Profile, shares: &[u64]) -> u64 {
        let shares: Vec<_> = shares.iter().copied().map(Bytes).collect();
        usable(profile, &shares).0
    }

    #[test]
    fn each_profile_holds_what_the_allocator_can_lay_out() {
        for (profile, shares, fits) in [
            (Profile::Single, &[4, 3, 1][..], 8),
            (Profile::Dup, &[4, 3, 1], 4),
            (Profile::Raid0, &[4, 4], 8),
            (Profile::Raid1, &[4], 0),
            (Profile::Raid1, &[4, 4], 4),
            (Profile::Raid1, &[10, 4], 4),
            (Profile::Raid1, &[10, 4, 6], 10),
            (Profile::Raid1, &[4, 4, 4], 6),
            (Profile::Raid1c3, &[4, 4], 0),
            (Profile::Raid1c3, &[9, 4, 4], 4),
            (Profile::Raid1c3, &[6, 6, 6, 6], 8),
            (Profile::Raid1c4, &[4, 4, 4, 4], 4),
            (Profile::Raid5, &[4], 0),
            (Profile::Raid5, &[4, 4, 4], 8),
            (Profile::Raid5, &[8, 4, 4], 8),
            (Profile::Raid5, &[8, 8, 4], 12),
            (Profile::Raid6, &[4, 4, 4], 4),
            (Profile::Raid6, &[4, 4], 0),
        ] {
            assert_eq!(of(profile, shares), fits, "{profile} {shares:?}");
        }
    }

    #[test]
    fn fewer_devices_than_a_mirror_or_parity_needs_hold_nothing() {
        for profile in ALL {
            for count in 0..profile.min_devices() {
                assert_eq!(of(profile, &vec![1 << 40; count]), 0, "{profile} on {count}");
            }
        }
    }

    #[test]
    fn nothing_overflows() {
        for profile in ALL {
            of(profile, &[u64::MAX; 20]);
        }
    }

    proptest! {
        #[test]
        fn a_larger_share_never_holds_less(
            profile in proptest::sample::select(&ALL[..]),
            shares in proptest::collection::vec(0_u64..1 << 45, 1..8),
            which in any::<prop::sample::Index>(),
            more in 0_u64..1 << 45,
        ) {
            let before = of(profile, &shares);
            let mut grown = shares.clone();
            let which = which.index(shares.len());
            grown[which] += more;
            prop_assert!(of(profile, &grown) >= before);
            grown.push(more);
            prop_assert!(of(profile, &grown) >= before);
            prop_assert!(u128::from(before) * u128::from(profile.copies())
                <= shares.iter().map(|share| u128::from(*share)).sum());
        }
    }
}
