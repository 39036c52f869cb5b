//! Fuzzes requests for scores, and answers of rerankers; `src/fuzzing/dialects.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::rerank(data));
