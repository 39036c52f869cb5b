//! The estimate of the memory that a model needs, compared with the buffers of the real llama-server.

use std::{path::Path, process::Command};

use super::support::{
    gateway::{real_llama_server, smollm, test_models},
    process::Process,
};
use llamagate::models::{check_readable, estimate};

/// Returns the size in bytes of the buffers that llama-server logs.
fn taken(file: &Path, context: u64, slots: u64, arguments: &[&str]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(real_llama_server());
    command.arg("-m").arg(file).args(["--host", "127.0.0.1", "--port", "0", "-ngl", "0", "-t", "1"]);
    command.args(["-c", &context.to_string(), "-np", &slots.to_string(), "--verbosity", "4", "--offline"]);
    let mut server = Process::start("llama-server", command.args(arguments), folder.path());
    server.wait_for_line("model loaded");
    let output = server.output();
    // For example "load_tensors:   CPU_Mapped model buffer size =    92.10 MiB"
    let sizes = output.lines().filter_map(|line| line.split_once("buffer size =")?.1.trim().strip_suffix(" MiB"));
    let sizes: Vec<f64> = sizes.map(|size| size.trim().parse().unwrap()).collect();
    assert!(sizes.len() >= 2, "llama-server logs its buffers:\n{output}");
    (sizes.iter().sum::<f64>() * 1024.0 * 1024.0) as u64
}

fn estimated(file: &Path, context: u64, slots: u64) -> u64 {
    let model = check_readable(file).unwrap();
    estimate(&model.metadata, model.size_bytes, context, slots)
}

#[test]
fn the_estimate_for_a_small_model_is_close() {
    for (context, slots) in [(1024, 1), (8192, 2)] {
        let (taken, estimated) = (taken(&smollm(), context, slots, &[]), estimated(&smollm(), context, slots));
        assert!(estimated >= taken && estimated <= 4 * taken, "{context}: {estimated} for {taken}");
    }
}

#[test]
fn the_estimate_for_a_tiny_model_is_never_too_low() {
    for (name, arguments) in [
        ("tiny-chat.gguf", &[][..]),
        ("tiny-embedding.gguf", &["--embedding", "-b", "512", "-ub", "512"]),
        ("tiny-rerank.gguf", &["--reranking", "-b", "512", "-ub", "512"]),
        ("tiny-qwen3-reranker.gguf", &[]),
    ] {
        let file = test_models().join(name);
        let (taken, estimated) = (taken(&file, 1024, 2, arguments), estimated(&file, 1024, 2));
        assert!(estimated >= taken && estimated >= file.metadata().unwrap().len(), "{name}: {estimated} for {taken}");
    }
}
