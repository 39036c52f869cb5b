//! The driver: sends requests when they are due, not after the last response (open loop), and measures latency from
//! when they were due.
//!
//! If the server stalls for a second, the requests of that second are sent all the same, and their wait counts. The
//! driver is a separate process, so that it can be pinned to the CPU of the mock and away from the proxy.
//!
//! - `connection.rs`: one connection: writes requests, reads and checks responses
//! - `progress.rs`: one flow: what is due, and what its responses were like

mod connection;
mod progress;

use std::io::Read;
use std::time::{Duration, Instant};

use crate::measure::{self, Machine, ThreadCounts};
use crate::plan::{Outcome, Plan, Tally};
use crate::poller::Poller;
use connection::{Connection, Event};
use progress::{Progress, count_frames, record};

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

/// What the processes have used by a point in time.
struct Account {
    /// CPU time of the proxy, of the driver and of the mock.
    cpu: [ThreadCounts; 3],
    /// Context switches of the proxy.
    switches: ThreadCounts,
    machine: Machine,
    time: Instant,
}

impl Account {
    /// Reads what the proxy, the driver and the mock have used.
    fn of(groups: &[Vec<u32>; 3]) -> Self {
        Self {
            cpu: groups.each_ref().map(|pids| ThreadCounts::of_cpu_time(pids)),
            switches: ThreadCounts::of_switches(&groups[0]),
            machine: Machine::now(),
            time: Instant::now(),
        }
    }

    /// Returns what was used since an earlier point in time, without what the responses were like.
    fn since(&self, earlier: &Self) -> Outcome {
        let [proxy_cpu, driver_cpu, mock_cpu] =
            [0, 1, 2].map(|group| self.cpu[group].seconds_since(&earlier.cpu[group]));
        let (steal, busy) = self.machine.since(&earlier.machine);
        let seconds = (self.time - earlier.time).as_secs_f64();
        let other_cpus = ((busy - proxy_cpu - driver_cpu - mock_cpu) / seconds).max(0.0);
        let switches = self.switches.since(&earlier.switches);
        Outcome { seconds, proxy_cpu, driver_cpu, mock_cpu, steal, other_cpus, switches, ..Outcome::default() }
    }
}

impl<'a> Driver<'a> {
    fn new(plan: &'a Plan) -> Self {
        let poller = Poller::new();
        let mut connections = Vec::new();
        for (number, flow) in plan.flows.iter().enumerate() {
            for _ in 0..flow.connections {
                let connection = Connection::new(plan.address, flow, plan.expected);
                poller.watch(&connection.socket, connections.len());
                connections.push((number, connection));
            }
        }
        let start = Instant::now() + Duration::from_millis(5);
        let from = start + Duration::from_millis(plan.warmup);
        let of_flow = |number: usize| {
            let all = (0..connections.len()).rev();
            all.filter(|&connection| connections[connection].0 == number).collect::<Vec<usize>>()
        };
        let flows: Vec<_> =
            plan.flows.iter().enumerate().map(|(number, flow)| Progress::new(flow, start, of_flow(number))).collect();
        Self {
            plan,
            poller,
            flows,
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
        let account = || Account::of(&groups);
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
        let (before, after) = before.zip(after).expect("a window");
        Outcome { flows: self.finish(), rss_peak, ..after.since(&before) }
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
        self.flows.into_iter().map(|progress| progress.finish(end)).collect()
    }
}

fn mark_idle(flows: &mut [Progress<'_>], connections: &[(usize, Connection)], number: usize) {
    flows[connections[number].0].idle.push(number);
}
