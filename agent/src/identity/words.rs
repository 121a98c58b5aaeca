//! What people read about this host's identity, each time with the way out. It decides nothing.

use hostler_common::units::UnixMillis;
use hostler_pki::Identity;

use super::schedule::DAY;

/// The commands that cure whatever a renewal cannot.
fn enrol_again(identity: &Identity) -> String {
    let host = identity.subject.name();
    format!(
        "run `hostler tokens create --host {host}` as an admin, and with that token \
         `hostler-agent enrol --token-file -` on this host; the agent takes the certificate without a restart"
    )
}

/// Nothing but a token helps any more.
pub fn expired(identity: &Identity, at: UnixMillis) -> String {
    format!(
        "the certificate of {identity} expired at {at}; {}",
        enrol_again(identity)
    )
}

/// The renewals have failed for long.
pub fn ending(identity: &Identity, at: UnixMillis) -> String {
    format!(
        "the certificate of {identity} ends at {at} and has not been renewed; see above why, or {}",
        enrol_again(identity)
    )
}

/// How long a certificate lasts, for people: `89 days`, `3 hours`, `20 s`.
pub fn left(now: UnixMillis, end: UnixMillis) -> String {
    let left = now.until(end);
    let (days, seconds) = (left.as_secs() / DAY.as_secs(), left.as_secs());
    match (days, seconds / 3600) {
        (2.., _) => format!("{days} days"),
        (_, 2..) => format!("{} hours", seconds / 3600),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_certificate_is_told_with_the_commands_that_cure_it() {
        let identity = "spiffe://fleet.test/agent/h7".parse().unwrap();
        let said = expired(&identity, UnixMillis(0));
        assert!(said.contains("hostler tokens create --host h7"), "{said}");
        assert!(said.contains("hostler-agent enrol"), "{said}");
    }

    #[test]
    fn the_rest_of_a_life_is_told_in_a_unit_that_fits() {
        let now = UnixMillis(1_000_000);
        let after = |seconds: i64| left(now, UnixMillis(now.0 + seconds * 1000));
        assert_eq!(after(89 * 86_400 + 5), "89 days");
        assert_eq!(after(3 * 3600), "3 hours");
        assert_eq!(after(20), "20 s");
        assert_eq!(after(-20), "0 s");
    }
}
