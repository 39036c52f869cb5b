//! The targets of the gateway, and whether this run met them. All are ratios or differences within one run.

use serde_json::{Value, json};

use super::report::Report;

/// A limit for one figure.
pub(crate) struct Target {
    what: &'static str,
    limit: f64,
    /// Whether the limit is a minimum; else it is a maximum.
    at_least: bool,
    found: Option<f64>,
}

impl Target {
    fn verdict(&self) -> &'static str {
        match self.found {
            None => "not measured",
            Some(found) if (found >= self.limit) == self.at_least || found == self.limit => "pass",
            Some(_) => "MISS",
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "what": self.what, "limit": self.limit, "found": self.found, "verdict": self.verdict() })
    }

    fn row(&self) -> String {
        let found = self.found.map_or_else(|| "-".to_owned(), |found| format!("{found:.2}"));
        let sign = if self.at_least { ">=" } else { "<=" };
        format!("| {} | {sign} {} | {found} | {} |", self.what, self.limit, self.verdict())
    }
}

/// Prints the table of targets, if any of them was measured.
pub(crate) fn print(report: &Report) {
    let targets = all(report);
    if targets.iter().all(|target| target.found.is_none()) {
        return;
    }
    println!("\n### Targets\n\n| | target | found | |\n|---|---:|---:|---|");
    for target in targets {
        println!("{}", target.row());
    }
}

/// Returns all targets.
pub(crate) fn all(report: &Report) -> Vec<Target> {
    let most = |what, limit, found| Target { what, limit, at_least: false, found };
    let ratio = |workload, to, name| report.ratio(workload, "on", to, name).map(|spread| spread.median);
    let added = |workload, to, name| report.added(workload, "on", to, name).map(|spread| spread.median);
    let has = |workload| report.value(workload, "on", "good").is_some();
    let failed = |workload| has(workload).then(|| report.sum(workload, "on", "failed"));
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    vec![
        most("CPU per request, closed loop, c=8, times nginx", 1.3, ratio("closed-8", "nginx", "cpu")),
        most("CPU per request, closed loop, c=64, times nginx", 1.3, ratio("closed-64", "nginx", "cpu")),
        most("CPU per request, renamed answer, times nginx", 1.5, ratio("renamed", "nginx", "cpu")),
        most("CPU per frame of a stream, times nginx", 1.3, ratio("frames", "nginx", "cpu/frame")),
        most("first byte of a stream, more than nginx, p50, µs", 50.0, added("first-byte", "nginx", "first p50")),
        most("features on instead of off: more CPU, c=8, %", 5.0, ratio("closed-8", "off", "cpu").map(percent)),
        most("features on instead of off: more CPU, c=64, %", 5.0, ratio("closed-64", "off", "cpu").map(percent)),
        most("features on instead of off: more latency, p50, µs", 5.0, added("W1-c1", "off", "p50")),
        most("first byte of a stream, more than nginx, p99, µs", 250.0, added("first-byte", "nginx", "first p99")),
        Target {
            what: "requests/s on one core, c=64, times nginx",
            limit: 0.75,
            at_least: true,
            found: ratio("closed-64", "nginx", "rps"),
        },
        most("failures at full load", 0.0, failed("closed-64")),
        most("failures with 256 streams", 0.0, failed("W5-256")),
        most("gap between frames, 256 streams, added, p50, µs", 2.0, added("W5-256", "direct", "gap p50")),
        most(
            "200 models instead of one, asked for by id: more CPU, µs",
            2.0,
            report.fact("W11 models", "added, 200 models, by id, µs"),
        ),
        most(
            "200 models instead of one, asked for by alias: more CPU, µs",
            2.0,
            report.fact("W11 models", "added, 200 models, by alias, µs"),
        ),
        most("200 models, idle: CPU, % of one", 0.1, report.fact("idle", "200 models: CPU, % of one")),
        most("memory, idle, MiB", 8.0, report.fact("memory", "idle, MiB")),
        most("memory, 32 in flight, MiB", 22.0, report.fact("memory", "32 in flight, MiB")),
        most("memory for each of 256 open streams, KiB", 20.0, report.fact("memory", "each of 256 open streams, KiB")),
        most(
            "memory for each of 4,096 open streams, KiB",
            20.0,
            report.fact("memory", "each of 4096 open streams, KiB"),
        ),
        most("failures with 4,096 streams", 0.0, report.fact("memory", "failures, 4096 streams")),
        most(
            "memory of a request of 10 MiB, times its size",
            1.2,
            report.fact("memory", "a request of 10 MiB, times its size"),
        ),
        most("200 models, idle: memory, MiB", 8.0, report.fact("idle", "200 models: resident, MiB")),
        most("process start to /ping, ms", 20.0, report.fact("start", "mock: process start to /ping, ms")),
        most(
            "first answer, more than llama-server alone, ms",
            10.0,
            report.fact("start", "mock: first answer, more than llama-server alone, ms"),
        ),
        most("futex calls of a request, c=8", 0.05, report.fact("calls", "on, c=8: futex a request")),
        most("futex calls of a request, c=64", 0.05, report.fact("calls", "on, c=64: futex a request")),
        Target {
            what: "requests for each CPU second, two cores, times one core",
            limit: 1.8,
            at_least: true,
            found: report.fact("cores", "requests for each CPU second on two cores, times those of one, times 2"),
        },
        most("instructions of a request", 60_000.0, report.fact("instructions", "request")),
        most("instructions of a frame", 3_000.0, report.fact("instructions", "frame of a stream")),
        most("instructions of a 401", 25_000.0, report.fact("instructions", "401")),
        most("instructions of a 429", 25_000.0, report.fact("instructions", "429")),
        most("CPU of a 401, at 2,000/s, µs", 20.0, report.fact("W8 floods", "CPU of a 401, µs")),
        most("CPU of a 401, at full load, µs", 20.0, report.fact("W8 floods", "CPU of a 401 at full load, µs")),
        most("CPU of a 429, at 2,000/s, µs", 20.0, report.fact("W8 floods", "CPU of a 429, µs")),
        most("CPU of a 429, at full load, µs", 20.0, report.fact("W8 floods", "CPU of a 429 at full load, µs")),
        most("401 flood: good requests' p99 moves by, %", 20.0, report.fact("W8 floods", "401 flood moves p99 by, %")),
        most("429 flood: good requests' p99 moves by, %", 20.0, report.fact("W8 floods", "429 flood moves p99 by, %")),
    ]
}
