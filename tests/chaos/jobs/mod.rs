//! The lane with jobs of RunPod's queue: the platform answers with errors, slowly or not at all, hands out jobs twice and
//! cancels some, while llama-server is killed, suspended and hangs. Each job that was taken is answered once.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    checks::jobs::{check_results, find_unanswered},
    random::Random,
    rounds::{FaultLane, Rounds},
    setup::{LOAD_TIMEOUT, QUEUE_TIMEOUT, REQUEST_TIMEOUT, STREAM_IDLE_TIMEOUT, set_times},
    shared::IDLE_POLL,
    support::{
        gateway::Gateway,
        resources,
        runpod::{Platform, Route, ScriptedResponse},
        wait,
    },
    test_gateway::{send_signal, worker_pids},
};
use llamagate::runpod::bounds::PLATFORM_BACKOFF_FIRST;

/// MAX_CONCURRENT_REQUESTS.
const SLOTS: usize = 3;
/// Jobs that wait at the platform while faults happen.
const WAITING_JOBS: usize = 4;
/// DRAIN_TIMEOUT.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest that the answers to all jobs may take after the last fault: the last attempts to post a result are half a
/// minute apart.
const ANSWERED: Duration = Duration::from_secs(40);

/// A fault.
#[derive(Debug, Clone)]
enum JobFault {
    /// The platform answers the next calls of a route with this status.
    Status(Route, u16, u64),
    /// The platform hands out something that is no job.
    NoJson,
    /// The platform does not answer a route for a while.
    Hold(Route, Duration),
    /// The platform closes the connections of a route for a while.
    Drop(Route, Duration),
    /// The platform hands out a job again, which may be in flight.
    Repeat(u64),
    /// Callers cancel jobs.
    Cancel(u64),
    /// Many jobs at once.
    Burst(u64),
    Kill(Signal),
    Suspend(Duration),
    SuspendAll(Duration),
    /// llama-server is killed, and its next starts follow a script of the fake.
    NextStarts(Value),
}

/// The action that ends a lasting fault.
enum JobRepair {
    Release(Route),
    Restore(Route),
    Resume(u32),
}

/// The state of the lane.
struct JobLane {
    platform: Platform,
    gateway: Gateway,
    random: Random,
    /// Jobs offered so far.
    offered: Vec<Value>,
    cancelled: BTreeSet<String>,
    repairs: Vec<(Instant, JobRepair)>,
    notes: BTreeMap<&'static str, usize>,
}

/// Runs the lane. Returns what happened, for the report.
///
/// # Errors
///
/// What is wrong, with the end of the gateway's log.
pub(crate) fn run(random: Random, count: usize) -> Result<String, String> {
    let mut lane = JobLane::start(random);
    let outcome = lane.run(count);
    outcome.map_err(|problem| {
        let output = lane.gateway.output();
        let lines: Vec<&str> = output.lines().collect();
        format!("{problem}\nthe last lines of its log:\n{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
    })
}

/// Lines of the gateway's log that are shown with a failure.
const LAST_LINES: usize = 80;

fn draw(random: &mut Random) -> JobFault {
    let time = Duration::from_millis(random.between(20, 900));
    let route = *random.pick(&[
        Route::Take,
        Route::TakeBatch,
        Route::Done,
        Route::Done,
        Route::Stream,
        Route::Stop,
        Route::Ping,
    ]);
    match random.below(30) {
        0..5 => JobFault::Status(route, *random.pick(&[500, 502, 503, 504]), random.between(1, 2)),
        5 => JobFault::NoJson,
        6..9 => JobFault::Hold(route, time),
        9..13 => JobFault::Drop(route, time),
        13..16 => JobFault::Repeat(random.next()),
        16..20 => JobFault::Cancel(random.between(1, 3)),
        20..22 => JobFault::Burst(random.between(4, 12)),
        22..25 => JobFault::Kill(*random.pick(&[Signal::SIGKILL, Signal::SIGSEGV])),
        25 => JobFault::Suspend(time),
        26 => JobFault::SuspendAll(Duration::from_millis(random.between(20, 300))),
        _ => JobFault::NextStarts(match random.below(4) {
            0 => json!({"drip": {"interval_ms": random.between(5, 200)}}),
            1 => json!({"exit_mid_stream": {"after_frames": random.below(6), "code": 1}}),
            2 => json!({"load_ms": random.between(100, 800)}),
            _ => json!({"exit_while_loading": {"code": 1, "stderr": [""]}}),
        }),
    }
}

/// After each round no more jobs come until all are answered.
impl FaultLane for JobLane {
    type Fault = JobFault;
    const ROUND: usize = 8;

    fn apply(&mut self, fault: JobFault) -> Result<(), String> {
        match fault {
            JobFault::Status(route, status, times) => {
                let response = ScriptedResponse::status(status);
                self.platform.script_responses(route, (0..times).map(|_| response.clone()));
            }
            JobFault::NoJson => {
                let route = *self.random.pick(&[Route::Take, Route::TakeBatch, Route::Stop]);
                let response = ScriptedResponse { status: 200, content_type: "text/html", body: "<html>".to_owned() };
                self.platform.script_responses(route, [response]);
            }
            JobFault::Hold(route, time) => {
                self.platform.hold(route);
                self.repair_after(time, JobRepair::Release(route));
            }
            JobFault::Drop(route, time) => {
                self.platform.drop_calls(route);
                self.repair_after(time, JobRepair::Restore(route));
            }
            JobFault::Repeat(which) => {
                let recent = &self.offered[self.offered.len().saturating_sub(SLOTS * 2)..];
                if !recent.is_empty() {
                    self.platform.offer([recent[which as usize % recent.len()].clone()]);
                    self.note("repeated", 1);
                }
            }
            JobFault::Cancel(count) => {
                let recent = &self.offered[self.offered.len().saturating_sub(count as usize)..];
                let ids: Vec<String> = recent.iter().filter_map(|job| job["id"].as_str()).map(str::to_owned).collect();
                let stopped: Vec<Value> = ids.iter().map(|id| json!(id)).collect();
                self.platform.stop(&stopped);
                self.cancelled.extend(ids);
            }
            JobFault::Burst(count) => (0..count).for_each(|_| self.offer_job()),
            JobFault::Kill(signal) => self.signal_worker(signal),
            JobFault::Suspend(time) => {
                if let Some(pid) = self.worker_pid() {
                    send_signal(pid, Signal::SIGSTOP);
                    self.repair_after(time, JobRepair::Resume(pid));
                }
            }
            JobFault::SuspendAll(time) => {
                let gateway = self.gateway.pid();
                send_signal(gateway, Signal::SIGSTOP);
                let begin = Instant::now();
                while !resources::is_stopped(gateway) && begin.elapsed() < wait::SOON {
                    thread::sleep(IDLE_POLL);
                }
                let children = self.gateway.child_pids();
                children.iter().for_each(|pid| send_signal(*pid, Signal::SIGSTOP));
                thread::sleep(time);
                children.into_iter().chain([gateway]).for_each(|pid| send_signal(pid, Signal::SIGCONT));
            }
            JobFault::NextStarts(script) => {
                self.gateway.model().rewrite_script(&script);
                self.signal_worker(Signal::SIGKILL);
            }
        }
        Ok(())
    }

    /// Offers jobs for `time`, so that some always wait, and ends the faults that become due to end.
    fn pause(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.repair(Some(Instant::now()));
            if self.platform.waiting_jobs() < WAITING_JOBS {
                self.offer_job();
            }
            thread::sleep(IDLE_POLL * 2);
        }
    }

    /// Ends all faults, and waits until all jobs are answered. Returns how long that took.
    fn check_round(&mut self) -> Result<Duration, String> {
        self.repair(None);
        self.gateway.model().rewrite_script(&json!({}));
        self.signal_worker(Signal::SIGKILL);
        let begin = Instant::now();
        loop {
            let problem = match self.check_answers() {
                Ok(()) if self.platform.waiting_jobs() > 0 => {
                    format!("{} jobs are not taken", self.platform.waiting_jobs())
                }
                Ok(()) => {
                    // A job that was handed out twice, or was cancelled, may still be in flight.
                    let queue = self.gateway.health().get("/health").json()["queue"].clone();
                    if (queue["active"].as_u64(), queue["waiting"].as_u64()) == (Some(0), Some(0)) {
                        break;
                    }
                    format!("something is still in flight: {queue}")
                }
                Err(problem) => problem,
            };
            if begin.elapsed() > wait::patient(ANSWERED) {
                return Err(problem);
            }
            thread::sleep(wait::POLL);
        }
        Ok(begin.elapsed())
    }

    fn gateway_pid(&self) -> u32 {
        self.gateway.pid()
    }
}

impl JobLane {
    fn start(random: Random) -> Self {
        let platform = Platform::start();
        platform.forget_calls();
        let builder = platform
            .variables()
            .into_iter()
            .fold(Gateway::builder(), |builder, (name, value)| builder.set(name, value));
        let builder = builder.set_all(&[
            ("RESTART_LIMIT", "1000000"),
            ("RESTART_WINDOW", "1s"),
            ("HANG_TIMEOUT", "1s"),
            ("LOG_KEEP", "3"),
        ]);
        let builder = set_times(
            builder,
            &[
                ("LOAD_TIMEOUT", LOAD_TIMEOUT),
                ("QUEUE_TIMEOUT", QUEUE_TIMEOUT),
                ("REQUEST_TIMEOUT", REQUEST_TIMEOUT),
                ("STREAM_IDLE_TIMEOUT", STREAM_IDLE_TIMEOUT),
                ("DRAIN_TIMEOUT", DRAIN_TIMEOUT),
            ],
        );
        let gateway = builder.set("MAX_CONCURRENT_REQUESTS", SLOTS).start_ready();
        let (offered, cancelled, repairs, notes) = (Vec::new(), BTreeSet::new(), Vec::new(), BTreeMap::new());
        Self { platform, gateway, random, offered, cancelled, repairs, notes }
    }

    fn run(&mut self, count: usize) -> Result<String, String> {
        let steps: Vec<(JobFault, Duration)> =
            (0..count).map(|_| (draw(&mut self.random), Duration::from_millis(self.random.below(500)))).collect();
        let longest = Rounds::run(self, steps)?.longest_recovery;
        self.check_stop()?;
        let results = self.platform.results();
        let errors = results.values().filter(|(_, result)| result["error"].is_string()).count();
        if errors == results.len() {
            return Err("the run proves nothing, because no job was served".to_owned());
        }
        Ok(format!(
            "{} jobs answered, {errors} of them with an error, {} cancelled; all answered {longest:.1?} after the last fault at most\n  {:?}",
            results.len(),
            self.cancelled.len(),
            self.notes
        ))
    }

    fn apply_repair(&self, repair: &JobRepair) {
        match repair {
            JobRepair::Release(route) => self.platform.release(*route),
            JobRepair::Restore(route) => self.platform.restore(*route),
            JobRepair::Resume(pid) => send_signal(*pid, Signal::SIGCONT),
        }
    }

    fn repair_after(&mut self, after: Duration, repair: JobRepair) {
        self.repairs.push((Instant::now() + after, repair));
    }

    /// Ends the faults that are due to end by `until`, or all.
    fn repair(&mut self, until: Option<Instant>) {
        let is_due = |(when, _): &(Instant, JobRepair)| until.is_none_or(|until| *when <= until);
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.repairs).into_iter().partition(is_due);
        self.repairs = rest;
        due.iter().for_each(|(_, repair)| self.apply_repair(repair));
    }

    fn offer_job(&mut self) {
        let id = format!("job-{}", self.offered.len());
        let tokens = self.random.between(1, 8);
        let messages = json!([{"role": "user", "content": id}]);
        let chat = |stream: bool| json!({"messages": messages, "max_tokens": tokens, "stream": stream});
        let input = match self.random.below(12) {
            0..4 => json!({"openai_route": "/v1/chat/completions", "openai_input": chat(false)}),
            4..8 => json!({"openai_route": "/v1/chat/completions", "openai_input": chat(true)}),
            8 => json!({"openai_route": "/v1/completions", "openai_input": {"prompt": id, "max_tokens": tokens}}),
            9 => json!({"messages": messages, "max_tokens": tokens}),
            10 => json!({"openai_route": "/v1/models", "openai_input": {}}),
            _ => json!({"openai_route": "/no/such/route", "openai_input": {}}),
        };
        let job = json!({"id": id, "input": input, "webhook": null, "s3Config": {}});
        self.platform.offer([job.clone()]);
        self.offered.push(job);
    }

    fn worker_pid(&self) -> Option<u32> {
        worker_pids(self.gateway.pid()).into_iter().next()
    }

    fn signal_worker(&self, signal: Signal) {
        self.worker_pid().into_iter().for_each(|pid| send_signal(pid, signal));
    }

    fn note(&mut self, what: &'static str, times: usize) {
        *self.notes.entry(what).or_default() += times;
    }

    /// Checks that each job that was handed out has a result, and none has more results than it was handed out.
    fn check_answers(&self) -> Result<(), String> {
        check_results(&self.platform)?;
        match find_unanswered(&self.platform, &self.cancelled) {
            Some(id) => Err(format!("{id} was taken and is not answered")),
            None => Ok(()),
        }
    }

    /// Stops the gateway while jobs are in flight, and checks that they are answered and that nothing is left.
    fn check_stop(&mut self) -> Result<(), String> {
        (0..SLOTS * 2).for_each(|_| self.offer_job());
        let handed_out = |lane: &Self| lane.platform.handed_out().values().sum::<usize>();
        let (before, begin) = (handed_out(self), Instant::now());
        while handed_out(self) == before {
            if begin.elapsed() > wait::patient(wait::READY + PLATFORM_BACKOFF_FIRST) {
                return Err("no more jobs are taken".to_owned());
            }
            thread::sleep(IDLE_POLL);
        }
        let children = self.gateway.child_pids();
        let status = self.gateway.stop();
        if status.code() != Some(0) {
            return Err(format!("SIGTERM ended the gateway with {status:?}"));
        }
        self.check_answers()?;
        match children.into_iter().find(|pid| !resources::pid_gone(*pid)) {
            Some(pid) => Err(format!("process {pid} outlives the gateway")),
            None => Ok(()),
        }
    }
}
