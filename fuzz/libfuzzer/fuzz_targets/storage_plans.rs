//! libFuzzer's program for the target of its name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostler_fuzz::run("storage_plans", data));
