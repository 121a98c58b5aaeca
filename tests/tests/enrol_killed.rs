//! `hostler-agent enrol`, killed at each of its named points and repeated: the host ends enrolled, and nothing is left over.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_agent::identity::enrol::failpoint::Point;
use hostler_pki::Credentials;
use hostler_tests::crash::trap::{Action, Trap};
use hostler_tests::fleet::Fleet;
use hostler_tests::newcomer::{Newcomer, make_token};

/// A file is written beside its place twice: the note, and the configuration.
fn passings(point: Point) -> std::ops::RangeInclusive<u64> {
    match point {
        Point::Beside => 1..=2,
        _ => 1..=1,
    }
}

#[tokio::test]
async fn a_kill_at_any_point_is_cured_by_the_same_command() {
    let fleet = Fleet::start().await;
    for point in Point::ALL {
        for nth in passings(*point) {
            let (host, token) = (Newcomer::make(), make_token(&fleet, "h1").await);
            let trap = Trap::make(host.dir.path().join("trap"));
            trap.arm(point.name(), nth, Action::Kill);
            let mut command = host.command(&fleet.enrol_at(), &token, "30s");
            trap.under(&mut command);
            let (code, said) = Newcomer::run(command).await;
            assert!(code == -1 && trap.fell(), "{point:?} {nth} is passed: {said}");
            for _ in 0..2 {
                let (code, said) = host.enrol(&fleet, &token).await;
                assert_eq!(code, 0, "{point:?} {nth}: {said}");
                assert_eq!(
                    host.files(),
                    ["agent.pem", "ca.crt", "enrolled.json"],
                    "{point:?} {nth}: {said}"
                );
            }
            Credentials::load(&host.tls()).unwrap();
            assert!(host.config().contains("127.0.0.1"), "{}", host.config());
            let beside = host.dir.path().join("agent.toml.enrolled");
            assert!(!beside.exists(), "{point:?} {nth}");
        }
    }
}
