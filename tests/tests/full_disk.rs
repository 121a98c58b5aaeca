//! A full disk under the store: said in words, nothing half done, and over when there is room again.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};
use hostler_tests::agent::Setup;
use hostler_tests::disk::SmallDisk;
use hostler_tests::fleet::Fleet;

#[tokio::test]
async fn a_full_disk_refuses_in_words_loses_nothing_and_heals() {
    let disk = SmallDisk::mount();
    let data_dir = disk.path().join("data");
    let fleet = Fleet::start_with(|config| config.data_dir = data_dir).await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let filler = disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    // Space that the log of the store holds already may take a few commits more.
    let mut done = 0;
    let refused = loop {
        let outcome = if done % 2 == 0 {
            fleet.create("hv1").await
        } else {
            fleet.destroy("hv1").await
        };
        match outcome {
            Ok(said) if said.last().unwrap().0 == OperationState::Completed => done += 1,
            Ok(said) => panic!("{said:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(
        refused.message().contains("hostler.db") && refused.message().contains("full"),
        "{refused:?}"
    );
    assert_eq!(fleet.list().await.len(), 1, "it still lists");
    let told = fleet.warnings().await;
    assert!(told[0].starts_with("nothing can be stored: "), "{told:?}");
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let told = fleet.warnings().await;
    assert!(!told.iter().any(|told| told.contains("stored")), "{told:?}");
    drop(agent);
    let _agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    let before = fleet.history().await.len();
    assert!(before >= done, "what was acknowledged is kept");
    let last = fleet.create("hv1").await.unwrap().pop().unwrap();
    assert_eq!(
        last.0,
        OperationState::Completed,
        "the same process goes on: {last:?}"
    );
}
