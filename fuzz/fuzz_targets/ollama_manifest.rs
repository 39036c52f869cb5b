//! Fuzzes names and manifests of Ollama's store; `src/fuzzing/stores.rs` has the invariants.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::ollama_manifest(data));
