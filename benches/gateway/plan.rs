//! What the driver is told and what it reports, as JSON between two processes.

use super::traffic::Ask;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One run of the driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) flows: Vec<Flow>,
    /// Time before the window, in milliseconds.
    pub(crate) warmup: u64,
    /// The window in which intended sends count, in milliseconds.
    pub(crate) window: u64,
    /// Longest wait for answers after the window, in milliseconds.
    pub(crate) patience: u64,
    /// The proxy's processes.
    pub(crate) proxy: Vec<u32>,
    /// The mock's process.
    pub(crate) mock: u32,
}

/// Requests of one kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) ask: Ask,
    /// Connections, each with one request at a time.
    pub(crate) connections: usize,
    /// Requests a second, whatever becomes of them; 0 = each connection sends when its last answer is there.
    pub(crate) rate: f64,
    /// The bearer token.
    pub(crate) key: Option<String>,
    /// Whether answers other than 200 are what is expected.
    pub(crate) refusals: bool,
    /// Leaves in the middle of a stream, after so many frames.
    pub(crate) leaves_after: Option<usize>,
    /// Ends the run as soon as so many requests have been sent.
    pub(crate) count: Option<u64>,
}

impl Flow {
    pub(crate) fn new(ask: Ask, connections: usize, rate: f64) -> Self {
        Self { ask, connections, rate, key: None, refusals: false, leaves_after: None, count: None }
    }
}

/// What came of a plan.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) flows: Vec<Tally>,
    /// Length of the window, in seconds.
    pub(crate) seconds: f64,
    /// CPU time of the proxy in the window, in seconds.
    pub(crate) proxy_cpu: f64,
    pub(crate) driver_cpu: f64,
    pub(crate) mock_cpu: f64,
    /// Share of all CPU time that the hypervisor took.
    pub(crate) steal: f64,
    /// CPU time of anybody else in the window, in CPUs.
    pub(crate) strangers: f64,
    /// Largest resident size of the proxy during the run, in KiB.
    pub(crate) rss_peak: u64,
}

/// What came of a flow. Times are in microseconds and counted from the intended send.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Requests meant for the window.
    pub(crate) intended: u64,
    /// Of these, answered with 200 and every byte as expected.
    pub(crate) good: u64,
    /// Of these, answered otherwise, by status.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Of these, left by the driver on purpose.
    pub(crate) left: u64,
    /// Of these, gone wrong, by what went wrong.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Good answers that ended within the window, whenever they were asked for.
    pub(crate) finished: u64,
    /// The same for refusals.
    pub(crate) finished_refusals: u64,
    /// Frames that arrived within the window.
    pub(crate) frames: u64,
    /// Frames that came together with the one before.
    pub(crate) merged: u64,
    /// Connections that the server closed after an answer.
    pub(crate) reconnects: u64,
    /// To the last byte of a good answer.
    pub(crate) latency: Quantiles,
    /// To the first byte of a good answer's body.
    pub(crate) first: Quantiles,
    /// Between two frames.
    pub(crate) gap: Quantiles,
    /// To the last byte of a refusal.
    pub(crate) refusal: Quantiles,
    /// How late the driver sent, where it had a connection to send on.
    pub(crate) late: Quantiles,
}

impl Tally {
    /// Requests that went wrong.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// A distribution, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}
