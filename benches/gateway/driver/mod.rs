//! The driver: sends requests when they are due, not after the last response (open loop), and measures latency from
//! when they were due.
//!
//! If the server stalls for a second, the requests of that second are sent all the same, and their wait counts. The
//! driver is a separate process, so that it can be pinned to the CPU of the mock and away from the proxy.
//!
//! - `connection.rs`: one connection: writes requests, reads and checks responses

mod connection;

use std::io::Read;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::measure::{self, CpuTimes, Machine};
use crate::plan::{Flow, Outcome, Plan, Quantiles, Tally};
use crate::poller::Poller;
use crate::traffic::DELTAS;
use connection::{Connection, Event};

/// Reads a plan from stdin, runs it, and writes the outcome to stdout.
pub(crate) fn run() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("a plan");
    let plan: Plan = serde_json::from_str(&text).expect("a plan");
    println!("{}", serde_json::to_string(&Driver::new(&plan).run()).expect("an outcome"));
}

struct Driver<'a> {
    plan: &'a Plan,
    poller: Poller,
    connections: Vec<(usize, Connection)>,
    flows: Vec<Progress<'a>>,
    window: (Instant, Instant),
    scratch: Vec<u8>,
    number: u64,
}

struct Progress<'a> {
    flow: &'a Flow,
    start: Instant,
    interval: Duration,
    next: u64,
    idle: Vec<usize>,
    tally: Tally,
    times: Times,
}

struct Times {
    latency: Histogram<u64>,
    first: Histogram<u64>,
    gap: Histogram<u64>,
    refusal: Histogram<u64>,
    late: Histogram<u64>,
}

impl<'a> Driver<'a> {
    fn new(plan: &'a Plan) -> Self {
        let poller = Poller::new();
        let mut connections = Vec::new();
        for (number, flow) in plan.flows.iter().enumerate() {
            for _ in 0..flow.connections {
                let connection = Connection::new(plan.address, &flow.exchange, flow.key.as_deref());
                poller.watch(&connection.socket, connections.len());
                connections.push((number, connection));
            }
        }
        let start = Instant::now() + Duration::from_millis(5);
        let from = start + Duration::from_millis(plan.warmup);
        let flows = plan.flows.iter().enumerate().map(|(number, flow)| Progress {
            flow,
            start,
            interval: if flow.rate > 0.0 { Duration::from_secs_f64(1.0 / flow.rate) } else { Duration::ZERO },
            next: 0,
            idle: (0..connections.len()).rev().filter(|&connection| connections[connection].0 == number).collect(),
            tally: Tally::default(),
            times: Times::new(),
        });
        Self {
            plan,
            poller,
            flows: flows.collect(),
            connections,
            window: (from, from + Duration::from_millis(plan.window)),
            scratch: vec![0; 256 * 1024],
            number: 0,
        }
    }

    fn run(mut self) -> Outcome {
        let (from, to) = self.window;
        let proxy = self.plan.proxy.clone();
        let groups = [proxy.clone(), vec![std::process::id()], vec![self.plan.mock]];
        let account = || (groups.each_ref().map(|pids| CpuTimes::of(pids)), Machine::now(), Instant::now());
        let (mut before, mut after) = (None, None);
        let mut next_rss = Instant::now();
        let mut rss_peak = 0;
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            if before.is_none() && now >= from {
                before = Some(account());
            }
            if after.is_none() && (now >= to || (before.is_some() && self.is_exhausted())) {
                after = Some(account());
            }
            if now >= next_rss {
                rss_peak = rss_peak.max(measure::resident_kib(&proxy));
                next_rss = now + Duration::from_millis(200);
            }
            let due = self.send_due();
            if after.is_some() && (self.is_finished() || now > to + Duration::from_millis(self.plan.response_timeout)) {
                break;
            }
            let boundary = if before.is_none() {
                from
            } else if after.is_none() {
                to
            } else {
                now + Duration::from_millis(50)
            };
            let until = due.map_or(boundary, |due| due.min(boundary)).min(next_rss);
            self.poller.wait(Some(until), &mut ready);
            for &connection in &ready {
                self.handle_ready(connection);
            }
        }
        let ((cpu_before, machine_before, from), (cpu_after, machine_after, to)) = before.zip(after).expect("a window");
        let cpu = |group: usize| cpu_after[group].since(&cpu_before[group]);
        let (steal, busy) = machine_after.since(&machine_before);
        let seconds = (to - from).as_secs_f64();
        let (proxy_cpu, driver_cpu, mock_cpu) = (cpu(0), cpu(1), cpu(2));
        let other_cpus = ((busy - proxy_cpu - driver_cpu - mock_cpu) / seconds).max(0.0);
        let flows = self.finish();
        Outcome { flows, seconds, proxy_cpu, driver_cpu, mock_cpu, steal, other_cpus, rss_peak }
    }

    /// Sends the requests that are due on idle connections; returns when the next one is due.
    fn send_due(&mut self) -> Option<Instant> {
        let mut soonest: Option<Instant> = None;
        for number in 0..self.flows.len() {
            while let Some(&connection) = self.flows[number].idle.last() {
                let now = Instant::now();
                let Some(due) = self.flows[number].due(now, self.window.1) else { break };
                if due > now {
                    soonest = Some(soonest.map_or(due, |soonest| soonest.min(due)));
                    break;
                }
                let progress = &mut self.flows[number];
                progress.idle.pop();
                progress.next += 1;
                if (self.window.0..self.window.1).contains(&due) {
                    progress.tally.intended += 1;
                    record(&mut progress.times.late, now - due);
                }
                self.number += 1;
                self.connections[connection].1.send(due, self.number);
            }
        }
        soonest
    }

    /// Whether all requests that were due have been sent and answered.
    fn is_finished(&self) -> bool {
        let is_all_sent = |progress: &Progress<'_>| progress.due(self.window.1, self.window.1).is_none();
        self.flows.iter().all(is_all_sent)
            && self.connections.iter().all(|(_, connection)| connection.current.is_none())
    }

    /// Whether every flow has a fixed number of requests and all of them are answered.
    fn is_exhausted(&self) -> bool {
        let is_all_sent = |progress: &Progress<'_>| progress.flow.count.is_some_and(|count| progress.next >= count);
        self.flows.iter().all(is_all_sent)
            && self.connections.iter().all(|(_, connection)| connection.current.is_none())
    }

    fn handle_ready(&mut self, number: usize) {
        self.connections[number].1.write();
        while let Some(event) = {
            let connection = &mut self.connections[number].1;
            connection.read(&mut self.scratch)
        } {
            if self.record_event(number, &event) {
                break;
            }
        }
        let (_, connection) = &mut self.connections[number];
        if connection.current.is_none() && connection.must_reconnect() {
            self.reconnect(number);
        }
    }

    /// Records an event; returns whether the connection was replaced.
    fn record_event(&mut self, number: usize, event: &Event) -> bool {
        let now = Instant::now();
        let in_window = now >= self.window.0 && now < self.window.1;
        let (flow, connection) = &mut self.connections[number];
        let Progress { flow, idle, tally, times, .. } = &mut self.flows[*flow];
        let Some(current) = &mut connection.current else {
            *tally.failed.entry("bytes without a request".to_owned()).or_default() += 1;
            return false;
        };
        let intended = current.intended;
        let counts = intended >= self.window.0 && intended < self.window.1;
        match event {
            Event::Frames(0) => return false,
            Event::Frames(frames) => {
                if flow.exchange.stream {
                    if in_window {
                        count_frames(tally, connection.frames, *frames);
                    }
                    if let Some(last) = current.last_frame.replace(now)
                        && counts
                    {
                        record(&mut times.gap, now - last);
                    }
                }
                if flow.leave_after.is_some_and(|frames| connection.frames >= frames) {
                    tally.left += u64::from(counts);
                    self.reconnect(number);
                    mark_idle(&mut self.flows, &self.connections, number);
                    return true;
                }
                return false;
            }
            Event::Answered(200, frames) => {
                tally.finished += u64::from(in_window);
                if flow.exchange.stream && in_window {
                    count_frames(tally, connection.frames, *frames);
                }
                if counts {
                    tally.good += 1;
                    record(&mut times.latency, now - intended);
                    record(&mut times.first, current.first.unwrap_or(now) - intended);
                }
            }
            Event::Answered(status, _) => {
                tally.finished_refusals += u64::from(in_window);
                if counts {
                    *tally.refused.entry(*status).or_default() += 1;
                    record(&mut times.refusal, now - intended);
                }
            }
            Event::Failed(reason) => {
                *tally.failed.entry((*reason).to_owned()).or_default() += 1;
                self.reconnect(number);
                mark_idle(&mut self.flows, &self.connections, number);
                return true;
            }
        }
        connection.current = None;
        idle.push(number);
        false
    }

    fn reconnect(&mut self, number: usize) {
        self.connections[number].1.reconnect();
        self.poller.watch(&self.connections[number].1.socket, number);
    }

    fn finish(mut self) -> Vec<Tally> {
        for (flow, connection) in &self.connections {
            let progress = &mut self.flows[*flow];
            progress.tally.reconnects += connection.reconnects;
            if connection.current.is_some() {
                *progress.tally.failed.entry("unanswered".to_owned()).or_default() += 1;
            }
        }
        let end = self.window.1;
        let finish = |mut progress: Progress<'_>| {
            let mut unsent = 0;
            while progress.flow.rate > 0.0 && progress.due(end, end).is_some() {
                progress.next += 1;
                unsent += 1;
            }
            if unsent > 0 {
                progress.tally.failed.insert("unsent".to_owned(), unsent);
            }
            let Times { latency, first, gap, refusal, late } = &progress.times;
            let tally = &mut progress.tally;
            (tally.latency, tally.first, tally.gap) = (quantiles(latency), quantiles(first), quantiles(gap));
            (tally.refusal, tally.late) = (quantiles(refusal), quantiles(late));
            progress.tally
        };
        self.flows.into_iter().map(finish).collect()
    }
}

impl Progress<'_> {
    /// Returns when the next request is due, or `None` if that is after the end.
    fn due(&self, now: Instant, end: Instant) -> Option<Instant> {
        if self.flow.count.is_some_and(|count| self.next >= count) {
            return None;
        }
        let due = if self.interval.is_zero() { now } else { self.start + self.interval.mul_f64(self.next as f64) };
        (due < end).then_some(due)
    }
}

impl Times {
    fn new() -> Self {
        let new = |digits| Histogram::new_with_bounds(1, 600_000_000_000, digits).expect("bounds");
        // Gaps are long, and differences of a microsecond matter, so they need more digits.
        Self { latency: new(3), first: new(3), gap: new(5), refusal: new(3), late: new(3) }
    }
}

/// Counts `new` frames that arrived together, of a response that has `now` frames by now. The mock sends the last three
/// as one, so these do not count as merged.
fn count_frames(tally: &mut Tally, now: usize, new: usize) {
    let sent_alone = |frames: usize| frames.min(DELTAS);
    let end = usize::from(now > DELTAS && now - new <= DELTAS);
    let apart = sent_alone(now) - sent_alone(now - new) + end;
    tally.frames += new as u64;
    tally.merged += apart.saturating_sub(1) as u64;
}

fn mark_idle(flows: &mut [Progress<'_>], connections: &[(usize, Connection)], number: usize) {
    flows[connections[number].0].idle.push(number);
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(time.as_nanos() as u64);
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
    if histogram.is_empty() {
        return Quantiles::default();
    }
    Quantiles { count: histogram.len(), p50: at(0.5), p99: at(0.99), max: histogram.max() as f64 / 1e3 }
}
