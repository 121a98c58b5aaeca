//! How far long work is, in one line that fits its terminal: what matters least is left out first.

use hostler_common::bytes::Bytes;
use hostler_common::measure;
use hostler_common::rpc::hostler::agent::v1::Measure;

use super::text::escape;

/// Columns of a bar: as many as there is room for, or none.
const LENGTHS: [usize; 5] = [30, 20, 10, 6, 0];

/// What else a line can hold: bytes, files, rate, time left. What is known of it, or what is shown of it.
type Parts<T> = [T; 4];

/// What is shown, from everything to nothing.
const CHOICES: [Parts<bool>; 5] = [
    [true, true, true, true],
    [true, false, true, true],
    [true, false, false, true],
    [false, false, false, true],
    [false, false, false, false],
];

/// As `relocate /dev/sdb  ████░░░░░░  41 %  1.64/4.00 GiB  120 MiB/s  0:19 left`, in at most `width` columns
/// where that can be.
pub(super) fn line(measure: &Measure, width: u16) -> String {
    let parts = parts(measure);
    let lines = CHOICES.into_iter().flat_map(|shown| {
        let parts = &parts;
        // The bar gives way before a number does: it says nothing that the percentage does not say.
        LENGTHS.map(move |length| draw(measure, parts, length, shown))
    });
    let fits = |line: &String| line.chars().count() <= usize::from(width);
    lines
        .into_iter()
        .find(fits)
        .unwrap_or_else(|| draw(measure, &parts, 0, [false; 4]))
}

fn parts(measure: &Measure) -> Parts<Option<String>> {
    let [done, total] = [measure.done_bytes, measure.total_bytes].map(short);
    let bytes = match (done.split_once(' '), total.split_once(' ')) {
        _ if measure.total_bytes == 0 => done,
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}/{total}"),
        _ => format!("{done}/{total}"),
    };
    let files = match (measure.done_files, measure.total_files) {
        (0, 0) => None,
        (done, 0) => Some(format!("{done} files")),
        (done, total) => Some(format!("{done}/{total} files")),
    };
    let rate = (measure.bytes_per_second > 0).then(|| format!("{}/s", short(measure.bytes_per_second)));
    let left = measure
        .seconds_left
        .map(|seconds| format!("{} left", clock(seconds)));
    [Some(bytes), files, rate, left]
}

fn draw(measure: &Measure, parts: &Parts<Option<String>>, length: usize, shown: Parts<bool>) -> String {
    let percent = (measure.total_bytes > 0).then(|| measure::percent(measure));
    let mut line = escape(&measure.what);
    let mut add = |part: &str| {
        line.push_str("  ");
        line.push_str(part);
    };
    match percent {
        Some(percent) if length > 0 => add(&format!("{} {percent:>3} %", bar(percent, length))),
        Some(percent) => add(&format!("{percent:>3} %")),
        None => {}
    }
    for (part, shown) in parts.iter().zip(shown) {
        if let (Some(part), true) = (part, shown) {
            add(part);
        }
    }
    line
}

/// Three digits of an amount, which is all that moves slowly enough to be read: `1.64 GiB`, `12.3 GiB`, `120 MiB`.
fn short(bytes: u64) -> String {
    let text = Bytes(bytes).to_string();
    match text.split_once(' ') {
        Some((number, unit)) => {
            let digits = match number.find('.') {
                Some(point) if point >= 3 => &number[..point],
                Some(_) => number.get(..4).unwrap_or(number),
                None => number,
            };
            format!("{digits} {unit}")
        }
        None => text,
    }
}

/// As a clock has it: `0:19`, `1:23`, `2:05:00`.
fn clock(seconds: u64) -> String {
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    match minutes {
        0..60 => format!("{minutes}:{seconds:02}"),
        _ => format!("{}:{:02}:{seconds:02}", minutes / 60, minutes % 60),
    }
}

fn bar(percent: u64, length: usize) -> String {
    let share = usize::try_from(percent).unwrap_or(100).min(100);
    let full = share * length / 100;
    format!("{}{}", "█".repeat(full), "░".repeat(length - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure() -> Measure {
        Measure {
            what: "relocate /dev/sdb".into(),
            done_bytes: 1 << 30,
            total_bytes: 4 << 30,
            bytes_per_second: 120 << 20,
            seconds_left: Some(83),
            done_files: 7,
            total_files: 90,
        }
    }

    #[test]
    fn a_bar_fits_its_terminal() {
        let lines: Vec<_> = [40, 71, 91, 131].map(|width| line(&measure(), width)).into();
        for (text, width) in lines.iter().zip([40, 71, 91, 131]) {
            assert!(text.chars().count() <= width, "{text:?} in {width}");
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn what_is_not_known_is_not_drawn() {
        let unknown = Measure {
            total_bytes: 0,
            total_files: 0,
            seconds_left: None,
            ..measure()
        };
        assert_eq!(
            line(&unknown, 80),
            "relocate /dev/sdb  1.00 GiB  7 files  120 MiB/s"
        );
    }

    #[test]
    fn amounts_have_three_digits() {
        let amounts = [7, 1 << 30, 25 << 29, 120 << 20, 1023 << 20];
        let expected = ["7 bytes", "1.00 GiB", "12.5 GiB", "120 MiB", "1023 MiB"];
        assert_eq!(amounts.map(short), expected);
    }

    #[test]
    fn time_left_reads_as_on_a_clock() {
        assert_eq!([19, 83, 7500].map(clock), ["0:19", "1:23", "2:05:00"]);
    }

    #[test]
    fn a_bar_is_full_only_when_all_is_done() {
        assert_eq!(bar(0, 10), "░░░░░░░░░░");
        assert_eq!(bar(99, 10), "█████████░");
        assert_eq!(bar(100, 10), "██████████");
    }

    #[test]
    fn names_of_a_host_cannot_move_the_cursor() {
        let hostile = Measure {
            what: "a\x1b[2J".into(),
            ..Measure::default()
        };
        assert_eq!(line(&hostile, 80), "a\\u{1b}[2J  0 bytes");
    }
}
