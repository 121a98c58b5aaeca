//! How far long work is, in one line.

use std::fmt::Write as _;

use crate::bytes::Bytes;
use crate::rpc::hostler::agent::v1::Measure;

/// As `relocate /dev/sdb: 1.25 GiB of 4.00 GiB (31 %), 120.00 MiB/s, 23 s left`.
pub fn text(measure: &Measure) -> String {
    let mut text = format!("{}: ", measure.what);
    let (done, total) = (Bytes(measure.done_bytes), Bytes(measure.total_bytes));
    let mut parts = vec![match total {
        Bytes::ZERO => done.to_string(),
        total => format!("{done} of {total} ({} %)", percent(measure)),
    }];
    match (measure.done_files, measure.total_files) {
        (0, 0) => {}
        (done, 0) => parts.push(format!("{done} files")),
        (done, total) => parts.push(format!("{done} of {total} files")),
    }
    if measure.bytes_per_second > 0 {
        parts.push(format!("{}/s", Bytes(measure.bytes_per_second)));
    }
    if let Some(seconds) = measure.seconds_left {
        parts.push(format!("{} left", span(seconds)));
    }
    // Writing to a String does not fail.
    let _ = write!(text, "{}", parts.join(", "));
    text
}

/// The share that is done, 0 to 100. 100 only when all is.
pub fn percent(measure: &Measure) -> u64 {
    let (done, total) = (u128::from(measure.done_bytes), u128::from(measure.total_bytes));
    match total {
        0 => 0,
        total => u64::try_from((done * 100 / total).min(100)).unwrap_or(100),
    }
}

/// A time span for people: `45 s`, `3 min 20 s`, `2 h 5 min`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_said() {
        let measure = Measure {
            what: "relocate /dev/sdb".into(),
            done_bytes: 5 << 28,
            total_bytes: 4 << 30,
            bytes_per_second: 120 << 20,
            seconds_left: Some(83),
            ..Measure::default()
        };
        assert_eq!(
            text(&measure),
            "relocate /dev/sdb: 1.25 GiB of 4.00 GiB (31 %), 120.00 MiB/s, 1 min 23 s left"
        );
        let unknown = Measure {
            what: "back up".into(),
            done_files: 7,
            ..Measure::default()
        };
        assert_eq!(text(&unknown), "back up: 0 bytes, 7 files");
    }

    #[test]
    fn nothing_is_finished_before_it_is() {
        let measure = |done_bytes, total_bytes| Measure {
            done_bytes,
            total_bytes,
            ..Measure::default()
        };
        assert_eq!(percent(&measure(999, 1000)), 99);
        assert_eq!(percent(&measure(1000, 1000)), 100);
        assert_eq!(percent(&measure(u64::MAX, 1)), 100);
        assert_eq!(percent(&measure(1, 0)), 0);
    }
}
