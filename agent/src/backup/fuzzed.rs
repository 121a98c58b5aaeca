//! The door of fuzzing to what restic says.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use hostler_common::error::Chain;

use super::count::Count;
use super::list::{listed, newest};
use super::restic::fault::{Place, passed_over};
use super::restic::messages::{BackupLine, Forgotten, Lock, Node, Snapshot, Unread};
use super::restic::repository::unread;
use crate::command::Output;

pub(crate) fn read(text: &str) -> Vec<String> {
    let mut said = ends(text);
    said.extend(passed_over(text));
    said.extend(unread(text));
    // Each line is read by itself: many say no more than some.
    for line in text.lines().take(1000) {
        drop(serde_json::from_str::<BackupLine>(line));
        drop(serde_json::from_str::<Unread>(line));
        drop(serde_json::from_str::<Lock>(line));
        drop(serde_json::from_str::<Vec<Forgotten>>(line));
        if let Ok(node) = serde_json::from_str::<Node>(line) {
            Count::default().add_node(&node);
        }
    }
    if let Ok(mut backups) = serde_json::from_str::<Vec<Snapshot>>(text) {
        backups.sort_by_key(Snapshot::unix_ms);
        said.extend(backups.iter().map(Snapshot::described));
        newest(backups.into_iter().map(listed).collect());
    }
    said
}

/// What becomes of a call that ended with `stderr`, by each code that means something.
fn ends(stderr: &str) -> Vec<String> {
    let password_file = PathBuf::from("/etc/hostler/restic");
    let place = Place {
        repository: "/srv/backup",
        password_file: &password_file,
        what: "snapshots",
    };
    let codes = [1, 3, 12];
    let faults = codes.map(|code| {
        place.fault(&Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        })
    });
    faults.iter().map(|fault| Chain(fault).to_string()).collect()
}
