//! Fuzzes the model's name in a response body; `src/fuzzing/mod.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::answer_body(data));
