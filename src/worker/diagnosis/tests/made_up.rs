//! Random logs: what a hint must never contain.

use proptest::prelude::*;

use super::*;

/// Beginnings of lines that the diagnosis searches for.
fn line_start() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "0.00.01 E ",
        "error: invalid argument: ",
        "error while handling argument \"",
        "error while handling argument \"--x\": ",
        "x: error while loading shared libraries: ",
        "libc.so.6: version `",
        "unknown model architecture: '",
        "llama_model_load: error loading model: check_tensor_dims: tensor ",
        "CUDA error: ",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating ",
        "cudaMalloc failed on device ",
        "failed to allocate CUDA0 buffer of size ",
        "using device CUDA0 - ",
        "CUDA0 KV buffer size = ",
        "projected to use 1 MiB of free device memory vs. ",
        "a.c:7: ",
        "terminate called after throwing an instance of ",
    ])
    .prop_map(str::to_owned)
}

fn random_line() -> impl Strategy<Value = Vec<u8>> {
    let text = "[ -~/'\"`é\\\\]{0,80}( MiB free|/home/ann/x y)?";
    let text_line = (line_start(), text).prop_map(|(begin, rest)| format!("{begin}{rest}").into_bytes());
    prop_oneof![prop::collection::vec(any::<u8>(), 0..600), text_line]
}

/// Lines that contain a client's text, whose words begin with `zq`. No hint of ours contains such a word.
fn line_with_client_text() -> impl Strategy<Value = String> {
    let begin = prop::sample::select(vec![
        "0.1 W srv    operator(): got exception: {\"error\":{\"message\":\"last read: '",
        "parse: error parsing grammar: ",
        "WARNING: JSON schema conversion was incomplete: pattern ",
        "/srv/a.cu:7: GGML_ASSERT(",
        "what():  ",
        "failed to initialize CUDA: ",
        "version `",
        "tensor '",
    ]);
    let begin = prop_oneof![begin.prop_map(str::to_owned), line_start()];
    (begin, line_start(), "(zq[a-z]{4,12}[ :,'0-9.]{1,3}){1,6}").prop_map(|(begin, next, words)| begin + &next + &words)
}

proptest! {
    #[test]
    fn a_hint_about_a_worker_that_has_served_contains_no_client_text(
        lines in prop::collection::vec(line_with_client_text(), 1..8),
        exit in prop_oneof![prop::sample::select(vec![4, 6, 7, 8, 9, 11, 15, 31]).prop_map(Signal), (0..140).prop_map(Code)],
    ) {
        let tail = tail(&lines);
        let hint = diagnose(&Evidence { has_served: true, ..evidence(&tail, exit) }).hint;
        prop_assert!(!hint.contains("zq"), "{hint}");
    }

    #[test]
    fn every_hint_is_short_and_contains_no_path(
        lines in prop::collection::vec(random_line(), 0..12),
        (code, signal) in (prop::option::of(any::<i32>()), prop::option::of(0..70)),
        (is_rpc_server, has_served, in_group) in any::<(bool, bool, bool)>(),
    ) {
        let mut tail = LogTail::default();
        lines.iter().for_each(|line| tail.push(line));
        let memory = if in_group { OomKill::InGroup { limit_mib: Some(u64::MAX) } } else { OomKill::NotKnown };
        let (tail, killed) = (&tail, None);
        let evidence = Evidence { is_rpc_server, code, signal, tail, has_served, killed, memory, lost_peers: &[] };
        let found = diagnose(&evidence);
        let hint = found.hint;
        prop_assert!(!hint.is_empty() && hint.chars().count() <= HINT_LENGTH, "{hint}");
        prop_assert!(!hint.contains(['/', '\\']) && !hint.contains(char::is_control), "{hint}");
    }
}
