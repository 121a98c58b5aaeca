//! The short form of fuzzing: every kept input, what no format expects, and inputs made from them by a seed, for a few
//! seconds a target. `tests/fuzz.sh` is the long one.
//!
//! HOSTLER_FUZZ_SEED repeats a run.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // Helper functions of tests are not taken for tests by clippy.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hostler_fuzz::inputs::{Mutations, plain};
use hostler_fuzz::{TARGETS, Target};

/// For inputs made by the seed. Whatever comes of them, all kept ones are read.
const LASTS: Duration = Duration::from_secs(1);

/// Made at least, however slow the machine is.
const AT_LEAST: u64 = 20;

/// Panics of any thread: one in a task is caught by the runtime.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

fn read(target: &Target, input: &[u8], which: &str) {
    let before = PANICS.load(Ordering::SeqCst);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let panics = PANICS.load(Ordering::SeqCst) - before;
    if ended.is_err() || panics > 0 {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let file = dir.join(format!("{}.panic", target.name));
        fs::write(&file, input).unwrap();
        panic!(
            "{} panics at {which}; the input is in {}",
            target.name,
            file.display()
        );
    }
}

fn fuzz(name: &str) {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        hook(info);
    }));
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let kept = kept(target);
    for (number, input) in kept.iter().enumerate() {
        read(target, input, &format!("kept input {number}"));
    }
    for (number, input) in plain().iter().enumerate() {
        read(target, input, &format!("plain input {number}"));
    }
    let seed = match std::env::var("HOSTLER_FUZZ_SEED") {
        Ok(seed) => seed.parse().expect("HOSTLER_FUZZ_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos())
        }
    };
    println!("HOSTLER_FUZZ_SEED={seed}");
    let mut mutations = Mutations::new(seed);
    let begun = Instant::now();
    let mut made = 0;
    while made < AT_LEAST || begun.elapsed() < LASTS {
        let input = mutations.input(&kept);
        read(
            target,
            &input,
            &format!("input {made} of HOSTLER_FUZZ_SEED={seed}"),
        );
        made += 1;
    }
    println!("{name}: {} kept inputs, {made} made", kept.len());
}

/// One test a target: each has a process of its own, and one that hangs is seen.
macro_rules! targets {
    ($($test:ident, $name:literal;)*) => {
        $(#[test]
        fn $test() {
            fuzz($name);
        })*

        #[test]
        fn every_target_has_a_test_and_a_program() {
            let mut tested = [$($name),*];
            tested.sort_unstable();
            assert_eq!(tested.to_vec(), TARGETS.map(|target| target.name).to_vec());
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("libfuzzer");
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            for target in TARGETS {
                assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
                let program = fs::read_to_string(folder.join(format!("fuzz_targets/{}.rs", target.name))).unwrap();
                assert!(program.contains(&format!("\"{}\"", target.name)), "{}", target.name);
            }
        }
    };
}

targets!(
    no_message_of_a_coordinator_makes_an_agent_panic, "agent_desk";
    no_journal_makes_an_agent_panic, "agent_journal";
    no_certificate_makes_anybody_panic, "certificates";
    no_command_line_makes_the_client_panic, "command_line";
    no_configuration_makes_a_program_panic, "configuration";
    no_call_makes_the_coordinator_panic, "coordinator_calls";
    no_message_of_an_agent_makes_the_coordinator_panic, "coordinator_sessions";
    no_value_brings_xml_of_its_own_into_a_domain, "guest_templates";
    no_xml_of_libvirt_makes_an_agent_panic, "libvirt_xml";
    no_name_leads_out_of_its_folder, "names";
    no_figures_of_a_pool_make_a_plan_that_takes_more, "storage_plans";
    no_stored_record_makes_the_coordinator_panic, "stored_records";
    no_output_of_a_program_makes_an_agent_panic, "tool_output";
);
