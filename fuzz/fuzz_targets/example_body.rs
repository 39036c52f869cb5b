//! Fuzzes bodies of the API's description; `src/fuzzing/examples.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::example_body(data));
