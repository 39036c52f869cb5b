//! The workloads that every contender gets, and the readings of a turn.

use std::collections::BTreeMap;

use super::plan::{Flow, Outcome};
use super::traffic::{DELTAS, Exchange};

/// One kind of traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// The description in the report.
    pub(crate) title: &'static str,
    pub(crate) exchange: Exchange,
    pub(crate) connections: usize,
    /// Requests per second; 0 = as fast as possible.
    pub(crate) rate: f64,
    /// The readings that the report shows.
    pub(crate) shows: &'static [&'static str],
    /// Shortest window, in milliseconds.
    pub(crate) window: u64,
}

const LATENCY: &[&str] = &["p50", "p99", "cpu"];
const STREAM: &[&str] = &["first p50", "first p99", "gap p50", "gap p99", "cpu/frame", "merged"];

/// The time between two frames of a stream, in microseconds.
const PACE: u64 = 20_000;

/// Returns the rate, in streams per second, at which `open` streams are open.
const fn streams(open: usize) -> f64 {
    open as f64 / ((DELTAS as f64 + 2.0) * PACE as f64 / 1e6)
}

const fn json(name: &'static str, title: &'static str, size: usize, connections: usize, rate: f64) -> Workload {
    Workload { name, title, exchange: Exchange::json(size), connections, rate, shows: LATENCY, window: 0 }
}

const fn paced(name: &'static str, title: &'static str, open: usize, connections: usize) -> Workload {
    let (exchange, rate) = (Exchange::stream(PACE), streams(open));
    Workload { name, title, exchange, connections, rate, shows: STREAM, window: 3_000 }
}

/// All workloads.
pub(crate) const ALL: &[Workload] = &[
    json("W1-c1", "256 B, one connection, 500/s", 256, 1, 500.0),
    json("W1-c8", "256 B, 8 connections, 3,000/s", 256, 8, 3_000.0),
    Workload {
        shows: &["rps", "p99", "cpu"],
        ..json("W1-max", "256 B, 32 connections, as fast as possible", 256, 32, 0.0)
    },
    json("W2", "2 KiB each way, 8 connections, 2,000/s", 2048, 8, 2_000.0),
    json("W3", "100 KiB each way, 4 connections, 400/s", 100 * 1024, 4, 400.0),
    json("W4", "1 MiB each way, 2 connections, 40/s", 1024 * 1024, 2, 40.0),
    paced("W5-1", "one stream at a time, a frame every 20 ms", 1, 2),
    paced("W5-32", "32 streams, a frame every 20 ms", 32, 48),
    paced("W5-256", "256 streams, a frame every 20 ms", 256, 320),
    Workload {
        name: "W6",
        title: "streams without a pause, 8 connections, 100/s",
        exchange: Exchange::stream(0),
        connections: 8,
        rate: 100.0,
        shows: &["p50", "p99", "cpu/frame", "merged"],
        window: 0,
    },
];

impl Workload {
    pub(crate) fn flow(&self) -> Flow {
        Flow::new(self.exchange, self.connections, self.rate)
    }
}

/// The readings of one turn of a contender, by name. Times are in microseconds.
pub(crate) type Reading = BTreeMap<String, f64>;

/// Returns the readings of an outcome with one flow.
pub(crate) fn read(outcome: &Outcome) -> Reading {
    let tally = &outcome.flows[0];
    let each = |of: u64| if of == 0 { 0.0 } else { outcome.proxy_cpu * 1e6 / of as f64 };
    let mut reading: Reading = [
        ("p50", tally.latency.p50),
        ("p99", tally.latency.p99),
        ("first p50", tally.first.p50),
        ("first p99", tally.first.p99),
        ("rps", tally.finished as f64 / outcome.seconds),
        ("cpu", each(tally.finished)),
        ("cpu/frame", each(tally.frames)),
        ("merged", if tally.frames == 0 { 0.0 } else { tally.merged as f64 / tally.frames as f64 * 100.0 }),
        ("good", tally.good as f64),
        ("failed", (tally.failures() + tally.refused.values().sum::<u64>()) as f64),
        ("frames", tally.frames as f64),
        ("late p99", tally.late.p99),
        ("proxy load", outcome.proxy_cpu / outcome.seconds),
        ("driver load", outcome.driver_cpu / outcome.seconds),
        ("mock load", outcome.mock_cpu / outcome.seconds),
        ("strangers", outcome.other_cpus),
        ("steal", outcome.steal * 100.0),
        ("rss peak", outcome.rss_peak as f64),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if tally.gap.count > 0 {
        reading.insert("gap p50".to_owned(), tally.gap.p50);
        reading.insert("gap p99".to_owned(), tally.gap.p99);
    }
    reading
}
