//! Fuzzes certificates; `src/fuzzing/files.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::certificates(data));
