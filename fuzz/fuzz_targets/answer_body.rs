//! The model's name in an answer; what must hold is written in `src/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llamagate::fuzzing::answer_body(data));
