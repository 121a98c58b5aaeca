//! The places at a port: who holds one, how far it is, and who gives way when it is crowded.
//!
//! It knows no TLS and no tokens. The invariants: there are never more places than its [`Room`] has, and no more of one
//! address; a call that is served gives way to nobody; and while one address holds more than another, it is the one that gives way.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How many places a port has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// In all.
    pub(crate) at_most: usize,
    /// Of one address.
    pub(crate) per_address: usize,
    /// How long somebody who has not said hello is not in the way of others of its address.
    pub(crate) silent_for: Duration,
    /// How long a handshake takes at most where it goes on. Who takes longer gives way.
    pub(crate) shakes_for: Duration,
}

/// How long an answer takes to be asked for after the handshake. Who takes longer gives way.
const IDLES_FOR: Duration = Duration::from_secs(2);

/// How soon who waits looks again whether somebody has begun to linger.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
    fn lingers(&self, room: Room, now: Instant) -> bool {
        let lasted = now.saturating_duration_since(self.since);
        match self.stage {
            Stage::Silent => lasted >= room.silent_for,
            Stage::Shaking => lasted > room.shakes_for,
            Stage::Idle => lasted > IDLES_FOR,
            Stage::Calling => false,
        }
    }
}

/// Those that are held, by the order in which they were taken.
#[derive(Debug)]
struct Table {
    room: Room,
    next: u64,
    counts: HashMap<IpAddr, usize>,
    held: BTreeMap<u64, Held>,
}

impl Table {
    /// Whether there is room for one more of `of`, which another may have made.
    fn makes_room(&mut self, of: IpAddr, now: Instant) -> bool {
        let room = self.room;
        if self.held.len() < room.at_most.min(room.per_address) {
            return true;
        }
        let own = self.count(of);
        if own >= room.per_address {
            return self.ends(|held, _| held.of == of && held.lingers(room, now));
        }
        if self.held.len() < room.at_most {
            return true;
        }
        let most = self.counts.values().copied().max().unwrap_or_default();
        self.ends(|held, count| {
            // Nobody can say that an address which holds so much more than the newcomer's is treated badly.
            let has_too_many = count > own + 1;
            match held.lingers(room, now) {
                true => count == most || has_too_many && held.stage == Stage::Silent,
                false => count == most && has_too_many && held.stage < Stage::Calling,
            }
        })
    }

    fn count(&self, of: IpAddr) -> usize {
        self.counts.get(&of).copied().unwrap_or_default()
    }

    fn add(&mut self, held: Held) -> u64 {
        let number = self.next;
        self.next += 1;
        *self.counts.entry(held.of).or_default() += 1;
        self.held.insert(number, held);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        if let Entry::Occupied(mut count) = self.counts.entry(held.of) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(held)
    }

    /// Ends the one that is least far, the oldest of them.
    fn ends(&mut self, may: impl Fn(&Held, usize) -> bool) -> bool {
        let candidates = self
            .held
            .iter()
            .filter(|(_, held)| may(held, self.count(held.of)));
        let victim = candidates.min_by_key(|(number, held)| (held.stage, **number));
        let Some(number) = victim.map(|(number, _)| *number) else {
            return false;
        };
        if let Some(held) = self.remove(number) {
            held.out.cancel();
        }
        true
    }
}

/// The places. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    table: Arc<Mutex<Table>>,
    freed: Arc<Notify>,
}

impl Places {
    /// All of `room`, with nobody there.
    pub(crate) fn new(room: Room) -> Self {
        let table = Table {
            room,
            next: 0,
            counts: HashMap::new(),
            held: BTreeMap::new(),
        };
        Self {
            table: Arc::new(Mutex::new(table)),
            freed: Arc::default(),
        }
    }

    /// Waits for a place for one of `of`.
    pub(crate) async fn wait(&self, of: IpAddr) -> Place {
        loop {
            if let Some(place) = self.take(of) {
                return place;
            }
            // Cancel-safe: who is woken and goes wakes nobody else, and the clock wakes everybody.
            tokio::select! {
                () = self.freed.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one of `of`. None when nobody gives way.
    pub(crate) fn take(&self, of: IpAddr) -> Option<Place> {
        self.take_at(of, Instant::now())
    }

    fn take_at(&self, of: IpAddr, now: Instant) -> Option<Place> {
        let mut table = self.lock();
        if !table.makes_room(of, now) {
            return None;
        }
        let out = CancellationToken::new();
        let number = table.add(Held {
            of,
            stage: Stage::Silent,
            since: now,
            out: out.clone(),
        });
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
pub(crate) struct Place {
    seat: Seat,
    out: CancellationToken,
}

impl Place {
    /// It has said hello.
    pub(crate) fn shakes(&self) {
        self.seat.is(Stage::Shaking);
    }

    /// Its handshake is done.
    pub(crate) fn idles(&self) {
        self.seat.is(Stage::Idle);
    }

    /// For whoever serves its calls.
    pub(crate) fn seat(&self) -> Seat {
        self.seat.clone()
    }

    /// Done when it has to give way.
    pub(crate) fn gives_way(&self) -> WaitForCancellationFutureOwned {
        self.out.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seat.places.lock().remove(self.seat.number);
        self.seat.places.freed.notify_one();
    }
}

/// Names a place that somebody else holds.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
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
    pub(crate) fn calls(&self) -> Call<'_> {
        self.is(Stage::Calling);
        Call(self)
    }
}

/// A call that is served.
#[derive(Debug)]
pub(crate) struct Call<'a>(&'a Seat);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.is(Stage::Idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        at_most: 256,
        per_address: 32,
        silent_for: Duration::ZERO,
        shakes_for: Duration::from_secs(1),
    };

    fn of(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_out(place: &Place) -> bool {
        place.out.is_cancelled()
    }

    #[test]
    fn the_oldest_silent_one_of_an_address_gives_way_to_its_next_and_no_other_address_does() {
        let places = Places::new(ROOM);
        let other = places.take(of(2)).unwrap();
        let mine: Vec<_> = (0..ROOM.per_address + 3)
            .map(|_| places.take(of(1)).unwrap())
            .collect();
        let out: Vec<_> = mine.iter().map(is_out).collect();
        assert_eq!(out.iter().filter(|out| **out).count(), 3);
        assert!(out[..3].iter().all(|out| *out), "the oldest");
        assert!(!is_out(&other));
        assert_eq!(places.lock().held.len(), ROOM.per_address + 1);
    }

    #[test]
    fn who_is_at_work_stays_for_a_while_and_who_is_served_for_good() {
        let places = Places::new(ROOM);
        let mine: Vec<_> = (0..ROOM.per_address)
            .map(|_| places.take(of(1)).unwrap())
            .collect();
        mine.iter().for_each(Place::shakes);
        assert!(
            places.take(of(1)).is_none(),
            "a burst of hosts breaks off none of its own"
        );
        mine[0].idles();
        let later = Instant::now() + IDLES_FOR + ROOM.shakes_for;
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
        let places = Places::new(ROOM);
        let crowd: Vec<_> = (0..1000_u16)
            .filter_map(|at| places.take(of(1 + u8::try_from(at % 50).unwrap())))
            .inspect(Place::shakes)
            .collect();
        assert_eq!(places.lock().held.len(), ROOM.at_most);
        let newcomer = places.take(of(200)).unwrap();
        let again: Vec<_> = (0..1000_u16)
            .filter_map(|at| places.take(of(1 + u8::try_from(at % 50).unwrap())))
            .collect();
        assert!(!is_out(&newcomer));
        assert!(places.lock().held.len() <= ROOM.at_most);
        drop((crowd, again, newcomer));
        assert!(
            places.lock().held.is_empty(),
            "nothing is remembered of who has gone"
        );
    }

    #[test]
    fn who_has_just_come_is_given_time_for_its_hello_among_its_own() {
        let room = Room {
            at_most: 4,
            per_address: 4,
            silent_for: Duration::from_secs(1),
            shakes_for: Duration::from_secs(4),
        };
        let places = Places::new(room);
        let now = Instant::now();
        let storm: Vec<_> = (0..4).map(|_| places.take_at(of(1), now).unwrap()).collect();
        assert!(places.take_at(of(1), now).is_none(), "the next of a storm waits");
        let _other = places.take_at(of(2), now).unwrap();
        assert!(is_out(&storm[0]), "a crowd gives way to another address at once");
        let _next = places.take_at(of(1), now + room.silent_for).unwrap();
        assert!(is_out(&storm[1]));
    }
}
