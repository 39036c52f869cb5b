//! The cost of an answer with embeddings that is rewritten: 2,048 vectors of 1,024 numbers, as llama-server writes them.
//!
//! `cargo bench --bench embeddings` prints each time beside that of reading the same bytes, which no rewriting can do
//! without. docs/BENCHMARK.md has the figures.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use llamagate::dialect::AnswerId;
use llamagate::dialect::embed::{self, EmbedAnswer, EmbedRequest, WorkerEmbedDialect};
use nix::time::{ClockId, clock_gettime};

const VECTORS: usize = 2_048;
const WIDTH: usize = 1_024;

/// Repetitions of each measurement, of which the median counts.
const ROUNDS: usize = 9;

/// What is asked for, and the members that ask for it.
const ASKED: &[(&str, &str)] = &[
    ("floats", ""),
    ("floats, 512 dimensions", r#","dimensions":512"#),
    ("floats in base64", r#","dimensions":1024,"encoding_format":"base64""#),
    ("int8", r#","output_dtype":"int8""#),
];

fn main() {
    // `cargo test --all-targets` starts benchmarks without `--bench`, only to check that they start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("run it with: cargo bench --bench embeddings");
    }
    let body = answer_of_a_worker();
    let read = median(|| drop(black_box(embed::read_answer(WorkerEmbedDialect::OpenAi, &body, VECTORS).unwrap())));
    let any = median(|| drop(black_box(serde_json::from_slice::<serde_json::Value>(&body).unwrap())));
    println!("{VECTORS} vectors of {WIDTH} numbers, {:.1} MiB", body.len() as f64 / f64::from(1 << 20));
    println!("| | ms | of the time to read them |\n|---|---:|---:|");
    let print = |what: &str, time: Duration| {
        println!("| {what} | {:.0} | {:.2} |", time.as_secs_f64() * 1e3, time.as_secs_f64() / read.as_secs_f64());
    };
    print("read as vectors", read);
    print("read as JSON of any form", any);
    for (what, members) in ASKED {
        let request = request(members);
        print(&format!("rewritten as {what}"), median(|| drop(black_box(rewrite(&request, &body)))));
    }
}

/// Returns the request of a client with these members.
fn request(members: &str) -> EmbedRequest {
    let texts = vec!["a"; VECTORS];
    let body = format!(r#"{{"model":"m","input":{}{members}}}"#, serde_json::to_string(&texts).unwrap());
    embed::parse("/v1/embeddings", body.as_bytes()).unwrap()
}

/// Returns the answer that the client gets for the answer of the worker.
fn rewrite(request: &EmbedRequest, body: &[u8]) -> Vec<u8> {
    let mut read = embed::read_answer(WorkerEmbedDialect::OpenAi, body, VECTORS).unwrap();
    embed::shape(request, None, &mut read.vectors).unwrap();
    let answer = EmbedAnswer { model: "m".to_owned(), vectors: read.vectors, ..EmbedAnswer::default() };
    embed::write(request, &answer, &AnswerId { id: "id".to_owned(), created: 0 })
}

/// Returns an answer as llama-server writes it: each number has the digits of 64 bits.
fn answer_of_a_worker() -> Vec<u8> {
    let mut body =
        String::from(r#"{"model":"m","object":"list","usage":{"prompt_tokens":2048,"total_tokens":2048},"data":["#);
    let mut state = 1_u64;
    for vector in 0..VECTORS {
        body += if vector == 0 { r#"{"embedding":["# } else { r#",{"embedding":["# };
        for at in 0..WIDTH {
            // A linear congruence (Knuth's MMIX) gives numbers that look like those of a model.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = f64::from(((state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5) / 16.0);
            write!(body, "{}{number}", if at == 0 { "" } else { "," }).unwrap();
        }
        write!(body, r#"],"index":{vector},"object":"embedding"}}"#).unwrap();
    }
    body += "]}";
    body.into_bytes()
}

/// Returns the median of the CPU times that this takes, which other programs hardly change.
fn median(mut measured: impl FnMut()) -> Duration {
    let mut time = || {
        let begin = cpu_time();
        measured();
        cpu_time() - begin
    };
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| time()).collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
