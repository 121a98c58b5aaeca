//! Plans of storage: from any figures of the kernel, and from what a journal says was decided.

use hostler_agent::storage::plan::{self, Reserve, StoragePlan};
use hostler_agent::storage::pool::{DeviceName, Member, PoolState, Presence, Profile, Spare};
use hostler_common::bytes::Bytes;

use crate::said;

const PROFILES: [Profile; 9] = [
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

/// # Panics
/// When a plan is not the same after a crash, or gives more than was asked for.
pub fn run(data: &[u8]) {
    if let Ok(plan) = serde_json::from_slice::<StoragePlan>(data) {
        same_again(&plan);
    }
    let mut figures = Figures(data);
    let wanted = figures.bytes();
    let reserve = Reserve::try_from(u32::from(figures.byte() % 91)).expect("at most 90 %");
    let state = state(&mut figures);
    plan::spare(&state);
    plan::smallest(&state, reserve);
    plan::degraded(&state);
    match plan::expand(&state, wanted) {
        Ok(plan) => {
            same_again(&plan);
            drop(plan::still_fits(&state, &plan, reserve));
        }
        Err(refusal) => said::bounded(&refusal.to_string()),
    }
    match plan::shrink(&state, wanted, reserve) {
        Ok(plan) => {
            same_again(&plan);
            let given = plan.before.minus(plan.after);
            assert!(given <= wanted, "{given:?} are given of {wanted:?} at most");
            drop(plan::still_fits(&state, &plan, reserve));
            for change in &plan.changes {
                drop(plan::still_safe(&state, change, reserve));
            }
        }
        Err(refusal) => said::bounded(&refusal.to_string()),
    }
}

fn same_again(plan: &StoragePlan) {
    plan.size_change();
    plan.lines();
    let json = serde_json::to_value(plan).expect("a plan is written");
    let again: StoragePlan = serde_json::from_value(json).expect("what was written reads");
    assert_eq!(again, *plan);
}

/// A pool of at most eight members and four spares.
fn state(figures: &mut Figures<'_>) -> PoolState {
    let mut profile = || PROFILES[usize::from(figures.byte()) % PROFILES.len()];
    let (data, metadata) = (profile(), profile());
    let mut state = PoolState {
        size: figures.bytes(),
        used: figures.bytes(),
        data_used: figures.bytes(),
        metadata_used: figures.bytes(),
        data_free: figures.bytes(),
        metadata_allocated: figures.bytes(),
        data,
        metadata,
        members: Vec::new(),
        spares: Vec::new(),
    };
    for number in 0..figures.byte() % 9 {
        state.members.push(Member {
            name: DeviceName(format!("/dev/m{number}")),
            capacity: figures.bytes(),
            share: figures.bytes(),
            allocated: figures.bytes(),
            presence: match figures.byte() {
                0 => Presence::Leaving,
                1 => Presence::Missing,
                _ => Presence::Present,
            },
        });
    }
    for number in 0..figures.byte() % 5 {
        let problem = (figures.byte() == 0).then(|| "it is mounted".to_owned());
        state.spares.push(Spare {
            name: DeviceName(format!("/dev/s{number}")),
            capacity: figures.bytes(),
            problem,
        });
    }
    state
}

/// Figures from bytes; zero where there are no more.
struct Figures<'a>(&'a [u8]);

impl Figures<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Its first byte says of what order it is, so that figures of one kind meet.
    fn bytes(&mut self) -> Bytes {
        let order = u32::from(self.byte()) % 64;
        let figure = u64::from(self.byte()) << 8 | u64::from(self.byte());
        Bytes(match order {
            63 => u64::MAX - figure,
            order => figure << order,
        })
    }
}
