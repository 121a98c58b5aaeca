//! Plans over tables of known pools and over random ones.

use proptest::prelude::*;

use super::*;
use crate::storage::pool::{Member, Spare};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn member(name: &str, capacity: u64, share: u64, allocated: u64) -> Member {
    Member {
        name: DeviceName(name.into()),
        capacity: Bytes(capacity),
        share: Bytes(share),
        allocated: Bytes(allocated),
        presence: Presence::Present,
    }
}

fn spare_device(name: &str, capacity: u64) -> Spare {
    Spare {
        name: DeviceName(name.into()),
        capacity: Bytes(capacity),
        problem: None,
    }
}

/// With the kernel's figures for these members.
fn pool(data: Profile, used: u64, members: Vec<Member>, spares: Vec<Spare>) -> PoolState {
    let raw: u64 = members.iter().map(|member| member.share.0).sum();
    let allocated: u64 = members.iter().map(|member| member.allocated.0).sum();
    PoolState {
        size: Bytes(raw / data.copies()),
        used: Bytes(used),
        data_used: Bytes(used),
        metadata_used: Bytes::ZERO,
        data_free: Bytes(allocated.saturating_sub(used * data.copies())),
        metadata_allocated: Bytes::ZERO,
        data,
        metadata: data,
        members,
        spares,
    }
}

fn whole(name: &str, gib: u64) -> Member {
    member(name, gib * GIB, gib * GIB, GIB / 4)
}

fn texts(plan: &StoragePlan) -> Vec<String> {
    plan.changes.iter().map(ToString::to_string).collect()
}

fn reserve(percent: u32) -> Reserve {
    percent.try_into().unwrap()
}

/// The pool after one change, as a backend would leave it. Where data moves to does not matter to a plan.
fn after(state: &PoolState, change: &Change) -> PoolState {
    let mut next = state.clone();
    let at = |state: &PoolState, device: &DeviceName| {
        state
            .members
            .iter()
            .position(|member| member.name == *device)
            .unwrap()
    };
    match change {
        Change::Grow { device, to, .. } | Change::Shrink { device, to, .. } => {
            let at = at(state, device);
            next.members[at].share = *to;
        }
        Change::Add { device, capacity } => {
            next.spares.retain(|spare| spare.name != *device);
            next.members.push(member(
                &device.0,
                capacity.0,
                capacity.0 / ALIGNMENT * ALIGNMENT,
                0,
            ));
        }
        Change::Remove { device, .. } => {
            let gone = next.members.remove(at(state, device));
            next.spares.push(spare_device(&gone.name.0, gone.capacity.0));
        }
    }
    let raw: u128 = next.members.iter().map(|member| u128::from(member.share.0)).sum();
    next.size = Bytes(u64::try_from(raw / u128::from(state.data.copies())).unwrap());
    next
}

fn shares(state: &PoolState) -> Vec<Bytes> {
    state.members.iter().map(|member| member.share).collect()
}

#[test]
fn an_expand_grows_what_was_shrunk_before_it_adds_the_set_with_the_least_excess() {
    let shrunk = || {
        vec![
            member("/dev/a", 4 * GIB, 3 * GIB, GIB),
            member("/dev/b", 4 * GIB, 4 * GIB, GIB),
        ]
    };
    let spares = || {
        vec![
            spare_device("/dev/c", 8 * GIB),
            spare_device("/dev/d", 2 * GIB),
            spare_device("/dev/e", 3 * GIB),
        ]
    };
    for (min, changes, size) in [
        // To the byte, in whole sectors.
        (
            1,
            &["grow device /dev/a from 3.00 GiB to 3.00 GiB"][..],
            7 * GIB + 4096,
        ),
        (GIB, &["grow device /dev/a from 3.00 GiB to 4.00 GiB"], 8 * GIB),
        (
            5 * GIB / 2,
            &[
                "grow device /dev/a from 3.00 GiB to 3.50 GiB",
                "add device /dev/d (2.00 GiB)",
            ],
            19 * GIB / 2,
        ),
        // With the spare, growing is in excess.
        (2 * GIB, &["add device /dev/d (2.00 GiB)"], 9 * GIB),
        (
            6 * GIB,
            &[
                "grow device /dev/a from 3.00 GiB to 4.00 GiB",
                "add device /dev/d (2.00 GiB)",
                "add device /dev/e (3.00 GiB)",
            ],
            13 * GIB,
        ),
        (7 * GIB, &["add device /dev/c (8.00 GiB)"], 15 * GIB),
    ] {
        let state = pool(Profile::Single, GIB, shrunk(), spares());
        let plan = expand(&state, Bytes(min)).unwrap();
        assert_eq!(texts(&plan), changes, "{min}");
        assert_eq!((plan.before.0, plan.after.0), (7 * GIB, size), "{min}");
    }
}

#[test]
fn a_mirror_grows_by_pairs() {
    let state = pool(
        Profile::Raid1,
        GIB,
        vec![whole("/dev/a", 4), whole("/dev/b", 4)],
        vec![spare_device("/dev/c", 2 * GIB), spare_device("/dev/d", 2 * GIB)],
    );
    assert_eq!(spare(&state), Bytes(2 * GIB));
    let plan = expand(&state, Bytes(GIB)).unwrap();
    assert_eq!(texts(&plan), ["add device /dev/c (2.00 GiB)"]);
    assert_eq!(plan.after, Bytes(5 * GIB));
    assert_eq!(expand(&state, Bytes(GIB + 1)).unwrap().changes.len(), 2);

    let even = vec![
        member("/dev/a", 4 * GIB, 2 * GIB, 0),
        member("/dev/b", 4 * GIB, 2 * GIB, 0),
    ];
    let plan = expand(&pool(Profile::Raid1, 0, even, vec![]), Bytes(GIB)).unwrap();
    assert_eq!(
        texts(&plan),
        [
            "grow device /dev/a from 2.00 GiB to 3.00 GiB",
            "grow device /dev/b from 2.00 GiB to 3.00 GiB"
        ]
    );
}

#[test]
fn an_expand_beyond_the_spares_is_refused_with_all_the_numbers() {
    let mut broken = spare_device("/dev/d", 9 * GIB);
    broken.problem = Some("/dev/d is mounted on /mnt; unmount it".into());
    let mut odd = spare_device("/dev/e", 0);
    odd.problem = Some("it does not exist".into());
    let state = pool(
        Profile::Single,
        GIB,
        vec![member("/dev/a", 4 * GIB, 3 * GIB, GIB)],
        vec![spare_device("/dev/c", 2 * GIB), broken, odd],
    );
    assert_eq!(
        expand(&state, Bytes(3 * GIB + 1)).unwrap_err().to_string(),
        "it cannot grow by 3221225473 bytes (3.00 GiB): 3221225472 bytes (3.00 GiB) can be added \
         (1.00 GiB on /dev/a, 2.00 GiB on /dev/c); not taken: /dev/d is mounted on /mnt; unmount it, \
         /dev/e is not taken: it does not exist"
    );
    let plan = expand(&state, Bytes(2 * GIB)).unwrap();
    assert_eq!(plan.notes.len(), 2, "{:?}", plan.notes);
    assert!(expand(&state, Bytes(u64::MAX)).is_err());
}

#[test]
fn more_spares_than_can_be_tried_in_all_sets_are_taken_without_a_superfluous_one() {
    let spares: Vec<_> = (1..=40)
        .map(|size| spare_device(&format!("/dev/s{size}"), size * GIB))
        .collect();
    let state = pool(Profile::Single, GIB, vec![whole("/dev/a", 4)], spares);
    for (min, added) in [(1, 1), (7, 7), (40, 40), (41, 41), (100, 100), (820, 820)] {
        let plan = expand(&state, Bytes(min * GIB)).unwrap();
        assert_eq!(plan.size_change(), added * (1 << 30), "{min}");
    }
    assert!(expand(&state, Bytes(821 * GIB)).is_err());
}

#[test]
fn a_shrink_gives_whole_members_first_and_the_rest_from_one_that_stays() {
    let members = || {
        vec![
            member("/dev/a", 4 * GIB, 4 * GIB, GIB),
            member("/dev/b", 3 * GIB, 3 * GIB, GIB),
            member("/dev/c", 3 * GIB, 3 * GIB, 0),
        ]
    };
    for (max, changes, size) in [
        // Among equals the one with the least to move.
        (3 * GIB, &["remove device /dev/c (3.00 GiB)"][..], 7 * GIB),
        (
            5 * GIB,
            &[
                "remove device /dev/a (4.00 GiB)",
                "shrink device /dev/c from 3.00 GiB to 2.00 GiB",
            ],
            5 * GIB,
        ),
        (GIB, &["shrink device /dev/c from 3.00 GiB to 2.00 GiB"], 9 * GIB),
        // What is empty goes first, so that nothing moves to it.
        (
            7 * GIB,
            &[
                "remove device /dev/c (3.00 GiB)",
                "remove device /dev/a (4.00 GiB)",
            ],
            3 * GIB,
        ),
        (4095, &[], 0),
    ] {
        let state = pool(Profile::Single, GIB / 2, members(), vec![]);
        let Ok(plan) = shrink(&state, Bytes(max), reserve(10)) else {
            assert!(changes.is_empty(), "{max}");
            continue;
        };
        assert_eq!(texts(&plan), changes, "{max}");
        assert_eq!(plan.after.0, size, "{max}");
    }
}

#[test]
fn a_shrink_stops_at_used_and_reserve() {
    let members = vec![
        member("/dev/a", 40 * GIB, 40 * GIB, 30 * GIB),
        member("/dev/b", 40 * GIB, 40 * GIB, 15 * GIB),
    ];
    let state = pool(Profile::Single, 45 * GIB, members, vec![]);
    let plan = shrink(&state, Bytes(u64::MAX), reserve(10)).unwrap();
    assert_eq!(texts(&plan), ["shrink device /dev/b from 40.00 GiB to 10.00 GiB"]);
    assert_eq!(plan.after, Bytes(50 * GIB));
    assert_eq!(smallest(&state, reserve(10)), Bytes(50 * GIB));
    // Without a reserve there must still be room for the piece that moves.
    assert!(smallest(&state, reserve(0)) > Bytes(46 * GIB));

    let full = pool(Profile::Single, 78 * GIB, state.members.clone(), vec![]);
    assert_eq!(
        shrink(&full, Bytes(GIB), reserve(10)).unwrap_err().to_string(),
        "it has nothing to give: its size is 85899345920 bytes (80.00 GiB), 83751862272 bytes (78.00 GiB) are used, and \
         with a reserve of 10 % it may not be smaller than 93057624747 bytes (86.66 GiB); the smallest safe size is \
         85899345920 bytes (80.00 GiB)"
    );
    let tiny = shrink(&state, Bytes(100), reserve(10)).unwrap_err().to_string();
    assert!(tiny.contains("smallest safe size is 53687091200 bytes"), "{tiny}");
    assert!(
        tiny.ends_with("but 100 bytes is less than a device can give up"),
        "{tiny}"
    );
}

#[test]
fn a_profile_keeps_the_devices_that_it_needs() {
    for (data, count) in [
        (Profile::Single, 1),
        (Profile::Raid1, 2),
        (Profile::Raid1c3, 3),
        (Profile::Raid1c4, 4),
        (Profile::Raid5, 2),
        (Profile::Raid6, 3),
    ] {
        let members = (0..6).map(|at| whole(&format!("/dev/{at}"), 8)).collect();
        let mut state = pool(data, GIB / 2, members, vec![]);
        let plan = shrink(&state, Bytes(u64::MAX), reserve(10)).unwrap();
        let removed = plan
            .changes
            .iter()
            .filter(|change| matches!(change, Change::Remove { .. }))
            .count();
        assert_eq!(6 - removed, count, "{data}");
        // Metadata alone may need more.
        state.metadata = Profile::Raid1c3;
        let plan = shrink(&state, Bytes(u64::MAX), reserve(10)).unwrap();
        assert!(
            plan.changes
                .iter()
                .filter(|change| matches!(change, Change::Remove { .. }))
                .count()
                <= 3,
            "{data}"
        );
    }
    let pair = pool(
        Profile::Raid1,
        GIB,
        vec![whole("/dev/a", 8), whole("/dev/b", 8)],
        vec![],
    );
    let plan = shrink(&pair, Bytes(3 * GIB), reserve(10)).unwrap();
    assert_eq!(
        texts(&plan),
        [
            "shrink device /dev/a from 8.00 GiB to 5.00 GiB",
            "shrink device /dev/b from 8.00 GiB to 5.00 GiB"
        ]
    );
    assert_eq!(plan.after, Bytes(5 * GIB));
}

#[test]
fn no_member_is_left_with_less_than_the_kernel_takes() {
    let state = pool(Profile::Single, 0, vec![member("/dev/a", GIB, GIB, 0)], vec![]);
    let plan = shrink(&state, Bytes(u64::MAX), reserve(0)).unwrap();
    assert_eq!(texts(&plan), ["shrink device /dev/a from 1.00 GiB to 256.00 MiB"]);
    let least = pool(
        Profile::Single,
        0,
        vec![member("/dev/a", GIB, LEAST_SHARE.0, 0)],
        vec![],
    );
    let refusal = shrink(&least, Bytes(GIB), reserve(0)).unwrap_err().to_string();
    assert!(
        refusal.contains("each of which keeps at least 256.00 MiB"),
        "{refusal}"
    );
}

#[test]
fn a_degraded_pool_is_left_alone() {
    let mut state = pool(
        Profile::Raid1,
        GIB,
        vec![whole("/dev/a", 8), whole("/dev/b", 8), whole("/dev/c", 8)],
        vec![spare_device("/dev/d", GIB)],
    );
    state.members[1].presence = Presence::Missing;
    for refusal in [
        expand(&state, Bytes(1)).unwrap_err(),
        shrink(&state, Bytes(GIB), reserve(10)).unwrap_err(),
    ] {
        assert!(
            refusal
                .to_string()
                .starts_with("it is degraded: /dev/b is missing"),
            "{refusal}"
        );
    }
    assert_eq!(spare(&state), Bytes::ZERO);
    assert_eq!(smallest(&state, reserve(10)), state.size);
}

#[test]
fn metadata_that_leaves_needs_room_for_all_its_pieces_however_little_is_in_them() {
    let state = |metadata_allocated| {
        let members = vec![
            member("/dev/a", 20 * GIB, 20 * GIB, 4 * GIB),
            member("/dev/b", 20 * GIB, 20 * GIB, 17 * GIB),
        ];
        let mut state = pool(Profile::Single, 11 * GIB, members, vec![]);
        state.metadata_used = Bytes(MIB);
        state.metadata_allocated = Bytes(metadata_allocated);
        state.data_free = Bytes(10 * GIB - metadata_allocated);
        state
    };
    let plan = |metadata| shrink(&state(metadata), Bytes(20 * GIB), reserve(10)).unwrap();
    let removal = &plan(GIB / 4).changes[0];
    assert_eq!(removal.to_string(), "remove device /dev/a (20.00 GiB)");
    // On the other device 3 GiB are given to nobody yet.
    assert_ne!(&plan(4 * GIB).changes[0], removal);
    let misfit = still_safe(&state(4 * GIB), removal, reserve(10)).unwrap_err();
    assert!(
        matches!(misfit, Misfit::Unsafe { lack: Lack::Room, .. }),
        "{misfit}"
    );
}

#[test]
fn a_pool_that_a_device_is_leaving_is_left_alone_until_it_has_left() {
    let mut state = pool(
        Profile::Single,
        GIB,
        vec![whole("/dev/a", 8), whole("/dev/b", 8), whole("/dev/c", 8)],
        vec![spare_device("/dev/d", GIB)],
    );
    let plan = shrink(&state, Bytes(8 * GIB), reserve(10)).unwrap();
    let [removal] = &plan.changes[..] else {
        panic!("{plan:?}");
    };
    let leaving = |state: &mut PoolState, at: usize| {
        state.members[at].presence = Presence::Leaving;
        state.members[at].share = Bytes::ZERO;
    };
    leaving(&mut state, 0);
    assert_eq!(removal.device().0, "/dev/a");
    for refusal in [
        expand(&state, Bytes(1)).unwrap_err(),
        shrink(&state, Bytes(GIB), reserve(10)).unwrap_err(),
    ] {
        let refusal = refusal.to_string();
        assert!(
            refusal.starts_with("/dev/a is being removed from it"),
            "{refusal}"
        );
    }
    assert_eq!(spare(&state), Bytes(GIB), "it is no device that was shrunk");
    assert_eq!(smallest(&state, reserve(10)), state.size);
    assert!(still_fits(&state, &plan, reserve(10)).is_err());
    // What was begun goes on; what others began is not joined.
    assert_eq!(still_safe(&state, removal, reserve(10)), Ok(()));
    leaving(&mut state, 1);
    let misfit = still_safe(&state, removal, reserve(10)).unwrap_err();
    assert!(matches!(misfit, Misfit::NotNow(_)), "{misfit}");
}

#[test]
fn a_plan_does_not_fit_a_pool_that_changed_meanwhile() {
    let members = || vec![whole("/dev/a", 8), whole("/dev/b", 8)];
    let state = pool(Profile::Single, GIB, members(), vec![spare_device("/dev/c", GIB)]);
    let shrunk = shrink(&state, Bytes(8 * GIB), reserve(10)).unwrap();
    still_fits(&state, &shrunk, reserve(10)).unwrap();
    let fuller = pool(Profile::Single, 7 * GIB + GIB / 2, members(), vec![]);
    let misfit = still_fits(&fuller, &shrunk, reserve(10)).unwrap_err().to_string();
    assert!(misfit.contains("the reserve of 10 % would be broken"), "{misfit}");
    assert!(still_safe(&fuller, &shrunk.changes[0], reserve(10)).is_err());
    let other = pool(Profile::Single, GIB, vec![whole("/dev/b", 8)], vec![]);
    assert!(matches!(
        still_fits(&other, &shrunk, reserve(10)),
        Err(Misfit::NoMember { .. } | Misfit::Unsafe { .. })
    ));

    let grown = expand(&state, Bytes(GIB)).unwrap();
    let mut taken = state.clone();
    taken.spares[0].problem = Some("it is mounted".into());
    assert!(matches!(
        still_fits(&taken, &grown, reserve(10)),
        Err(Misfit::RefusedSpare { .. })
    ));
    taken.spares.clear();
    assert!(matches!(
        still_fits(&taken, &grown, reserve(10)),
        Err(Misfit::NoSpare { .. })
    ));
}

#[test]
fn absurd_devices_do_not_overflow() {
    let members = (0..5)
        .map(|at| member(&format!("/dev/{at}"), u64::MAX, u64::MAX / 4, u64::MAX / 4))
        .collect();
    let spares = vec![spare_device("/dev/x", u64::MAX), spare_device("/dev/y", u64::MAX)];
    let mut state = pool(Profile::Single, 0, vec![whole("/dev/a", 1)], spares);
    state.members = members;
    state.size = Bytes(u64::MAX);
    for amount in [1, GIB, u64::MAX] {
        let _ = expand(&state, Bytes(amount));
        let _ = shrink(&state, Bytes(amount), reserve(90));
        state.used = Bytes(u64::MAX);
        state.data_used = Bytes(u64::MAX);
        state.metadata_used = Bytes(u64::MAX);
    }
}

#[test]
fn a_plan_is_read_back_as_it_was_written() {
    let state = pool(
        Profile::Single,
        GIB,
        vec![member("/dev/a", 4 * GIB, 3 * GIB, GIB)],
        vec![spare_device("/dev/c", 2 * GIB)],
    );
    let plan = expand(&state, Bytes(3 * GIB)).unwrap();
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(
        json.to_string(),
        r#"{"after":6442450944,"before":3221225472,"changes":[{"change":"grow","device":"/dev/a","from":3221225472,"to":4294967296},{"capacity":2147483648,"change":"add","device":"/dev/c"}],"notes":[]}"#
    );
    assert_eq!(serde_json::from_value::<StoragePlan>(json).unwrap(), plan);
    assert_eq!(
        plan.lines(),
        [
            "grow device /dev/a from 3.00 GiB to 4.00 GiB: 1.00 GiB more",
            "add device /dev/c (2.00 GiB)"
        ]
    );
    assert_eq!(plan.size_change(), 3 << 30);
}

fn any_profile() -> impl Strategy<Value = Profile> {
    proptest::sample::select(vec![
        Profile::Single,
        Profile::Dup,
        Profile::Raid0,
        Profile::Raid1,
        Profile::Raid1c3,
        Profile::Raid5,
        Profile::Raid10,
    ])
}

prop_compose! {
    fn any_pool()(
        data in any_profile(),
        metadata in any_profile(),
        members in proptest::collection::vec((256..40_000_u64, 0..=100_u64), 1..7),
        spares in proptest::collection::vec((1..40_000_u64, any::<bool>(), 0..4096_u64), 0..6),
        used in 0..=100_u64,
        meta in 0..500_u64,
    ) -> PoolState {
        let members: Vec<_> = members
            .into_iter()
            .enumerate()
            .map(|(at, (capacity, percent))| {
                let share = (capacity * MIB * percent / 100 / ALIGNMENT * ALIGNMENT).max(LEAST_SHARE.0);
                member(&format!("/dev/m{at}"), capacity * MIB, share, share * used / 100)
            })
            .collect();
        let spares = spares
            .into_iter()
            .enumerate()
            .map(|(at, (capacity, usable, odd))| Spare {
                name: DeviceName(format!("/dev/s{at}")),
                capacity: Bytes(capacity * MIB + odd),
                problem: (!usable).then(|| "it is mounted".to_owned()),
            })
            .collect();
        let mut state = pool(data, 0, members, spares);
        state.metadata = metadata;
        state.metadata_used = Bytes(meta * MIB);
        state.data_used = Bytes(usable(data, &shares(&state)).0 / 100 * used);
        state.used = state.data_used.plus(state.metadata_used);
        let allocated: u64 = state.members.iter().map(|member| member.allocated.0).sum();
        let metadata = state.metadata_used.0 * state.metadata.copies();
        state.metadata_allocated = Bytes(metadata);
        state.data_free = Bytes(allocated.saturating_sub(metadata + state.data_used.0 * data.copies()));
        state
    }
}

proptest! {
    #[test]
    fn an_expand_gives_what_is_asked_or_says_how_much_there_is(state in any_pool(), min in 1..100_000 * MIB) {
        let most = spare(&state);
        match expand(&state, Bytes(min)) {
            Ok(plan) => {
                prop_assert!(most.0 >= min);
                let end = plan.changes.iter().fold(state.clone(), |state, change| after(&state, change));
                prop_assert!(end.size.0 - state.size.0 >= min, "the kernel's size grew by less");
                let stored = |state: &PoolState| usable(state.data, &shares(state)).0;
                prop_assert!(stored(&end) - stored(&state) >= min, "it holds less");
                prop_assert!(end.size.0.abs_diff(plan.after.0) <= 8);
                // Without any one of its changes it would not be enough.
                for left_out in 0..plan.changes.len() {
                    let mut fewer = state.clone();
                    for (_, change) in plan.changes.iter().enumerate().filter(|(at, _)| *at != left_out) {
                        fewer = after(&fewer, change);
                    }
                    let grown = (stored(&fewer) - stored(&state)).min(fewer.size.0 - state.size.0);
                    prop_assert!(grown < min, "change {} is superfluous", left_out);
                }
                prop_assert_eq!(still_fits(&state, &plan, Reserve::default()), Ok(()));
            }
            Err(Refusal::NotEnough { can_give, .. }) => {
                prop_assert_eq!(can_give, most);
                prop_assert!(most.0 < min);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn a_shrink_never_gives_more_than_is_asked_nor_passes_the_floor(
        state in any_pool(),
        max in 1..100_000 * MIB,
        percent in 0..=90_u32,
    ) {
        let reserve = reserve(percent);
        let Ok(plan) = shrink(&state, Bytes(max), reserve) else { return Ok(()) };
        prop_assert_eq!(still_fits(&state, &plan, reserve), Ok(()));
        let mut now = state.clone();
        for change in &plan.changes {
            prop_assert_eq!(still_safe(&now, change, reserve), Ok(()), "before {}", change);
            now = after(&now, change);
            prop_assert!((now.size.0 - now.used.0) * 100 >= now.size.0 * u64::from(percent));
            prop_assert!(now.members.iter().all(|member| member.share >= LEAST_SHARE));
        }
        prop_assert!(state.size.0 - now.size.0 <= max);
        prop_assert!(now.size.0 < state.size.0);
        prop_assert!(now.size.0.abs_diff(plan.after.0) <= 8);
        prop_assert!(smallest(&state, reserve) < state.size, "what has something to give says so");
    }

    #[test]
    fn what_was_given_up_can_be_taken_back(state in any_pool(), max in MIB..100_000 * MIB) {
        let Ok(plan) = shrink(&state, Bytes(max), Reserve::default()) else { return Ok(()) };
        let shrunk = plan.changes.iter().fold(state.clone(), |state, change| after(&state, change));
        let stored = |state: &PoolState| usable(state.data, &shares(state)).0;
        let lost = (stored(&state) - stored(&shrunk)).min(state.size.0 - shrunk.size.0);
        // A share that its profile cannot use, beside a member that is full, holds nothing: nothing was given up then.
        if lost > 0 {
            prop_assert!(spare(&shrunk).0 >= lost);
            prop_assert!(expand(&shrunk, Bytes(lost)).is_ok());
        }
    }
}
