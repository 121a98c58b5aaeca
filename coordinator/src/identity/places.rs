//! The places at the port for enrolment: who holds one, how far it is, and who gives way when it is crowded.
//!
//! It knows no TLS and no tokens. The invariants: there are never more places than [`AT_MOST`], and [`PER_ADDRESS`] of one
//! address; a call that is served gives way to nobody; and while one address holds more than another, it is the one that gives way.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections at once, at some 60 KiB each.
const AT_MOST: usize = 256;

/// Connections at once of one address: a rollout behind one router, ten hosts at a time, with room.
const PER_ADDRESS: usize = 32;

/// A handshake takes that long at most on a line that is good, and an answer after it. Who takes longer gives way.
const SHAKES_FOR: Duration = Duration::from_secs(1);
const IDLES_FOR: Duration = Duration::from_secs(2);

/// How far a connection is. Who is less far gives way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has not said who it is: no whole ClientHello yet, which comes with the first packet of whoever means it.
    Silent,
    /// Its handshake goes on.
    Shaking,
    /// It asks for nothing.
    Idle,
    /// Its call is served.
    Calling,
}

#[derive(Debug)]
struct Held {
    of: IpAddr,
    stage: Stage,
    since: Instant,
    out: CancellationToken,
}

impl Held {
    /// Whether it is in the way of others, its address apart.
    fn lingers(&self, now: Instant) -> bool {
        let lasted = now.saturating_duration_since(self.since);
        match self.stage {
            Stage::Silent => true,
            Stage::Shaking => lasted > SHAKES_FOR,
            Stage::Idle => lasted > IDLES_FOR,
            Stage::Calling => false,
        }
    }
}

/// Those that are held, by the order in which they were taken.
#[derive(Debug, Default)]
struct Table {
    next: u64,
    held: BTreeMap<u64, Held>,
}

impl Table {
    /// Whether there is room for one more of `of`, which another may have made.
    fn makes_room(&mut self, of: IpAddr, now: Instant) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for held in self.held.values() {
            *counts.entry(held.of).or_default() += 1;
        }
        let own = counts.get(&of).copied().unwrap_or_default();
        if own >= PER_ADDRESS {
            return self.ends(|held| held.of == of && held.lingers(now));
        }
        if self.held.len() < AT_MOST {
            return true;
        }
        let most = counts.values().copied().max().unwrap_or_default();
        // Nobody can say that an address which holds so much more than the newcomer's is treated badly.
        let has_too_many = most > own + 1;
        self.ends(|held| {
            counts.get(&held.of) == Some(&most)
                && (held.lingers(now) || has_too_many && held.stage < Stage::Calling)
        })
    }

    /// Ends the one that is least far, the oldest of them.
    fn ends(&mut self, may: impl Fn(&Held) -> bool) -> bool {
        let candidates = self.held.iter().filter(|(_, held)| may(held));
        let victim = candidates.min_by_key(|(number, held)| (held.stage, **number));
        let Some(number) = victim.map(|(number, _)| *number) else {
            return false;
        };
        if let Some(held) = self.held.remove(&number) {
            held.out.cancel();
        }
        true
    }
}

/// The places. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<Table>>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one of `of`. None when nobody gives way.
    pub(super) fn take(&self, of: IpAddr) -> Option<Place> {
        self.take_at(of, Instant::now())
    }

    fn take_at(&self, of: IpAddr, now: Instant) -> Option<Place> {
        let mut table = self.lock();
        if !table.makes_room(of, now) {
            return None;
        }
        let (number, out) = (table.next, CancellationToken::new());
        table.next += 1;
        let held = Held {
            of,
            stage: Stage::Silent,
            since: now,
            out: out.clone(),
        };
        table.held.insert(number, held);
        drop(table);
        Some(Place {
            seat: Seat {
                places: self.clone(),
                number,
            },
            out,
        })
    }
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    seat: Seat,
    out: CancellationToken,
}

impl Place {
    /// It has said hello.
    pub(super) fn shakes(&self) {
        self.seat.is(Stage::Shaking);
    }

    /// Its handshake is done.
    pub(super) fn idles(&self) {
        self.seat.is(Stage::Idle);
    }

    /// For whoever serves its calls.
    pub(super) fn seat(&self) -> Seat {
        self.seat.clone()
    }

    /// Done when it has to give way.
    pub(super) fn gives_way(&self) -> WaitForCancellationFutureOwned {
        self.out.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seat.places.lock().held.remove(&self.seat.number);
    }
}

/// Names a place that somebody else holds.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    places: Places,
    number: u64,
}

impl Seat {
    fn is(&self, stage: Stage) {
        if let Some(held) = self.places.lock().held.get_mut(&self.number) {
            (held.stage, held.since) = (stage, Instant::now());
        }
    }

    /// A call is served until this is dropped.
    pub(super) fn calls(&self) -> Call<'_> {
        self.is(Stage::Calling);
        Call(self)
    }
}

/// A call that is served.
#[derive(Debug)]
pub(super) struct Call<'a>(&'a Seat);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.is(Stage::Idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_out(place: &Place) -> bool {
        place.out.is_cancelled()
    }

    #[test]
    fn the_oldest_silent_one_of_an_address_gives_way_to_its_next_and_no_other_address_does() {
        let places = Places::default();
        let other = places.take(of(2)).unwrap();
        let mine: Vec<_> = (0..PER_ADDRESS + 3)
            .map(|_| places.take(of(1)).unwrap())
            .collect();
        let out: Vec<_> = mine.iter().map(is_out).collect();
        assert_eq!(out.iter().filter(|out| **out).count(), 3);
        assert!(out[..3].iter().all(|out| *out), "the oldest");
        assert!(!is_out(&other));
        assert_eq!(places.lock().held.len(), PER_ADDRESS + 1);
    }

    #[test]
    fn who_is_at_work_stays_for_a_while_and_who_is_served_for_good() {
        let places = Places::default();
        let mine: Vec<_> = (0..PER_ADDRESS).map(|_| places.take(of(1)).unwrap()).collect();
        mine.iter().for_each(Place::shakes);
        assert!(
            places.take(of(1)).is_none(),
            "a burst of hosts breaks off none of its own"
        );
        mine[0].idles();
        let later = Instant::now() + IDLES_FOR + SHAKES_FOR;
        let seat = mine[1].seat();
        let _served = seat.calls();
        let _next = places.take_at(of(1), later).unwrap();
        assert!(is_out(&mine[2]) && !is_out(&mine[0]) && !is_out(&mine[1]));
        mine.iter().for_each(|place| place.seat.is(Stage::Calling));
        assert!(
            places
                .take_at(of(1), later + later.elapsed() + IDLES_FOR)
                .is_some(),
            "the last one lingers"
        );
    }

    #[test]
    fn a_newcomer_gets_in_whatever_others_hold_and_is_not_the_next_to_go() {
        let places = Places::default();
        let crowd: Vec<_> = (0..1000_u16)
            .filter_map(|at| places.take(of(1 + u8::try_from(at % 50).unwrap())))
            .inspect(Place::shakes)
            .collect();
        assert_eq!(places.lock().held.len(), AT_MOST);
        let newcomer = places.take(of(200)).unwrap();
        let again: Vec<_> = (0..1000_u16)
            .filter_map(|at| places.take(of(1 + u8::try_from(at % 50).unwrap())))
            .collect();
        assert!(!is_out(&newcomer));
        assert!(places.lock().held.len() <= AT_MOST);
        drop((crowd, again, newcomer));
        assert!(
            places.lock().held.is_empty(),
            "nothing is remembered of who has gone"
        );
    }
}
