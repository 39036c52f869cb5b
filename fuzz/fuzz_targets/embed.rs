//! Fuzzes requests for embeddings, and answers of embedding servers; `src/fuzzing/dialects.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::embed(data));
