//! Fuzzes streams of events; `src/fuzzing/wire.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::event_stream(data));
