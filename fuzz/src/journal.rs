//! The agent's journal: lines as they lie on the disk, and what a desk and an executor make of them.

use std::cell::OnceCell;
use std::sync::Arc;

use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::resume;
use hostler_agent::executor::state::Plan;
use hostler_agent::journal::record::{Entry, Record, decode, encode};
use hostler_agent::journal::state_dir::StateDir;
use hostler_agent::session::desk::Desk;
use hostler_common::error::Chain;
use hostler_common::id::OperationId;
use hostler_common::operation::Request;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::said;

thread_local! {
    static PLACE: OnceCell<(Arc<StateDir>, TempDir)> = const { OnceCell::new() };
}

/// Reads `data` as a journal, and again with the checksums made right, which no fuzzer guesses.
///
/// # Panics
/// When a record is another one after it is written again, or what lies on the disk is lost.
pub fn run(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    for line in &lines {
        match decode(line) {
            Ok(record) => same_again(&record),
            Err(error) => said::bounded(&Chain(&error).to_string()),
        }
    }
    found(data);
    let mut summed = Vec::new();
    for line in lines {
        summed.extend_from_slice(format!("{:08x} ", sum(line)).as_bytes());
        summed.extend_from_slice(line);
        summed.push(b'\n');
    }
    found(&summed);
}

fn same_again(record: &Record) {
    let line = encode(record).expect("a record is written");
    let again = decode(line.trim_end_matches('\n').as_bytes()).expect("what was written reads");
    assert_eq!(again, *record);
}

/// What an agent does with such a journal when it starts.
fn found(journal: &[u8]) {
    PLACE.with(|place| {
        let (state_dir, dir) = place.get_or_init(|| {
            let dir = TempDir::new().expect("a directory");
            let state_dir = StateDir::open(dir.path()).expect("a state directory");
            (Arc::new(state_dir), dir)
        });
        let id: OperationId = "019aa111-2222-7333-8444-555566667777".parse().expect("an id");
        let folder = dir.path().join("journal");
        std::fs::write(folder.join(format!("{id}.log")), journal).expect("a journal is written");
        let found = state_dir.found().expect("the directory is listed");
        for found in &found {
            match &found.content {
                Ok(records) => {
                    records.iter().for_each(same_again);
                    resumed(records);
                }
                Err(error) => said::bounded(&Chain(error).to_string()),
            }
        }
        let host = "h1".parse().expect("a name");
        let stop = CancellationToken::new();
        let mut desk = Desk::new(host, Arc::clone(state_dir), Outbox::default(), stop, &found);
        desk.hello();
        desk.todo(Instant::now(), 16);
        state_dir.remove(id).expect("the journal is removed");
        for entry in std::fs::read_dir(&folder).expect("the directory is listed") {
            let left = entry.expect("an entry").path();
            std::fs::remove_file(left).expect("what was kept aside is removed");
        }
    });
}

/// As far as the executor would go: with the steps that the journal itself names, so that they fit now and then.
fn resumed(records: &[Record]) {
    let mut steps: Vec<String> = Vec::new();
    for record in records {
        match &record.entry {
            Entry::StepStarted { step, .. } if !steps.contains(step) => steps.push(step.clone()),
            Entry::Begun { request, .. } => {
                if let Ok(request) = prost_types::Any::try_from(request)
                    && let Err(error) = Request::of(&request)
                {
                    said::bounded(&Chain(&error).to_string());
                }
            }
            _ => {}
        }
    }
    resume::ending(records);
    let success = "done".to_owned();
    // What the end says of steps is in the journal's own words; nothing bounds those but who wrote them.
    drop(resume::resume(&Plan { success, steps }, records));
}

/// CRC-32 as of zlib, bit by bit: apart from the one that is tested.
fn sum(line: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in line {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let low = sum & 1;
            sum = (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(low));
        }
    }
    !sum
}
