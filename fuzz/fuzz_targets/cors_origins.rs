//! Fuzzes CORS; `src/fuzzing/mod.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::cors_origins(data));
