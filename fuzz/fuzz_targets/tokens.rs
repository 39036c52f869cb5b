//! Fuzzes requests for tokens, and llama-server's answers; `src/fuzzing/dialects.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::tokens(data));
