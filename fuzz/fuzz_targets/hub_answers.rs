//! Fuzzes answers of the hub and of hosts of files; `src/fuzzing/hub.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::hub_answers(data));
