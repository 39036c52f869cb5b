//! A running contender: the mock itself, or a proxy in front of a mock. Starts it, and runs the driver against it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::measure;
use crate::pinned::{self, DRIVER_CPU};
use crate::plan::{Expected, Flow, Outcome, Plan};
use crate::traffic::{Exchange, ModelName};

/// The name of the second direct contender. Its difference to the first is the resolution of the measurement.
pub(crate) const SECOND_DIRECT: &str = "direct again";

/// How long a process may take until it serves requests. LiteLLM imports for two minutes on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// A process and its folder; dropping it stops the process.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The bearer token that it requires.
    pub(crate) key: Option<String>,
    /// The process ids of the process and its children, without the mock.
    pub(crate) proxy: Vec<u32>,
    /// The process id of the mock behind it.
    pub(crate) mock: u32,
    pub(crate) expected: Expected,
    child: Child,
    folder: TempDir,
}

impl Contender {
    /// Starts a process and waits until its port is open.
    ///
    /// # Errors
    ///
    /// Why it cannot be started, or what it wrote before it ended.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        address: SocketAddr,
        folder: TempDir,
    ) -> Result<Self, String> {
        let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let (key, proxy, expected) = (None, Vec::new(), Expected::AsSent);
        let mut contender = Self { name, address, key, proxy, mock: 0, expected, child, folder };
        contender.wait_until("listens", |contender| TcpStream::connect(contender.address).is_ok())?;
        contender.proxy = measure::children(contender.child.id());
        contender.proxy.push(contender.child.id());
        Ok(contender)
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    ///
    /// If that takes longer than [`START_TIMEOUT`], or if the process ends before.
    pub(crate) fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<(), String> {
        let begin = Instant::now();
        while !condition(self) {
            let output = || std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
            if let Some(status) = self.child.try_wait().expect("a child") {
                return Err(format!("{} ended before it {what}: {status}\n{}", self.name, output()));
            }
            if begin.elapsed() > START_TIMEOUT {
                return Err(format!("not true within {START_TIMEOUT:?}: {} {what}\n{}", self.name, output()));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether it answers a request for this model as expected.
    pub(crate) fn has_answered(&self, model: ModelName) -> bool {
        let mut flow = Flow::new(Exchange { model, ..Exchange::json(256) }, 1, 0.0);
        flow.count = Some(1);
        self.drive(vec![flow], 0, 2_000, 5_000).flows[0].good == 1
    }

    /// Starts a mock without a proxy.
    pub(crate) fn mock() -> Self {
        Self::another_mock("direct")
    }

    /// Starts a mock under another name.
    pub(crate) fn another_mock(name: &'static str) -> Self {
        let port = measure::free_port();
        let mut command = pinned::command(DRIVER_CPU, pinned::own_program());
        command.args(["--port", &port.to_string()]).stdin(Stdio::null());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut mock = Self::start(name, &mut command, ([127, 0, 0, 1], port).into(), folder).expect("the mock");
        mock.mock = mock.child.id();
        mock.proxy = Vec::new();
        mock
    }

    /// Runs the driver with these flows against the contender.
    pub(crate) fn drive(&self, mut flows: Vec<Flow>, warmup: u64, window: u64, response_timeout: u64) -> Outcome {
        for flow in &mut flows {
            flow.key = flow.key.take().or_else(|| self.key.clone());
        }
        let (address, proxy, mock, expected) = (self.address, self.proxy.clone(), self.mock, self.expected);
        let plan = Plan { address, flows, warmup, window, response_timeout, proxy, mock, expected };
        let mut command = pinned::command(DRIVER_CPU, pinned::own_program());
        let mut driver =
            command.arg("driver").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the driver");
        let text = serde_json::to_string(&plan).expect("a plan");
        driver.stdin.take().expect("its stdin").write_all(text.as_bytes()).expect("the driver reads");
        let output = driver.wait_with_output().expect("the driver ends");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("the driver failed: {error}"))
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the process and waits for its end.
    pub(crate) fn stop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.stop();
    }
}
