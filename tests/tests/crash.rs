//! The real programs, killed some hundred times. The long form is the program `crash`; a failure prints how to see it
//! again with that.

use hostler_tests::crash::Campaign;
use hostler_tests::crash::round::Has;
use hostler_tests::progress::Progress;

/// Each world has its own seed: `seed` and the two after it.
async fn survives(seed: u64, kills: u64, has: Has) {
    let campaign = Campaign {
        seed,
        worlds: 3,
        kills,
        has,
    };
    if let Err(error) = campaign.run(&Progress::unseen()).await {
        panic!("{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_hypervisor_survives_a_hundred_kills() {
    survives(100, 105, Has::Hypervisor).await;
}

/// With the tests that need root, loop devices, btrfs and restic.
#[cfg(feature = "real-storage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_hypervisor_and_a_pool_survive_a_hundred_kills() {
    survives(200, 105, Has::HypervisorAndPool).await;
}
