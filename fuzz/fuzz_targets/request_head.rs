//! Fuzzes the head of a request; `src/fuzzing/mod.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::request_head(data));
