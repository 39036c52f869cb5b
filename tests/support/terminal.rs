//! A program in a terminal: what a user types, and what stands on the screen.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};

use super::wait::{ANSWERS, STOPS, eventually, eventually_some};

/// A running program, killed when the test ends.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a program whose input and output are a terminal that does not tell its size.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_sized(command, 0, 0)
    }

    /// Starts a program whose input and output are a terminal of this size.
    pub(crate) fn start_sized(command: &mut Command, columns: u16, lines: u16) -> Self {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a terminal can be opened");
        let (input, output) = (pty.slave.try_clone().unwrap(), pty.slave.try_clone().unwrap());
        if command.get_envs().all(|(name, _)| name != "TERM") {
            command.env("TERM", "xterm");
        }
        let child = command.stdin(input).stdout(output).stderr(pty.slave).spawn().unwrap();
        // The command keeps copies of the terminal's other end, which would hide the end of the program.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let keyboard = File::from(pty.master);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut from, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal is an error.
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { child, keyboard, screen }
    }

    /// Types these keys.
    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Returns what was shown so far.
    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the text is shown `times` times.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str, times: usize) {
        eventually_some(&format!("{text:?} is shown {times} times"), ANSWERS, || {
            (self.screen().matches(text).count() >= times).then_some(())
        });
    }

    /// Changes the size of the terminal.
    pub(crate) fn resize(&self, columns: u16, lines: u16) {
        let terminal = self.keyboard.try_clone().expect("the terminal can be shared");
        let size = ["cols", &columns.to_string(), "rows", &lines.to_string()].map(str::to_owned);
        assert!(Command::new("stty").args(size).stdin(terminal).status().expect("stty runs").success());
        // The program has no terminal of its own, to which the kernel would tell it.
        self.signal(Signal::SIGWINCH);
    }

    /// Returns how the terminal treats keys.
    pub(crate) fn key_modes(&self) -> LocalFlags {
        tcgetattr(&self.keyboard).expect("the terminal tells its modes").local_flags
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the program runs");
    }

    /// Presses Ctrl-C while the program reads no keys: the terminal makes a signal of it.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::SIGINT);
    }

    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program has ended", STOPS, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the terminal shows:\n{}", self.screen());
        }
    }
}
