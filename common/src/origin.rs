//! Where the wall clock and randomness come from: the operating system, or a simulation that runs on this thread.
//!
//! It owns nothing else: deadlines are on the runtime's clock. Invariant: without a [`Simulated`] on the thread all of
//! it is the operating system's, and with one the same seed gives the same answers in the same order.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

thread_local! {
    static ORIGIN: RefCell<Option<Origin>> = const { RefCell::new(None) };
}

/// Of the simulation on this thread.
struct Origin {
    clock: Box<dyn Fn() -> i64>,
    random: u64,
    /// The time of the last id and how many were made at it.
    last: (u64, u16),
}

/// While it lives, the wall clock and randomness on this thread are simulated.
pub struct Simulated(PhantomData<*const ()>);

/// Takes the wall clock from `clock`, in milliseconds since the Unix epoch, and randomness from `seed`, for this
/// thread.
pub fn simulate(clock: impl Fn() -> i64 + 'static, seed: u64) -> Simulated {
    let origin = Origin {
        clock: Box::new(clock),
        random: seed,
        last: (0, 0),
    };
    ORIGIN.with_borrow_mut(|current| *current = Some(origin));
    Simulated(PhantomData)
}

impl Drop for Simulated {
    fn drop(&mut self) {
        ORIGIN.with_borrow_mut(|current| *current = None);
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_clock() -> i64 {
    let simulated = ORIGIN.with_borrow(|origin| origin.as_ref().map(|origin| (origin.clock)()));
    simulated.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// At least 0 and below 1.
pub(crate) fn fraction() -> f64 {
    let simulated = ORIGIN.with_borrow_mut(|origin| origin.as_mut().map(Origin::next));
    // 62 random bits, of which a float holds 53.
    let bits = simulated.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().1 << 2);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A random one.
pub(crate) fn uuid_v4() -> Uuid {
    let simulated = ORIGIN.with_borrow_mut(|origin| {
        let bytes = origin.as_mut().map(Origin::sixteen)?;
        Some(uuid::Builder::from_random_bytes(bytes).into_uuid())
    });
    simulated.unwrap_or_else(Uuid::new_v4)
}

/// One that sorts after those that this process made before, whatever the clock does.
pub(crate) fn uuid_v7() -> Uuid {
    let simulated = ORIGIN.with_borrow_mut(|origin| origin.as_mut().map(Origin::ordered));
    simulated.unwrap_or_else(Uuid::now_v7)
}

impl Origin {
    /// SplitMix64: small, and good enough to spread waits and to name things.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn sixteen(&mut self) -> [u8; 16] {
        let (high, low) = (self.next(), self.next());
        ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
    }

    fn ordered(&mut self) -> Uuid {
        let now = u64::try_from((self.clock)()).unwrap_or(0);
        self.last = match self.last {
            (at, count) if at >= now => (at, count + 1),
            _ => (now, 0),
        };
        let (at, count) = self.last;
        let [.., a, b, c, d, e, f, g, h] = self.sixteen();
        // The count fills the twelve bits after the time, which sort next.
        let [high, low] = count.to_be_bytes();
        uuid::Builder::from_unix_timestamp_millis(at, &[high, low, a, b, c, d, e, f, g, h]).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> (i64, Uuid, Vec<Uuid>, u64) {
        let ids = (0..4000).map(|_| uuid_v7()).collect();
        (wall_clock(), uuid_v4(), ids, fraction().to_bits())
    }

    #[test]
    fn one_seed_gives_the_same_twice_and_another_seed_does_not() {
        let run = |seed| {
            let _simulated = simulate(|| 1_795_300_000_000, seed);
            some()
        };
        assert_eq!(run(7), run(7));
        let (of_7, of_8) = (run(7), run(8));
        assert_eq!(of_7.0, of_8.0);
        assert_ne!(of_7.1, of_8.1);
        assert_ne!(of_7.3, of_8.3);
        assert!(
            of_7.2.is_sorted(),
            "ids of one millisecond sort as they were made"
        );
    }

    #[test]
    fn without_a_simulation_all_is_the_operating_systems() {
        drop(simulate(|| 5, 1));
        assert!(wall_clock() > 1_700_000_000_000);
        assert_ne!(uuid_v4(), uuid_v4());
        let (one, two) = (uuid_v7(), uuid_v7());
        assert!(one < two);
        let many: Vec<_> = (0..100).map(|_| fraction()).collect();
        assert!(many.iter().all(|one| (0.0..1.0).contains(one)));
        assert!(many.iter().any(|one| *one < 0.5) && many.iter().any(|one| *one >= 0.5));
    }
}
