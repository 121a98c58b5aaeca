//! How often somebody may be wrong: buckets that fill with time, by whom they are for.
//!
//! It knows no tokens and logs nothing. The invariants: however many keys there are, the table stays bounded; and what is
//! forgotten to keep it so is what has been quiet for longest.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many at once, and how many with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// So many after a long rest.
    pub burst: u32,
    /// And then one each.
    pub every: Duration,
}

/// It was too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften {
    /// When there is room again.
    pub wait: Duration,
}

/// A bucket a key.
#[derive(Debug)]
pub struct Buckets<K> {
    pace: Pace,
    at_most: usize,
    /// When each would be full again, having been full before the table began.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// Buckets that begin full, at most `at_most` of them.
    pub fn new(pace: Pace, at_most: usize) -> Self {
        Self {
            pace,
            at_most,
            full_at: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one.
    ///
    /// # Errors
    /// When there is none, with the time until there is.
    pub fn take(&self, key: &K) -> Result<(), TooOften> {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: &K, now: Instant) -> Result<(), TooOften> {
        let mut table = self.lock();
        if !table.contains_key(key) && table.len() >= self.at_most {
            table.retain(|_, full_at| *full_at > now);
            if table.len() >= self.at_most
                && let Some(quietest) = table.iter().min_by_key(|(_, full_at)| **full_at)
            {
                let quietest = quietest.0.clone();
                table.remove(&quietest);
            }
        }
        let full_at = table.entry(key.clone()).or_insert(now);
        let after = (*full_at).max(now) + self.pace.every;
        let wait = after.saturating_duration_since(now + self.pace.every * self.pace.burst);
        if !wait.is_zero() {
            return Err(TooOften { wait });
        }
        *full_at = after;
        Ok(())
    }

    /// Puts one back: it was right after all.
    pub fn put_back(&self, key: &K) {
        if let Some(full_at) = self.lock().get_mut(key)
            && let Some(earlier) = full_at.checked_sub(self.pace.every)
        {
            *full_at = earlier;
        }
    }
}

/// Where an address comes from, as far as one can be had for nothing: in IPv6 whoever has one address has 2^64.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        burst: 3,
        every: Duration::from_secs(10),
    };

    #[test]
    fn after_a_burst_there_is_one_each_period_and_a_right_one_costs_nothing() {
        let buckets = Buckets::new(PACE, 10);
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(buckets.take_at(&1, now), Ok(()));
            buckets.put_back(&1);
        }
        let taken = (0..1000).filter(|_| buckets.take_at(&1, now).is_ok()).count();
        assert_eq!(taken, 3);
        let wait = Duration::from_secs(10);
        assert_eq!(buckets.take_at(&1, now), Err(TooOften { wait }));
        assert_eq!(buckets.take_at(&2, now), Ok(()), "others are not concerned");
        let taken = (0..1000)
            .filter(|_| buckets.take_at(&1, now + Duration::from_secs(25)).is_ok())
            .count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn the_table_stays_bounded_and_keeps_who_was_wrong_most() {
        let buckets = Buckets::new(PACE, 10);
        let now = Instant::now();
        while buckets.take_at(&0, now).is_ok() {}
        for key in 1..1000 {
            assert_eq!(buckets.take_at(&key, now), Ok(()));
        }
        assert_eq!(buckets.lock().len(), 10);
        assert!(buckets.take_at(&0, now).is_err(), "it is not forgotten");
    }

    #[test]
    fn who_has_one_ipv6_address_is_its_whole_network() {
        let of = |text: &str| neighbourhood(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
