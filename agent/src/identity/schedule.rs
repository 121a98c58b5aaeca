//! When a certificate is renewed, how long a refusal is waited out, and when a person is told. Pure.
//!
//! All of it is judged by the wall clock, as certificates are, and from nothing that a restart forgets. The invariant: what a
//! certificate's moment of renewal is depends on that certificate alone, so that a fleet which restarts at one time does
//! not renew at one time.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use hostler_common::retry::Waits;
use hostler_common::units::UnixMillis;

use super::files::Own;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Where in its life a certificate is renewed: around two thirds, and before a person is told. A fleet that is enrolled within
/// minutes renews over half of a life then, at twice the rate of one that is spread over all of it. A tenth of a life either way
/// would make it five times.
const EARLIEST: f64 = 0.39;
const LATEST: f64 = 0.89;
/// The share of the life that is left when a person is told.
const TOLD_AT: f64 = 0.1;

/// Within how long a certificate is renewed whose CA signs no more, and the share of its life that this is at most: a rotation of
/// the CA is no storm, and no matter of months.
const CHANGE_WITHIN: Duration = Duration::from_secs(3600);
const CHANGE_SHARE: f64 = 0.1;

/// The first wait after a renewal that was not answered, and the longest: as shares of the life.
const FIRST_WAIT: f64 = 1.0 / 1000.0;
const LONGEST_WAIT: f64 = 1.0 / 50.0;

/// The life of one certificate on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// When it is to be renewed.
    pub renew_at: UnixMillis,
    /// From when on a person is told that it was not.
    pub tell_at: UnixMillis,
    /// Its last moment.
    pub end: UnixMillis,
    /// How long it is of use here.
    life: Duration,
}

impl Schedule {
    /// Of the certificate `own`, as it looks at `now`.
    ///
    /// A certificate begins some minutes before it was signed, which is more than the whole life of a short one. So
    /// its life counts from when its file was written, unless the file's time makes no sense.
    pub fn of(own: &Own, now: UnixMillis) -> Self {
        let is_sane = |written: &UnixMillis| (own.not_before..=now.min(own.not_after)).contains(written);
        let begin = own.written.filter(is_sane).unwrap_or(own.not_before);
        let life = begin.until(own.not_after);
        let place = EARLIEST + (LATEST - EARLIEST) * draw(own);
        Self {
            renew_at: begin.plus(life.mul_f64(place)),
            tell_at: begin.plus(life.mul_f64(1.0 - TOLD_AT)),
            end: own.not_after,
            life,
        }
    }

    /// The same, when `own` is of a CA that signs no more, as this host has known since `heard`. A certificate that came since is
    /// what is signed now, whatever its CA is called: asking again would bring the same.
    #[must_use]
    pub fn of_old_root(self, own: &Own, heard: UnixMillis) -> Self {
        if !own.came_before(heard) {
            return self;
        }
        let within = self.life.mul_f64(CHANGE_SHARE).min(CHANGE_WITHIN);
        let renew_at = self.renew_at.min(heard.plus(within.mul_f64(draw(own))));
        Self { renew_at, ..self }
    }

    /// The waits between tries: from a minute to six hours, of a short life less.
    pub fn waits(&self) -> Waits {
        let share = |share: f64, least: Duration| self.life.mul_f64(share).max(least);
        let first = share(FIRST_WAIT, Duration::from_millis(500)).min(Duration::from_secs(60));
        let longest = share(LONGEST_WAIT, Duration::from_secs(1)).min(Duration::from_secs(6 * 3600));
        Waits::new(first, longest.max(first))
    }

    /// Between two words to a person: an hour, of a short life a tenth of what is left of it then.
    pub fn between_words(&self) -> Duration {
        self.life
            .mul_f64(TOLD_AT / 10.0)
            .clamp(Duration::from_secs(1), Duration::from_secs(3600))
    }
}

/// From 0 to 1, by chance, and always the same for one certificate.
fn draw(own: &Own) -> f64 {
    let mut hasher = DefaultHasher::new();
    own.identity.to_string().hash(&mut hasher);
    (own.not_before.0, own.not_after.0, own.written.map(|at| at.0)).hash(&mut hasher);
    // 32 bits of it are enough, and exact.
    let bits = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(host: &str, not_before: i64, not_after: i64, written: Option<i64>) -> Own {
        Own {
            identity: format!("spiffe://fleet.test/agent/{host}").parse().unwrap(),
            not_before: UnixMillis(not_before),
            not_after: UnixMillis(not_after),
            root: None,
            written: written.map(UnixMillis),
        }
    }

    const LIFE: i64 = 90 * 86_400_000;

    #[test]
    fn a_certificate_is_renewed_around_two_thirds_of_its_life_and_hosts_differ() {
        let at = |host: usize| {
            let own = own(&format!("h{host}"), -300_000, LIFE, Some(0));
            Schedule::of(&own, UnixMillis(0)).renew_at.0
        };
        let all: Vec<_> = (0..1000).map(at).collect();
        let share = |at: i64| at as f64 / LIFE as f64;
        assert!(
            all.iter().all(|at| (0.389..0.891).contains(&share(*at))),
            "{all:?}"
        );
        let tenths = |from: f64| {
            all.iter()
                .filter(|at| (from..from + 0.05).contains(&share(**at)))
                .count()
        };
        for tenth in 0..10 {
            let count = tenths(EARLIEST + 0.05 * f64::from(tenth));
            assert!(
                (60..140).contains(&count),
                "{count} of 1000 renew in tenth {tenth}"
            );
        }
    }

    #[test]
    fn a_restart_changes_nothing_and_a_new_certificate_draws_anew() {
        let first = own("h1", 0, LIFE, Some(1000));
        let at = |now: i64| Schedule::of(&first, UnixMillis(now)).renew_at;
        assert_eq!(at(2000), at(LIFE / 2));
        let renewed = own("h1", 0, LIFE, Some(2000));
        let apart = at(2000).0 - Schedule::of(&renewed, UnixMillis(2000)).renew_at.0;
        assert!(apart.abs() > 1000, "both were drawn {apart} ms apart");
    }

    #[test]
    fn a_certificate_whose_ca_signs_no_more_is_renewed_within_an_hour_and_hosts_differ() {
        let at = |host: usize, heard: i64| {
            let own = own(&format!("h{host}"), 0, LIFE, Some(0));
            let schedule = Schedule::of(&own, UnixMillis(heard));
            let (before, after) = (schedule, schedule.of_old_root(&own, UnixMillis(heard)));
            assert!(after.renew_at <= before.renew_at);
            after.renew_at.0 - heard
        };
        let waits: Vec<_> = (0..1000).map(|host| at(host, 1_000_000)).collect();
        assert!(
            waits.iter().all(|wait| (0..3_600_000).contains(wait)),
            "{waits:?}"
        );
        let early = waits.iter().filter(|wait| **wait < 1_800_000).count();
        assert!(
            (400..600).contains(&early),
            "{early} of 1000 in the first half hour"
        );
        // What is due by itself is not put off.
        assert!(at(1, LIFE) <= 0);
    }

    #[test]
    fn a_certificate_that_came_since_is_not_asked_for_again_and_again() {
        let renewed = own("h1", 1_500, LIFE, Some(2_000));
        let schedule = Schedule::of(&renewed, UnixMillis(3_000));
        assert_eq!(schedule.of_old_root(&renewed, UnixMillis(1_000)), schedule);
        assert_ne!(schedule.of_old_root(&renewed, UnixMillis(2_001)), schedule);
    }

    #[test]
    fn a_life_of_seconds_counts_from_when_it_was_written() {
        let own = own("h1", -300_000, 6_000, Some(0));
        let schedule = Schedule::of(&own, UnixMillis(10));
        assert!(
            (2_330..5_350).contains(&schedule.renew_at.0),
            "{:?}",
            schedule.renew_at
        );
        assert_eq!(schedule.tell_at, UnixMillis(5_400));
    }

    #[test]
    fn a_file_of_the_future_or_of_before_the_certificate_counts_for_nothing() {
        let of = |written| Schedule::of(&own("h1", 0, LIFE, written), UnixMillis(1000)).life;
        assert_eq!(of(None), Duration::from_millis(LIFE.unsigned_abs()));
        assert_eq!(of(Some(2000)), of(None));
        assert_eq!(of(Some(-1)), of(None));
        assert!(of(Some(500)) < of(None));
    }

    proptest! {
        #[test]
        fn whatever_the_times_a_renewal_comes_before_a_person_is_told_and_that_before_the_end(
            not_before in -4_000_000_000_000_i64..4_000_000_000_000,
            life in 0_i64..4_000_000_000_000,
            written in proptest::option::of(any::<i64>()),
            now in any::<i64>(),
        ) {
            let own = own("h1", not_before, not_before + life, written);
            let schedule = Schedule::of(&own, UnixMillis(now));
            prop_assert!(schedule.renew_at <= schedule.tell_at);
            prop_assert!(schedule.tell_at <= schedule.end);
            prop_assert!(schedule.renew_at >= own.not_before);
            prop_assert!(schedule.waits().next_wait() < Duration::from_secs(120));
        }
    }
}
