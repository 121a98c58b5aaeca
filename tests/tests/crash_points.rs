//! The real programs, killed at every named point. The long form is `crash points`; a failure prints how to see it again.

use hostler_tests::crash::round::Has;
use hostler_tests::crash::walk::{Length, Walked, walk};
use hostler_tests::progress::Progress;

async fn survives(has: Has) -> Walked {
    match walk(has, Length::Short, None, &Progress::unseen()).await {
        Ok(walked) => walked,
        Err(error) => panic!("{error:#}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_kill_at_any_point_of_a_hypervisors_operations_loses_nothing() {
    let walked = survives(Has::Hypervisor).await;
    // A hypervisor's steps follow from the configuration: only pools are looked at before.
    let missing = walked.missing();
    assert_eq!(missing, ["planned.before", "planned.after"], "{}", walked.tally);
}

/// With the tests that need root, loop devices, btrfs and restic.
#[cfg(feature = "real-storage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_kill_at_any_point_of_a_pools_operations_loses_nothing() {
    let walked = survives(Has::HypervisorAndPool).await;
    let missing = walked.missing();
    assert!(!missing.contains(&"planned.before"), "{}", walked.tally);
    assert!(!missing.contains(&"planned.after"), "{}", walked.tally);
}
