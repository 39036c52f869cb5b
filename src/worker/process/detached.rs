//! Processes of commands: a service that outlives the command that starts it, and the service manager's own program.
//!
//! Everything that a service starts goes through [`super::spawner`], so that it ends with the service.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A process that goes on when this program ends.
#[derive(Debug)]
pub struct DetachedProcess(Child);

impl DetachedProcess {
    /// Starts this program again with these arguments, in this folder. It gets the environment of this process, and
    /// neither its terminal's keys nor its output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_again(arguments: &[String], folder: &Path) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        #[expect(clippy::disallowed_methods, reason = "one of the files that create processes")]
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C in this terminal, and its end, are not for the service.
        command.args(arguments).current_dir(folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self)
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns the exit status if the process has ended.
    ///
    /// # Errors
    /// The status cannot be collected.
    pub fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }
}

/// Runs a program to its end, with the output of this process, or with none.
///
/// # Errors
/// It cannot be started.
pub fn run_to_end(program: &Path, arguments: &[&str], is_quiet: bool) -> io::Result<ExitStatus> {
    let output = || if is_quiet { Stdio::null() } else { Stdio::inherit() };
    #[expect(clippy::disallowed_methods, reason = "one of the files that create processes")]
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(output()).stderr(output()).status()
}
