//! Fuzzes the configuration file; `src/fuzzing.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::configuration(data));
