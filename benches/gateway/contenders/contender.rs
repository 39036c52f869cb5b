//! A running contender: the mock itself, or a proxy in front of one. The driver is sent through it from here.

use crate::measure;
use crate::pinned::{self, DRIVER_CPU};
use crate::plan::{Flow, Outcome, Plan};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name of the second direct contender. Its distance from the first is what the measurement cannot resolve.
pub(crate) const AGAIN: &str = "direct again";

/// A process and its folder; it ends with this value.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The bearer token that it asks for.
    pub(crate) key: Option<String>,
    /// The process itself and its children, the mock left out.
    pub(crate) proxy: Vec<u32>,
    /// The mock behind it.
    pub(crate) mock: u32,
    child: Child,
    folder: TempDir,
}

impl Running {
    /// Starts a process and waits until its port is open.
    pub(crate) fn start(name: &'static str, command: &mut Command, address: SocketAddr, folder: TempDir) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let mut running = Self { name, address, key: None, proxy: Vec::new(), mock: 0, child, folder };
        running.wait_until("it listens", |running| TcpStream::connect(running.address).is_ok());
        running.proxy = measure::children(running.child.id());
        running.proxy.push(running.child.id());
        running
    }

    pub(crate) fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            if let Some(status) = self.child.try_wait().expect("a child") {
                let output = std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
                panic!("{} has ended before {what}: {status}\n{output}", self.name);
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{}: not in 30 s: {what}", self.name);
            sleep(Duration::from_millis(20));
        }
    }

    /// The mock, without a proxy.
    pub(crate) fn mock() -> Self {
        Self::mock_again("direct")
    }

    /// One more, under another name.
    pub(crate) fn mock_again(name: &'static str) -> Self {
        let port = measure::free_port();
        let mut command = pinned::command(DRIVER_CPU, pinned::own_program());
        command.args(["--port", &port.to_string()]).stdin(Stdio::null());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut mock = Self::start(name, &mut command, ([127, 0, 0, 1], port).into(), folder);
        mock.mock = mock.child.id();
        mock.proxy = Vec::new();
        mock
    }

    /// Has the driver send these flows through it.
    pub(crate) fn drive(&self, mut flows: Vec<Flow>, warmup: u64, window: u64, patience: u64) -> Outcome {
        for flow in &mut flows {
            flow.key = flow.key.take().or_else(|| self.key.clone());
        }
        let (address, proxy, mock) = (self.address, self.proxy.clone(), self.mock);
        let plan = Plan { address, flows, warmup, window, patience, proxy, mock };
        let mut command = pinned::command(DRIVER_CPU, pinned::own_program());
        let mut driver =
            command.arg("driver").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the driver");
        let text = serde_json::to_string(&plan).expect("a plan");
        driver.stdin.take().expect("its stdin").write_all(text.as_bytes()).expect("the driver reads");
        let output = driver.wait_with_output().expect("the driver ends");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("the driver failed: {error}"))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it and waits for its end.
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

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
