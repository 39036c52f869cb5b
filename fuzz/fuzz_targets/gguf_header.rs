//! Fuzzes headers of model files; `src/fuzzing/files.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::gguf_header(data));
