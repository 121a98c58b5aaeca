//! An audit log on a disk that is full: nothing waits for it, people are told, and what is missing is counted where it is missing.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::fs::File;
use std::io::Write as _;

use hostler_common::rpc::hostler::site::v1 as site;
use hostler_tests::disk::SmallDisk;
use hostler_tests::fleet::Fleet;
use hostler_tests::wait;
use serde_json::Value;
use tonic::Code;

async fn lose(fleet: &Fleet, host: &str) {
    let request = site::LoseAgentRequest {
        host: host.to_owned(),
        reason: "x".repeat(400),
    };
    let status = fleet.site("admin").lose_agent(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

async fn warned(fleet: &Fleet) -> bool {
    let request = site::GetStatusRequest {};
    let status = fleet.site("viewer").get_status(request).await.unwrap();
    let warnings = status.into_inner().warnings;
    warnings
        .iter()
        .any(|warning| warning.contains("audit log cannot be written"))
}

#[tokio::test]
async fn what_a_full_disk_did_not_take_is_counted_and_every_line_is_whole() {
    let disk = SmallDisk::mount();
    let audit = disk.path().join("audit");
    std::fs::create_dir(&audit).unwrap();
    let fleet = Fleet::start_with(|config| {
        std::fs::create_dir_all(&config.data_dir).unwrap();
        std::os::unix::fs::symlink(&audit, config.data_dir.join("audit")).unwrap();
    })
    .await;
    lose(&fleet, "before").await;
    let written = async |host: &'static str| {
        let path = audit.join("audit.jsonl");
        wait::until("the line is written", || async {
            let text = std::fs::read_to_string(&path).ok()?;
            text.contains(&format!("\"{host}\"")).then_some(text)
        })
        .await
    };
    written("before").await;
    let filler = disk.path().join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    let asked = std::cell::Cell::new(0);
    wait::until("the status warns", || async {
        lose(&fleet, "meanwhile").await;
        asked.set(asked.get() + 1);
        warned(&fleet).await.then_some(())
    })
    .await;
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    lose(&fleet, "after").await;
    let text = written("after").await;
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let at = |host: &str| {
        let of_it = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line["request"]["host"] == host);
        of_it.map(|(at, _)| at).collect::<Vec<_>>()
    };
    // The short line that counts may find room where a long one did not: then there is more than one.
    let lost = lines.iter().filter(|line| line["event"] == "lost");
    let missing: u64 = lost.filter_map(|line| line["held_back"].as_u64()).sum();
    assert!(
        missing > 0 && at("before") == [0] && at("after") == [lines.len() - 1],
        "{text}"
    );
    let told = u64::try_from(at("meanwhile").len()).unwrap();
    assert_eq!(told + missing, asked.get(), "{text}");
    wait::until("the warning goes", || async {
        (!warned(&fleet).await).then_some(())
    })
    .await;
}
