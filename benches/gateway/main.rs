//! The benchmark: what the gateway costs, beside a direct connection, nginx and HAProxy. docs/BENCHMARK.md has the method.
//!
//! This one program plays every part but the proxies: it is started again as the mock llama-server (the gateway starts
//! it so, by `--port`), as the driver that sends the requests, and as the step that pins a program to a CPU.

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "the benchmark reads /proc and pins processes to CPUs")
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark starts processes, reads what it was given, and says what is wrong by panicking"
)]

#[cfg(target_os = "linux")]
#[path = "../../tests/support/model_file.rs"]
#[allow(dead_code, reason = "the benchmark needs one kind of model")]
mod model_file;

#[cfg(target_os = "linux")]
mod contenders;
#[cfg(target_os = "linux")]
mod driver;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod mock;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod parts;
#[cfg(target_os = "linux")]
mod pinned;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod poller;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod rounds;
#[cfg(target_os = "linux")]
mod statistics;
#[cfg(target_os = "linux")]
mod targets;
#[cfg(target_os = "linux")]
mod traffic;
#[cfg(target_os = "linux")]
mod workloads;

#[cfg(target_os = "linux")]
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("driver") => driver::play(),
        Some("pinned") => pinned::play(&arguments[2..]),
        _ if arguments.iter().any(|argument| argument == "--port") => mock::play(&arguments[1..]),
        // `cargo test --all-targets` starts benchmarks without `--bench`, and wants to see that they start.
        _ if arguments.iter().any(|argument| argument == "--bench") => rounds::play(),
        _ => println!("run it with: cargo bench --bench gateway"),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the benchmark runs on Linux only");
}
