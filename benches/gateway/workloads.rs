//! The workloads that every contender gets, and the readings of a turn.

use std::collections::BTreeMap;

use super::plan::{Flow, Outcome, Quantiles};
use super::traffic::{DELTAS, Exchange, ModelName};

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
    /// Whether it belongs to the headline, `--only headline`.
    pub(crate) is_headline: bool,
}

const LATENCY: &[&str] = &["p50", "p99", "cpu"];
const CLOSED: &[&str] = &["cpu ratio", "rps ratio", "cpu", "rps", "p50", "p99", "switches"];
const STREAM: &[&str] = &["first p50", "first p99", "gap p50", "gap p99", "cpu/frame", "merged"];

/// The time between two frames of a stream, in microseconds.
const PACE: u64 = 20_000;

/// The same for one stream after another: no CPU sleeps deeply in this time.
const SHORT_PACE: u64 = 200;

/// Returns the rate, in streams per second, at which `open` streams are open.
const fn streams(open: usize) -> f64 {
    open as f64 / ((DELTAS as f64 + 2.0) * PACE as f64 / 1e6)
}

const fn json(name: &'static str, title: &'static str, size: usize, connections: usize, rate: f64) -> Workload {
    let (exchange, shows) = (Exchange::json(size), LATENCY);
    Workload { name, title, exchange, connections, rate, shows, window: 0, is_headline: false }
}

/// Returns a workload in which each connection sends after its last response.
const fn closed(name: &'static str, title: &'static str, exchange: Exchange, connections: usize) -> Workload {
    Workload { name, title, exchange, connections, rate: 0.0, shows: CLOSED, window: 0, is_headline: true }
}

const fn paced(name: &'static str, title: &'static str, open: usize, connections: usize) -> Workload {
    let (exchange, rate) = (Exchange::stream(PACE), streams(open));
    Workload { name, title, exchange, connections, rate, shows: STREAM, window: 3_000, is_headline: false }
}

/// All workloads.
pub(crate) const ALL: &[Workload] = &[
    closed("closed-8", "256 B each way, 8 connections, each sends after its last response", Exchange::json(256), 8),
    closed("closed-64", "256 B each way, 64 connections, each sends after its last response", Exchange::json(256), 64),
    closed(
        "renamed",
        "as closed-8, asked for by an alias: the gateway replaces the model's name in the answer",
        Exchange { model: ModelName::Alias(0), ..Exchange::json(256) },
        8,
    ),
    Workload {
        shows: &["cpu/frame ratio", "cpu/frame", "fps", "p50", "merged"],
        ..closed("frames", "streams without a pause, 8 connections, one after the other", Exchange::stream(0), 8)
    },
    Workload {
        shows: &["first p50 over nginx", "first p99 over nginx", "first p50", "first p99"],
        ..closed("first-byte", "one stream after the other, a frame every 0.2 ms", Exchange::stream(SHORT_PACE), 1)
    },
    json("W1-c1", "256 B, one connection, 500/s", 256, 1, 500.0),
    json("W1-c8", "256 B, 8 connections, 3,000/s", 256, 8, 3_000.0),
    json("W2", "2 KiB each way, 8 connections, 2,000/s", 2048, 8, 2_000.0),
    json("W3", "100 KiB each way, 4 connections, 400/s", 100 * 1024, 4, 400.0),
    json("W4", "1 MiB each way, 2 connections, 40/s", 1024 * 1024, 2, 40.0),
    paced("W5-1", "one stream at a time, a frame every 20 ms", 1, 2),
    paced("W5-32", "32 streams, a frame every 20 ms", 32, 48),
    paced("W5-256", "256 streams, a frame every 20 ms", 256, 320),
];

impl Workload {
    pub(crate) fn flow(&self) -> Flow {
        Flow::new(self.exchange, self.connections, self.rate)
    }
}

/// The readings of one turn of a contender, by name. Times are in microseconds.
pub(crate) type Reading = BTreeMap<String, f64>;

/// Returns the readings of an outcome with one flow. A figure for each request or frame is missing if there was none.
pub(crate) fn read(outcome: &Outcome) -> Reading {
    let tally = &outcome.flows[0];
    let each = |sum: f64, of: u64| if of == 0 { f64::NAN } else { sum / of as f64 };
    let of = |all: &Quantiles, one: f64| if all.count == 0 { f64::NAN } else { one };
    let reading: Reading = [
        ("p50", of(&tally.latency, tally.latency.p50)),
        ("p99", of(&tally.latency, tally.latency.p99)),
        ("first p50", of(&tally.first, tally.first.p50)),
        ("first p99", of(&tally.first, tally.first.p99)),
        ("rps", tally.finished as f64 / outcome.seconds),
        ("fps", tally.frames as f64 / outcome.seconds),
        ("cpu", each(outcome.proxy_cpu * 1e6, tally.finished)),
        ("switches", each(outcome.switches as f64, tally.finished)),
        ("cpu/frame", each(outcome.proxy_cpu * 1e6, tally.frames)),
        ("merged", each(tally.merged as f64 * 100.0, tally.frames)),
        ("gap p50", of(&tally.gap, tally.gap.p50)),
        ("gap p99", of(&tally.gap, tally.gap.p99)),
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
    reading.into_iter().filter(|(_, value)| value.is_finite()).collect()
}
