//! System calls and context switches of a request, counted by `perf` while the proxy serves requests in a closed loop.
//!
//! The counts show what the CPU time hides: a futex call wakes a thread of the proxy, and a context switch is a wait.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use std::{collections::BTreeMap, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::contenders::Contender;
use crate::contenders::peers;
use crate::plan::Flow;
use crate::report::Report;
use crate::traffic::Exchange;

const PART: &str = "calls";

/// Requests of one count.
const REQUESTS: u64 = 20_000;

/// Time for perf to attach to all threads.
const ATTACHING: Duration = Duration::from_millis(500);

/// The calls that proxies make for requests.
const CALLS: [&str; 13] = [
    "futex",
    "epoll_wait",
    "epoll_pwait",
    "epoll_ctl",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "write",
    "writev",
    "sendto",
    "sendmsg",
    "sched_yield",
];

/// Counts the calls of each proxy with 8 and with 64 connections.
pub(crate) fn measure(contenders: &[Contender], report: &mut Report) {
    println!("{PART}");
    if peers::find("perf").is_none() {
        println!("perf is missing: no system calls are counted");
        return;
    }
    for contender in contenders.iter().filter(|contender| !contender.proxy.is_empty()) {
        for connections in [8, 64] {
            match count(contender, connections) {
                Ok(counts) => note(report, &format!("{}, c={connections}", contender.name), &counts),
                Err(reason) => println!("without the calls of {}: {reason}", contender.name),
            }
        }
    }
}

/// Returns the number of each call in [`REQUESTS`] requests.
fn count(contender: &Contender, connections: usize) -> Result<BTreeMap<String, f64>, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("counts");
    let pids: Vec<String> = contender.proxy.iter().map(u32::to_string).collect();
    let events = CALLS.map(|call| format!("syscalls:sys_enter_{call}")).join(",") + ",context-switches";
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", &events, "-p", &pids.join(","), "-o"]).arg(&file);
    let mut perf = perf.stdin(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    sleep(ATTACHING);
    let mut flow = Flow::new(Exchange::json(256), connections, 0.0);
    flow.count = Some(REQUESTS);
    let outcome = contender.drive(vec![flow], 0, 60_000, 10_000);
    // perf writes its counts when it is interrupted.
    let _ = kill(Pid::from_raw(perf.id() as i32), Signal::SIGINT);
    perf.wait().map_err(|error| error.to_string())?;
    let done = outcome.flows[0].good;
    if done < REQUESTS {
        return Err(format!("only {done} requests were answered"));
    }
    let text = fs::read_to_string(&file).map_err(|error| format!("perf wrote nothing: {error}"))?;
    let counts: BTreeMap<String, f64> = text.lines().filter_map(parse).collect();
    if counts.is_empty() { Err("perf may not count system calls here".to_owned()) } else { Ok(counts) }
}

/// Reads a line `VALUE,UNIT,EVENT,...` of perf.
fn parse(line: &str) -> Option<(String, f64)> {
    let mut cells = line.split(',');
    let value: f64 = cells.next()?.parse().ok()?;
    let event = cells.nth(1)?;
    Some((event.trim_start_matches("syscalls:sys_enter_").to_owned(), value / REQUESTS as f64))
}

fn note(report: &mut Report, who: &str, counts: &BTreeMap<String, f64>) {
    let is_call = |name: &&String| *name != "context-switches";
    let all: f64 = counts.iter().filter(|(name, _)| is_call(name)).map(|(_, count)| count).sum();
    report.note(PART, &format!("{who}: system calls a request"), round(all));
    for name in ["futex", "context-switches"] {
        report.note(PART, &format!("{who}: {name} a request"), round(counts.get(name).copied().unwrap_or(0.0)));
    }
    let text = counts.iter().filter(|(_, count)| **count >= 0.005).map(|(name, count)| format!("{name} {count:.2}"));
    println!("  {who}: {}", text.collect::<Vec<_>>().join(", "));
}

fn round(count: f64) -> f64 {
    (count * 1e3).round() / 1e3
}
