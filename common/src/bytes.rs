//! Amounts of data: exact in bytes, short for people, and read as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An amount of data, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Units of 1024, the larger first.
const UNITS: [(&str, u64); 5] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// What a suffix means, lower case. A lone letter is a unit of 1024, as for `truncate` and `btrfs`.
const SUFFIXES: [(&str, u64); 17] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
    ("p", 1 << 50),
    ("pib", 1 << 50),
    ("pb", 1_000_000_000_000_000),
];

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// For sentences in which every byte counts: `1610612736 bytes (1.50 GiB)`.
    pub fn exact(self) -> String {
        match self.0 {
            0..1024 => self.to_string(),
            bytes => format!("{bytes} bytes ({self})"),
        }
    }

    /// The sum, at most the largest amount.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Self::plus)
    }
}

/// Short: `1.50 GiB`, `512 bytes`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, unit) in UNITS {
            if self.0 >= unit {
                // In hundredths, rounded down, so that 1023.999 MiB does not read as 1024.00.
                let hundredths = u128::from(self.0) * 100 / u128::from(unit);
                return write!(f, "{}.{:02} {name}", hundredths / 100, hundredths % 100);
            }
        }
        match self.0 {
            1 => f.write_str("1 byte"),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

/// A text that is no amount of data.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidBytes {
    /// Not a number with a unit.
    #[error("{text:?} is not a size; write it as 10GiB, 1.5TB or 1048576")]
    IllFormed {
        /// The text, shortened.
        text: String,
    },
    /// Nothing that exists is so large.
    #[error("{text:?} is more than 16 EiB")]
    TooLarge {
        /// The text, shortened.
        text: String,
    },
}

/// As people write it: `10GiB`, `1.5TB`, `500 M`, `1048576`. Rounded down to whole bytes.
impl FromStr for Bytes {
    type Err = InvalidBytes;

    fn from_str(text: &str) -> Result<Self, InvalidBytes> {
        let shown = || text.chars().take(40).collect::<String>();
        let ill_formed = || InvalidBytes::IllFormed { text: shown() };
        let too_large = || InvalidBytes::TooLarge { text: shown() };
        let trimmed = text.trim();
        let end = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, suffix) = trimmed.split_at(end);
        let suffix = suffix.trim_start().to_ascii_lowercase();
        let unit = SUFFIXES.iter().find(|(known, _)| *known == suffix);
        let (_, unit) = unit.ok_or_else(ill_formed)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        // More digits than a byte of the largest unit needs say nothing.
        if whole.is_empty() || fraction.is_empty() || fraction.len() > 18 || fraction.contains('.') {
            return Err(ill_formed());
        }
        let whole: u128 = whole.parse().map_err(|_| too_large())?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
        let fraction: u128 = fraction.parse().map_err(|_| ill_formed())?;
        let unit = u128::from(*unit);
        let bytes = whole
            .checked_mul(unit)
            .and_then(|whole| whole.checked_add(fraction * unit / scale))
            .ok_or_else(too_large)?;
        u64::try_from(bytes).map(Self).map_err(|_| too_large())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("1.5TB", 1_500_000_000_000),
            ("2g", 2 << 30),
            ("0.5k", 512),
            (" 7b ", 7),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in [
            "", "-1", "GiB", "1..5G", "1.G", ".5G", "10XB", "1e9", "ten", "1 0", "１GiB",
        ] {
            let error = text.parse::<Bytes>().unwrap_err();
            assert!(error.to_string().contains("10GiB"), "{text}: {error}");
        }
        for text in ["18446744073709551616", "16777216PiB", &"9".repeat(50)] {
            let error = text.parse::<Bytes>().unwrap_err();
            assert!(matches!(error, InvalidBytes::TooLarge { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn short_sizes_never_claim_more_than_there_is() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.00 KiB"),
            ((1 << 30) - 1, "1023.99 MiB"),
            (3 << 29, "1.50 GiB"),
            (u64::MAX, "16383.99 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(Bytes(3 << 29).exact(), "1610612736 bytes (1.50 GiB)");
    }
}
