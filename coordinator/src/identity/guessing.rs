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

    /// Whether there is one. It stays.
    ///
    /// # Errors
    /// When there is none, with the time until there is.
    pub fn look(&self, key: &K) -> Result<(), TooOften> {
        let now = Instant::now();
        let full_at = self.lock().get(key).copied();
        self.after(full_at.unwrap_or(now), now).map(drop)
    }

    /// Takes one, there or not: who was let in with others, when there was room, and was wrong. What is owed so is at most a burst.
    pub fn charge(&self, key: &K) {
        self.charge_at(key, Instant::now());
    }

    fn charge_at(&self, key: &K, now: Instant) {
        let mut table = self.lock();
        self.make_room(&mut table, key, now);
        let full_at = table.entry(key.clone()).or_insert(now);
        let most = now + self.pace.every * self.pace.burst * 2;
        *full_at = ((*full_at).max(now) + self.pace.every).min(most);
    }

    /// When it would be full again with one less.
    fn after(&self, full_at: Instant, now: Instant) -> Result<Instant, TooOften> {
        let after = full_at.max(now) + self.pace.every;
        let wait = after.saturating_duration_since(now + self.pace.every * self.pace.burst);
        match wait.is_zero() {
            true => Ok(after),
            false => Err(TooOften { wait }),
        }
    }

    fn make_room(&self, table: &mut HashMap<K, Instant>, key: &K, now: Instant) {
        if !table.contains_key(key) && table.len() >= self.at_most {
            table.retain(|_, full_at| *full_at > now);
            if table.len() >= self.at_most
                && let Some(quietest) = table.iter().min_by_key(|(_, full_at)| **full_at)
            {
                let quietest = quietest.0.clone();
                table.remove(&quietest);
            }
        }
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
        self.make_room(&mut table, key, now);
        let full_at = table.entry(key.clone()).or_insert(now);
        *full_at = self.after(*full_at, now)?;
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

/// What an attempt costs once it is over, also when who made it hung up before.
#[derive(Debug)]
pub struct Charge<'a, K: Eq + Hash + Clone> {
    buckets: &'a Buckets<K>,
    key: &'a K,
    /// It was wrong, or nobody knows.
    pub is_due: bool,
}

impl<'a, K: Eq + Hash + Clone> Charge<'a, K> {
    /// Due to `key` until the outcome says otherwise.
    pub fn due(buckets: &'a Buckets<K>, key: &'a K) -> Self {
        let is_due = true;
        Self { buckets, key, is_due }
    }
}

impl<K: Eq + Hash + Clone> Drop for Charge<'_, K> {
    fn drop(&mut self) {
        if self.is_due {
            self.buckets.charge(self.key);
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
    fn who_is_charged_beyond_the_burst_waits_longer_and_not_for_ever() {
        let buckets = Buckets::new(PACE, 10);
        let now = Instant::now();
        let wait_after = |charges| {
            (0..charges).for_each(|_| buckets.charge_at(&1, now));
            buckets.take_at(&1, now).map_err(|often| often.wait.as_secs())
        };
        assert_eq!(wait_after(2), Ok(()));
        assert_eq!(wait_after(1), Err(20));
        assert_eq!(wait_after(1000), Err(40));
        assert_eq!(buckets.take_at(&2, now), Ok(()), "others are not concerned");
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
