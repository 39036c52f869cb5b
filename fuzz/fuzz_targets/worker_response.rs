//! Fuzzes the response of a worker; `src/fuzzing/workers.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::worker_response(data));
