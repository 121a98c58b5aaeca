//! Which agents this coordinator works with, by their version: the same major number, and at most one minor apart.
//!
//! It never looks at what an agent can do. The invariant: who is refused reads both versions and what to do.

use hostler_common::VERSION;

use crate::operation::sentences;

/// The longest version that a refusal repeats, in bytes.
const SHOWN_AT_MOST: usize = 32;

/// Major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    major: u64,
    minor: u64,
}

impl Line {
    /// Of a version, as `0.1.0` or `0.1.0-rc.1`.
    fn of(version: &str) -> Option<Self> {
        let mut numbers = version.split(['.', '-', '+']).map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor)), Some(_patch)) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        Some(Self { major, minor })
    }
}

/// Whether an agent of `version` is taken.
///
/// # Errors
/// Why not, and what to do.
pub fn check(version: &str) -> Result<(), String> {
    check_against(VERSION, version)
}

fn check_against(ours: &str, theirs: &str) -> Result<(), String> {
    let shown = sentences::bounded(theirs, SHOWN_AT_MOST);
    let Some(agent) = Line::of(theirs) else {
        return Err(format!(
            "the agent says that its version is {shown:?}, which is none; install hostler-agent {ours}"
        ));
    };
    let Some(own) = Line::of(ours) else {
        return Ok(());
    };
    if agent.major == own.major && agent.minor.abs_diff(own.minor) <= 1 {
        return Ok(());
    }
    let what_to_do = match agent < own {
        true => format!(
            "upgrade the agent to {ours}; agents further behind than one minor version go step by step"
        ),
        false => format!("upgrade the coordinator first, or install hostler-agent {ours}"),
    };
    Err(format!(
        "the agent is version {shown} and this coordinator {ours}: they work together when the major number is the same and \
         the minor one differs by at most one; {what_to_do}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_apart_is_taken_and_further_is_not() {
        for good in ["1.4.0", "1.3.9", "1.5.0", "1.4.0-rc.1", "1.5.2+deb12"] {
            assert_eq!(check_against("1.4.2", good), Ok(()), "{good}");
        }
        for (bad, advice) in [
            ("1.2.9", "upgrade the agent"),
            ("0.4.2", "upgrade the agent"),
            ("1.6.0", "upgrade the coordinator"),
            ("2.4.2", "upgrade the coordinator"),
        ] {
            let said = check_against("1.4.2", bad).unwrap_err();
            assert!(
                said.contains(bad) && said.contains("1.4.2") && said.contains(advice),
                "{said}"
            );
        }
        for none in [
            "",
            "1",
            "1.4",
            "one.four.two",
            "1.4.\u{1b}[2J",
            "-1.4.0",
            "18446744073709551616.4.0",
        ] {
            let said = check_against("1.4.2", none);
            assert!(said.is_err() || none.starts_with("1.4."), "{none}");
            assert!(!said.err().unwrap_or_default().contains('\u{1b}'));
        }
        assert_eq!(check(VERSION), Ok(()));
    }
}
