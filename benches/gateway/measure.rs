//! Processes and the machine, from /proc, and free ports.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;

/// CPU time that the threads of some processes have used so far, in nanoseconds by thread.
///
/// It comes from schedstat, which is exact; /proc/PID/stat counts ticks of 10 ms.
#[derive(Debug, Default)]
pub(crate) struct CpuTimes(HashMap<u32, u64>);

impl CpuTimes {
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut times = HashMap::new();
        for pid in pids {
            for thread in numbers_in(&format!("/proc/{pid}/task")) {
                let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap_or_default();
                times.insert(thread, text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0));
            }
        }
        Self(times)
    }

    /// Returns the seconds used since an earlier measurement. A thread that has ended in between is not counted.
    pub(crate) fn since(&self, earlier: &Self) -> f64 {
        let used = |(thread, now): (&u32, &u64)| now.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0));
        self.0.iter().map(used).sum::<u64>() as f64 / 1e9
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
