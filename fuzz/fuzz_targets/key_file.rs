//! Fuzzes the key file; `src/fuzzing/mod.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::key_file(data));
