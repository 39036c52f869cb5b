//! Fuzzes whole requests; `src/fuzzing/wire.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::whole_requests(data));
