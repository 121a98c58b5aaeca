//! The journal: what was written is read back, a torn tail is cut, damage is told, the directory has one owner.

use std::fs;
use std::path::PathBuf;

use hostler_agent::executor::state::Outcome;
use hostler_agent::executor::step::Before;
use hostler_agent::journal::read::{ReadError, read};
use hostler_agent::journal::record::{self, Entry, StoredRequest, VERSION};
use hostler_agent::journal::state_dir::{Aside, StateDir, StateDirError};
use hostler_common::id::{Fence, OperationId, ProcessToken, ResourceName};
use hostler_common::operation::OperationKind;
use tempfile::TempDir;

use crate::world::request;

fn entries(operation: OperationId) -> Vec<Entry> {
    let resource: ResourceName = "hv-1".parse().unwrap();
    let request = request(OperationKind::CreateHypervisor, "hv-1");
    let token = ProcessToken::generate();
    let step = || "define domain hv-1".to_owned();
    vec![
        Entry::Begun {
            version: VERSION,
            operation,
            resource,
            fence: Fence(3),
            token: token.clone(),
            request: StoredRequest::from(&request),
            attempt: 1,
        },
        Entry::StepStarted {
            step: step(),
            before: Before::Absent,
        },
        Entry::Took {
            fence: Fence(4),
            token,
        },
        Entry::StepFailed {
            step: step(),
            cause: "a line\nwith a \u{1F980} and \"quotes\"".into(),
            cancelled: false,
        },
        Entry::UndoStarted { step: step() },
        Entry::UndoDone { step: step() },
        Entry::Ended {
            outcome: Outcome::Failed,
            message: "no".into(),
        },
    ]
}

fn written(dir: &TempDir) -> (StateDir, OperationId, PathBuf) {
    let state_dir = StateDir::open(dir.path()).unwrap();
    let operation = OperationId::generate();
    let mut log = state_dir.log(operation).unwrap();
    for entry in entries(operation) {
        log.append(entry).unwrap();
    }
    let path = dir.path().join(format!("journal/{operation}.log"));
    (state_dir, operation, path)
}

#[test]
fn what_was_written_is_read_back() {
    let dir = TempDir::new().unwrap();
    let (state_dir, operation, _) = written(&dir);
    let found = state_dir.found().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].operation, operation);
    let read: Vec<_> = found[0]
        .content
        .as_ref()
        .unwrap()
        .iter()
        .map(|record| record.entry.clone())
        .collect();
    let (wrote, read) = (format!("{:?}", entries(operation)), format!("{read:?}"));
    // The token is random; everything else is as it was.
    let strip = |text: &str| text.split("ProcessToken").count();
    assert_eq!(strip(&wrote), strip(&read));
    assert_eq!(wrote.len(), read.len());
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_record_is_cut_off_and_kept() {
    let dir = TempDir::new().unwrap();
    let (_state_dir, _, path) = written(&dir);
    let whole = fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;
    let torn = path.with_file_name("torn.log");
    let aside = path.with_file_name("torn.log.torn");
    for cut in last..whole.len() {
        fs::write(&torn, &whole[..cut]).unwrap();
        let records = read(&torn).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(records.len(), 6, "cut at {cut}");
        assert_eq!(fs::read(&torn).unwrap(), &whole[..last], "cut at {cut}");
        if cut > last {
            assert_eq!(fs::read(&aside).unwrap(), [&whole[last..cut], b"\n"].concat());
            fs::remove_file(&aside).unwrap();
        }
    }
    // The same with a part that never came to the disk.
    let mut zeroed = whole.clone();
    zeroed[last + 20..last + 40].fill(0);
    fs::write(&torn, &zeroed).unwrap();
    assert_eq!(read(&torn).unwrap().len(), 6);
}

/// One bit of the byte at `at` is the other way round.
fn flipped(bytes: &[u8], at: usize, bit: u32) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1 << bit;
    flipped
}

#[test]
fn a_journal_cut_anywhere_is_one_of_an_earlier_moment() {
    let dir = TempDir::new().unwrap();
    let sample = include_str!("../samples/journal-v1.log");
    let path = dir.path().join("cut.log");
    fs::write(&path, sample).unwrap();
    let whole: Vec<_> = read(&path).unwrap();
    // Five by five comes to every part of a line.
    for cut in (0..sample.len()).step_by(5) {
        fs::write(&path, &sample.as_bytes()[..cut]).unwrap();
        let records = read(&path).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(records, whole[..records.len()], "cut at {cut}");
        assert_eq!(records.len(), sample[..cut].matches('\n').count(), "cut at {cut}");
    }
}

#[test]
fn a_journal_with_any_bit_flipped_is_damaged_and_never_goes_on_from_another_moment() {
    let dir = TempDir::new().unwrap();
    let sample = include_bytes!("../samples/journal-v1.log");
    let path = dir.path().join("flipped.log");
    fs::write(&path, sample).unwrap();
    let whole: Vec<_> = read(&path).unwrap();
    for at in 0..sample.len() {
        for bit in [0, 5] {
            let bytes = flipped(sample, at, bit);
            fs::write(&path, &bytes).unwrap();
            match read(&path) {
                Err(ReadError::Damaged { number, readable, .. }) => {
                    assert_eq!(
                        (readable.len() + 1, &readable[..]),
                        (number, &whole[..number - 1]),
                        "{at}"
                    );
                }
                other => panic!("bit {bit} of {at}: {other:?}"),
            }
            assert_eq!(fs::read(&path).unwrap(), bytes, "a damaged journal was touched");
        }
    }
}

#[test]
fn fences_cut_anywhere_or_with_any_bit_flipped_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("fences.json");
    let resource: ResourceName = "hv1".parse().unwrap();
    {
        let state_dir = StateDir::open(dir.path()).unwrap();
        state_dir.fences().see(&resource, Fence(12));
        state_dir.fences().store().unwrap();
    }
    let whole = fs::read(&path).unwrap();
    let known = || {
        StateDir::open(dir.path())
            .ok()
            .map(|state_dir| state_dir.fences().newest(&resource))
    };
    for at in 0..whole.len() {
        fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(known(), None, "cut at {at}");
        for bit in 0..8 {
            fs::write(&path, flipped(&whole, at, bit)).unwrap();
            // What is no fence may change: the version, and spaces.
            assert!([None, Some(Fence(12))].contains(&known()), "bit {bit} of {at}");
        }
    }
    // As the first version wrote it.
    fs::write(&path, r#"{"version":1,"fences":{"hv1":7}}"#).unwrap();
    assert_eq!(known(), Some(Fence(7)));
}

#[test]
fn a_damaged_record_in_the_middle_is_an_error_that_keeps_what_is_before_it() {
    let dir = TempDir::new().unwrap();
    let (state_dir, operation, path) = written(&dir);
    let mut bytes = fs::read(&path).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 12;
    bytes[second] ^= 0x01;
    fs::write(&path, &bytes).unwrap();
    match read(&path).unwrap_err() {
        ReadError::Damaged { number, readable, .. } => {
            assert_eq!((number, readable.len()), (2, 1));
        }
        other => panic!("{other}"),
    }
    assert_eq!(fs::read(&path).unwrap(), bytes, "a damaged journal was touched");
    state_dir.set_aside(operation, Aside::Damaged).unwrap();
    assert!(state_dir.found().unwrap().is_empty());
    assert!(path.with_extension("log.damaged").exists());
}

#[test]
fn a_whole_record_of_another_version_is_not_taken_for_torn() {
    let dir = TempDir::new().unwrap();
    let (_state_dir, _, path) = written(&dir);
    let json = r#"{"at":1,"entry":"unheard_of"}"#;
    let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(line.as_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        read(&path).unwrap_err(),
        ReadError::Damaged { number: 8, .. }
    ));
}

#[test]
fn a_journal_in_which_nothing_was_begun_is_removed() {
    let dir = TempDir::new().unwrap();
    let state_dir = StateDir::open(dir.path()).unwrap();
    let path = dir
        .path()
        .join(format!("journal/{}.log", OperationId::generate()));
    fs::write(&path, "0000").unwrap();
    assert!(state_dir.found().unwrap().is_empty());
    assert!(!path.exists());
}

#[test]
fn a_journal_of_the_first_version_is_read() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/journal-v1.log");
    let records = read(sample.as_ref()).unwrap();
    insta::assert_debug_snapshot!(records);
}

#[test]
fn a_journal_with_a_plan_a_result_and_a_cancel_is_read_and_written_as_it_was() {
    let sample = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/samples/journal-v1-planned.log"
    );
    let records = read(sample.as_ref()).unwrap();
    let again = records.iter().map(|record| record::encode(record).unwrap());
    assert_eq!(again.collect::<String>(), fs::read_to_string(sample).unwrap());
    insta::assert_debug_snapshot!(records);
}

#[test]
fn a_directory_has_one_agent_and_the_second_is_told() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    let first = StateDir::open(&path).unwrap();
    let error = StateDir::open(&path).unwrap_err();
    assert!(matches!(error, StateDirError::Locked { .. }));
    assert!(
        error
            .to_string()
            .contains("another agent uses the state directory"),
        "{error}"
    );
    drop(first);
    StateDir::open(&path).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_newest_fence_survives_and_never_goes_back() {
    let dir = TempDir::new().unwrap();
    let resource: ResourceName = "hv-1".parse().unwrap();
    let other: ResourceName = "hv-2".parse().unwrap();
    {
        let state_dir = StateDir::open(dir.path()).unwrap();
        assert_eq!(state_dir.fences().newest(&resource), Fence(0));
        state_dir.fences().see(&resource, Fence(5));
        state_dir.fences().see(&resource, Fence(4));
        state_dir.fences().see(&other, Fence(1));
        state_dir.fences().store().unwrap();
    }
    let state_dir = StateDir::open(dir.path()).unwrap();
    assert_eq!(state_dir.fences().newest(&resource), Fence(5));
    assert_eq!(state_dir.fences().newest(&other), Fence(1));
}

/// A way for a journal to go.
type Goes = fn(&StateDir, OperationId) -> std::io::Result<()>;

#[test]
fn the_fence_of_a_journal_is_seen_by_the_next_process_and_outlives_the_journal() {
    let newest = |state_dir: &StateDir| state_dir.fences().newest(&"hv-1".parse().unwrap());
    let removed = |state_dir: &StateDir, operation| state_dir.remove(operation);
    let aside = |state_dir: &StateDir, operation| state_dir.set_aside(operation, Aside::Damaged);
    let ways: [Goes; 2] = [removed, aside];
    for goes in ways {
        let dir = TempDir::new().unwrap();
        let (state_dir, operation, _) = written(&dir);
        drop(state_dir);
        let state_dir = StateDir::open(dir.path()).unwrap();
        assert_eq!(newest(&state_dir), Fence(4));
        goes(&state_dir, operation).unwrap();
        drop(state_dir);
        assert_eq!(newest(&StateDir::open(dir.path()).unwrap()), Fence(4));
    }
}

#[test]
fn fences_of_a_later_version_are_not_called_damaged() {
    let dir = TempDir::new().unwrap();
    let later = r#"{"version":3,"fences":{"hv1":7},"kept":"elsewhere"}"#;
    fs::write(dir.path().join("fences.json"), later).unwrap();
    let error = StateDir::open(dir.path()).unwrap_err();
    let chain = hostler_common::error::Chain(&error).to_string();
    assert!(
        chain.contains("format 3")
            && chain.contains("install the newer version")
            && !chain.contains("damaged"),
        "{chain}"
    );
}

#[test]
fn damaged_fences_stop_the_start_with_a_sentence() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("fences.json"), "{").unwrap();
    let error = StateDir::open(dir.path()).unwrap_err();
    let chain = hostler_common::error::Chain(&error).to_string();
    assert!(chain.contains("fences.json are damaged"), "{chain}");
}

#[test]
fn after_a_write_that_failed_nothing_more_is_written() {
    // /dev/full takes an open and no byte.
    let dir = TempDir::new().unwrap();
    let state_dir = StateDir::open(dir.path()).unwrap();
    let operation = OperationId::generate();
    let path = dir.path().join(format!("journal/{operation}.log"));
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut log = state_dir.log(operation).unwrap();
    for _ in 0..2 {
        let error = log.append(Entry::UndoStarted { step: "x".into() }).unwrap_err();
        assert!(error.to_string().contains("cannot write the journal"), "{error}");
    }
}

#[test]
fn of_what_is_kept_for_a_person_the_newest_twenty_stay() {
    let dir = TempDir::new().unwrap();
    let state_dir = StateDir::open(dir.path()).unwrap();
    let file =
        |operation: &OperationId, suffix: &str| dir.path().join(format!("journal/{operation}.{suffix}"));
    let operations: Vec<_> = (0..24).map(|_| OperationId::generate()).collect();
    for (number, operation) in operations.iter().enumerate() {
        fs::write(file(operation, "log"), "").unwrap();
        let why = match number % 2 {
            0 => Aside::Abandoned,
            _ => Aside::Damaged,
        };
        state_dir.set_aside(*operation, why).unwrap();
    }
    let kept = |operation: &OperationId| {
        let suffixes = ["log.abandoned", "log.damaged", "log.torn"];
        suffixes.iter().any(|suffix| file(operation, suffix).exists())
    };
    let (old, new) = operations.split_at(4);
    assert!(!old.iter().any(kept) && new.iter().all(kept));

    // At the start, and nothing but what was set aside.
    let other = dir.path().join("journal/notes.log.torn");
    fs::write(&other, "").unwrap();
    fs::write(file(&old[0], "log.torn"), "").unwrap();
    state_dir.found().unwrap();
    assert!(!kept(&old[0]) && new.iter().all(kept) && other.exists());
}
