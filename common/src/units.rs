//! Quantities with their units, and the wall clock as it is stored and sent.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A wall-clock time, in milliseconds since the Unix epoch. For people and for records; what must not be
/// moved by a step of the clock uses [`std::time::Instant`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Now.
    pub fn now() -> Self {
        Self(crate::origin::wall_clock())
    }

    /// Later by `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long this lies before `later`; zero when it does not.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

impl From<UnixMillis> for prost_types::Timestamp {
    fn from(at: UnixMillis) -> Self {
        let nanos = i32::try_from(at.0.rem_euclid(1000) * 1_000_000).unwrap_or(0);
        Self {
            seconds: at.0.div_euclid(1000),
            nanos,
        }
    }
}

impl From<prost_types::Timestamp> for UnixMillis {
    fn from(at: prost_types::Timestamp) -> Self {
        Self(
            at.seconds
                .saturating_mul(1000)
                .saturating_add(i64::from(at.nanos / 1_000_000)),
        )
    }
}

/// RFC 3339 in UTC, to the second.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000))
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms since 1970", self.0),
        }
    }
}

/// For configuration: durations as people write them, `30s`, `2m`, `0s` (`#[serde(with = "…")]`).
pub mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    /// Reads one.
    ///
    /// # Errors
    /// When the text is not a duration; the message shows how one looks.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|source| D::Error::custom(format!("{text:?} is not a duration, as 30s or 2m: {source}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_wire_and_reads_as_utc() {
        let at = UnixMillis(1_795_300_000_123);
        assert_eq!(UnixMillis::from(prost_types::Timestamp::from(at)), at);
        assert_eq!(at.to_string(), "2026-11-21T22:26:40Z");
        assert_eq!(UnixMillis(-1).to_string(), "1969-12-31T23:59:59Z");
    }
}
