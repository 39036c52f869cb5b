//! Processes and the machine, from /proc, and free ports.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::TcpListener;

/// What the threads of some processes have used so far, by thread: CPU time in nanoseconds, or context switches.
#[derive(Debug, Default)]
pub(crate) struct ThreadCounts(HashMap<u32, u64>);

impl ThreadCounts {
    /// Reads the CPU time from schedstat, which is exact; /proc/PID/stat counts ticks of 10 ms.
    pub(crate) fn of_cpu_time(pids: &[u32]) -> Self {
        Self::read(pids, "schedstat", |text| text.split(' ').next()?.parse().ok())
    }

    /// Reads the context switches: those of threads that wait, and those that the scheduler forces.
    pub(crate) fn of_switches(pids: &[u32]) -> Self {
        let is_count = |line: &&str| line.contains("ctxt_switches");
        let count = |line: &str| line.split_whitespace().next_back()?.parse::<u64>().ok();
        Self::read(pids, "status", |text| Some(text.lines().filter(is_count).filter_map(count).sum()))
    }

    fn read(pids: &[u32], file: &str, count: impl Fn(&str) -> Option<u64>) -> Self {
        let mut counts = HashMap::new();
        for pid in pids {
            for thread in numbers_in(&format!("/proc/{pid}/task")) {
                let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/{file}")).unwrap_or_default();
                counts.insert(thread, count(&text).unwrap_or(0));
            }
        }
        Self(counts)
    }

    /// Returns the sum of what was used since an earlier measurement. A thread that has ended in between is not counted.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let used = |(thread, now): (&u32, &u64)| now.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0));
        self.0.iter().map(used).sum()
    }

    /// Returns the seconds of CPU time since an earlier measurement of it.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> f64 {
        self.since(earlier) as f64 / 1e9
    }
}

/// CPU time of the whole machine so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    busy: f64,
    steal: f64,
    all: f64,
}

impl Machine {
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|ticks| ticks.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks[..] else {
            panic!("/proc/stat begins with {line:?}")
        };
        let busy = user + nice + system + irq + softirq;
        Self { busy: busy / 100.0, steal: steal / 100.0, all: (busy + idle + iowait + steal) / 100.0 }
    }

    /// Returns the share of stolen time since an earlier measurement, and the seconds of CPU time used since then.
    pub(crate) fn since(&self, earlier: &Self) -> (f64, f64) {
        let all = self.all - earlier.all;
        (if all > 0.0 { (self.steal - earlier.steal) / all } else { 0.0 }, self.busy - earlier.busy)
    }
}

/// Returns the resident memory of some processes, in KiB.
pub(crate) fn resident_kib(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        text.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4)
    };
    pids.iter().filter_map(of).sum()
}

/// Begins to measure the largest resident memory of a process.
pub(crate) fn reset_peak(pid: u32) {
    // proc(5): 5 resets VmHWM.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak of an own process can be reset");
}

/// Returns the largest resident memory of a process since [`reset_peak`], in KiB.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Counts how often the threads of a process have woken up after a wait, by the name of the thread.
pub(crate) fn switches_by_name(pid: u32) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for thread in numbers_in(&format!("/proc/{pid}/task")) {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim);
        let count: u64 = field("voluntary_ctxt_switches:").parse().unwrap_or(0);
        *counts.entry(field("Name:").to_owned()).or_default() += count;
    }
    counts
}

/// Counts the open file descriptors of a process.
pub(crate) fn open_files(pid: u32) -> usize {
    numbers_in(&format!("/proc/{pid}/fd")).len()
}

/// Counts the threads of a process.
pub(crate) fn threads(pid: u32) -> usize {
    numbers_in(&format!("/proc/{pid}/task")).len()
}

/// Returns the children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in numbers_in(&format!("/proc/{pid}/task")) {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

/// Describes the machine: processor, CPUs, memory, kernel.
pub(crate) fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024;
    format!("{}, {cpus} CPUs, {memory} MiB, Linux {}", field("/proc/cpuinfo", "model name"), kernel.trim())
}

/// Returns a port of the loopback interface that nothing listens on at this moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn numbers_in(folder: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
