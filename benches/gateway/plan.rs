//! What the driver gets and what it returns, as JSON between two processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::traffic::Exchange;

/// One run of the driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) flows: Vec<Flow>,
    /// Time before the window, in milliseconds.
    pub(crate) warmup: u64,
    /// The window: requests that are due in it count, in milliseconds.
    pub(crate) window: u64,
    /// Longest wait for responses after the window, in milliseconds.
    pub(crate) response_timeout: u64,
    /// The process ids of the proxy.
    pub(crate) proxy: Vec<u32>,
    /// The process id of the mock.
    pub(crate) mock: u32,
    pub(crate) expected: Expected,
}

/// What the body of a good response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Expected {
    /// The mock's bytes.
    AsSent,
    /// The mock's bytes, with the request's name of the model.
    Renamed,
    /// Other bytes that have the request's tag.
    Rewritten,
}

/// Requests of one kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) exchange: Exchange,
    /// Connections, each with one request at a time.
    pub(crate) connections: usize,
    /// Requests per second, on a fixed schedule (open loop); 0 = each connection sends after its last response (closed
    /// loop).
    pub(crate) rate: f64,
    /// The bearer token.
    pub(crate) key: Option<String>,
    /// Whether responses other than 200 are expected.
    pub(crate) refusals: bool,
    /// Disconnects in the middle of a stream, after this many frames.
    pub(crate) leave_after: Option<usize>,
    /// Ends the run after this many requests.
    pub(crate) count: Option<u64>,
}

impl Flow {
    pub(crate) fn new(exchange: Exchange, connections: usize, rate: f64) -> Self {
        Self { exchange, connections, rate, key: None, refusals: false, leave_after: None, count: None }
    }
}

/// The result of a plan.
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
    /// CPU time of all other processes in the window, in CPUs.
    pub(crate) other_cpus: f64,
    /// Context switches of the proxy's threads in the window.
    pub(crate) switches: u64,
    /// Largest resident size of the proxy during the run, in KiB.
    pub(crate) rss_peak: u64,
}

/// The result of a flow. Times are in microseconds and count from when a request was due.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Requests that were due in the window.
    pub(crate) intended: u64,
    /// Those answered with 200 and every byte as expected.
    pub(crate) good: u64,
    /// Those answered with another status, by status.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Those abandoned by the driver on purpose.
    pub(crate) left: u64,
    /// Those that failed, by reason.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Good responses that ended within the window; the request may have been due earlier.
    pub(crate) finished: u64,
    /// Refusals that ended within the window.
    pub(crate) finished_refusals: u64,
    /// Frames that arrived within the window.
    pub(crate) frames: u64,
    /// Frames that arrived together with the previous one.
    pub(crate) merged: u64,
    /// Connections that were opened again.
    pub(crate) reconnects: u64,
    /// Time to the last byte of a good response.
    pub(crate) latency: Quantiles,
    /// Time to the first byte of a good response's body.
    pub(crate) first: Quantiles,
    /// Time between two frames.
    pub(crate) gap: Quantiles,
    /// Time to the last byte of a refusal.
    pub(crate) refusal: Quantiles,
    /// How late the driver sent a request, if it had an idle connection.
    pub(crate) late: Quantiles,
}

impl Tally {
    /// Returns the number of failed requests.
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
