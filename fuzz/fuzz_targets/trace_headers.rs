//! Fuzzes headers of traces; `src/fuzzing/wire.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::trace_headers(data));
