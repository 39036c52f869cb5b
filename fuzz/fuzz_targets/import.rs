//! Fuzzes `llamagate import`; `src/fuzzing/imports.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::import(data));
