//! A gateway under callgrind, whose counts are set to zero before the requests and read after them.
//!
//! So the start is not counted, and one gateway serves for all kinds of requests. What the gateway's timers take in the time
//! of the requests is subtracted: on a busy machine that time is long. Instructions of the kernel are not counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::contenders::Contender;
use crate::contenders::gateways::Setup;
use crate::plan::Flow;

/// Longest time for requests under callgrind, in milliseconds: a busy machine needs minutes.
const WINDOW: u64 = 300_000;

/// How long the gateway is watched without requests.
const IDLE: Duration = Duration::from_secs(6);

/// A gateway under callgrind.
pub(super) struct Counter {
    gateway: Contender,
    folder: TempDir,
    /// Instructions per second without requests.
    idle: f64,
    /// The number of callgrind's last file.
    files: usize,
}

impl Counter {
    /// Starts a gateway under callgrind.
    pub(super) fn start(setup: &Setup<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = format!("--callgrind-out-file={}", folder.path().join("counts").display());
        let outer = ["valgrind", "--quiet", "--tool=callgrind", &file].map(str::to_owned);
        let gateway = Setup { outer: &outer, ..*setup }.start();
        let mut counter = Self { gateway, folder, idle: 0.0, files: 0 };
        let (all, seconds) = counter.during(|_| sleep(IDLE));
        counter.idle = all / seconds;
        println!("{:>10.0} instructions each second without requests", counter.idle);
        counter
    }

    /// Returns the instructions of this number of requests, after others that are not counted.
    pub(super) fn count(&mut self, flow: &Flow, warm_up: u64, requests: u64) -> f64 {
        self.send(flow, warm_up);
        let (all, seconds) = self.during(|counter| counter.send(flow, requests));
        all - seconds * self.idle
    }

    /// Returns the instructions while something is done, and the seconds that it took.
    fn during(&mut self, work: impl FnOnce(&Self)) -> (f64, f64) {
        self.tell("zero");
        let begin = Instant::now();
        work(self);
        let seconds = begin.elapsed().as_secs_f64();
        self.tell("dump");
        self.files += 1;
        let text = fs::read_to_string(self.file()).expect("callgrind writes its counts");
        let line = text.lines().find_map(|line| line.strip_prefix("totals:"));
        (line.and_then(|line| line.trim().parse().ok()).expect("callgrind writes a total"), seconds)
    }

    /// Copies callgrind's file of the last count.
    pub(super) fn keep(&self, to: &Path) {
        fs::copy(self.file(), to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(format!("counts.{}", self.files))
    }

    fn send(&self, flow: &Flow, requests: u64) {
        let flow = Flow { count: Some(requests), ..flow.clone() };
        let outcome = self.gateway.drive(vec![flow], 0, WINDOW, WINDOW);
        let tally = &outcome.flows[0];
        let done = tally.good + tally.refused.values().sum::<u64>();
        assert_eq!((done, tally.failures()), (requests, 0), "{:?} {:?}", tally.refused, tally.failed);
    }

    /// Gives callgrind a command.
    fn tell(&self, command: &str) {
        let mut vgdb = Command::new("vgdb");
        vgdb.arg(format!("--pid={}", self.gateway.pid())).arg(command);
        // The names of its pipes have these variables of the gateway in them.
        vgdb.env_remove("LOGNAME").env_remove("USER").env("HOST", self.gateway.address.ip().to_string());
        let output = vgdb.output().expect("vgdb comes with valgrind");
        assert!(output.status.success(), "vgdb {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
