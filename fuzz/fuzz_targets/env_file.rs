//! Fuzzes files of variables; `src/fuzzing/files.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::env_file(data));
