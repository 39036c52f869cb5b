//! The benchmark: the overhead of the gateway, compared with a direct connection, nginx and HAProxy. docs/BENCHMARK.md
//! describes the method.
//!
//! Except for the proxies, all processes are this program: it starts itself again as the driver that sends requests and
//! to pin a program to a CPU, and the gateway starts it as the mock llama-server (with `--port`).
//!
//! - `contenders/`: the mock, and the proxies in front of it
//! - `driver/`: sends requests and measures responses
//! - `measure.rs`: CPU time, memory and ports, as the kernel reports them
//! - `mock.rs`: the mock llama-server
//! - `options.rs`: the command line
//! - `parts/`: measurements beside the workloads
//! - `pinned.rs`: pins processes to CPUs
//! - `plan.rs`: what the driver gets and returns
//! - `poller.rs`: waits for sockets and for the clock
//! - `report/`: tables and JSON
//! - `rounds.rs`: the order of the measurements
//! - `statistics.rs`: median and quartiles
//! - `targets.rs`: the limits that the gateway must keep
//! - `traffic.rs`: the bytes of requests and responses
//! - `workloads.rs`: the kinds of traffic

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "the benchmark reads /proc and pins processes to CPUs")
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark starts processes, reads its environment and fails by panicking"
)]

#[cfg(target_os = "linux")]
#[path = "../../tests/support/model_file.rs"]
#[allow(dead_code, reason = "the benchmark uses one kind of model")]
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
        Some("driver") => driver::run(),
        Some("pinned") => pinned::run(&arguments[2..]),
        _ if arguments.iter().any(|argument| argument == "--port") => mock::run(&arguments[1..]),
        // `cargo test --all-targets` starts benchmarks without `--bench`, only to check that they start.
        _ if arguments.iter().any(|argument| argument == "--bench") => rounds::run(),
        _ => println!("run it with: cargo bench --bench gateway"),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the benchmark runs on Linux only");
}
