//! Fuzzes requests and answers in Ollama's dialect; `src/fuzzing/dialects.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::ollama(data));
