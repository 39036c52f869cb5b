//! A shell that ends the children of this process when this process has ended, however it ended.
//!
//! The shell reads a pipe whose other end only this process holds. Each child writes its group into it before it becomes
//! its program, so no child can be missed; the end of the pipe is the end of this process.

use std::collections::BTreeSet;
use std::io::{self, PipeWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{getpid, write};

const SHELL: &str = "/bin/sh";

/// What the shell does, with what it has built in alone: keeps the groups, of which lines tell that they are there (`+`) or
/// have ended (`-`), and kills them when there are no more lines. Signals for this process and its terminal do not end it.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
groups=' '
while read -r change group; do
    case $change in
        +) groups="$groups$group " ;;
        -) case $groups in *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;; esac ;;
    esac
done
for group in $groups; do kill -KILL "-$group"; done
"#;

/// Bytes of the longest line: a sign, a space, a number of ten digits and the end of the line.
const LONGEST_LINE: usize = 13;

/// Kills the groups of all children when this process has ended. Orphans of theirs go to the system's first process, which
/// reaps them.
#[derive(Clone)]
pub(crate) struct ShellGuard(Arc<Mutex<GuardState>>);

struct GuardState {
    shell: Child,
    pipe: Arc<PipeWriter>,
    /// The groups that the shell was told of, for a shell that takes the place of one that was killed.
    groups: BTreeSet<i32>,
}

impl ShellGuard {
    /// Starts the shell.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (shell, pipe) = start_shell()?;
        Ok(Self(Arc::new(Mutex::new(GuardState { shell, pipe, groups: BTreeSet::new() }))))
    }

    /// Returns what the next child must do between `fork` and `exec`: plain system calls without allocation and locks.
    ///
    /// # Errors
    ///
    /// The shell has ended, and another one cannot be started.
    pub(crate) fn in_child(&self) -> io::Result<impl Fn() -> io::Result<()> + Send + Sync + use<>> {
        let mut state = self.state();
        // It is no child that anything else waits for; its status may have been collected with those of orphans.
        if !matches!(state.shell.try_wait(), Ok(None)) {
            (state.shell, state.pipe) = start_shell()?;
            state.groups.iter().for_each(|group| tell(&state.pipe, b'+', *group));
        }
        let pipe = Arc::clone(&state.pipe);
        Ok(move || {
            let (line, length) = line(b'+', getpid().as_raw());
            write(&*pipe, line.get(..length).unwrap_or_default())?;
            Ok(())
        })
    }

    /// Takes note of a child that was started, the leader of a group. The shell knows it from the child itself.
    pub(crate) fn add(&self, group: i32) {
        self.state().groups.insert(group);
    }

    /// Forgets a child that has ended, with its group: its number may become another process's.
    pub(crate) fn forget(&self, group: i32) {
        let mut state = self.state();
        if state.groups.remove(&group) {
            tell(&state.pipe, b'-', group);
        }
    }

    fn state(&self) -> MutexGuard<'_, GuardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_shell() -> io::Result<(Child, Arc<PipeWriter>)> {
    let (reader, writer) = io::pipe()?;
    // A shell that was stopped must not hold up this process.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "one of the files that create processes; it starts nothing but this shell"
    )]
    let mut command = Command::new(SHELL);
    command.args(["-c", SCRIPT, "llamagate-guard"]).env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::from(reader)).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((command.spawn()?, Arc::new(writer)))
}

/// Tells the shell about a group. A shell that is gone is replaced before the next child.
fn tell(mut pipe: &PipeWriter, change: u8, group: i32) {
    let (line, length) = line(change, group);
    let _ = pipe.write_all(line.get(..length).unwrap_or_default());
}

/// Returns a line for the shell and its length, without allocation. A group is a positive number.
fn line(change: u8, group: i32) -> ([u8; LONGEST_LINE], usize) {
    let mut line = [b' '; LONGEST_LINE];
    line[0] = change;
    let (mut rest, mut digits) = (group.unsigned_abs(), 1);
    while rest >= 10 {
        (rest, digits) = (rest / 10, digits + 1);
    }
    rest = group.unsigned_abs();
    for byte in line.iter_mut().skip(2).take(digits).rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let length = digits + 3;
    line[length - 1] = b'\n';
    (line, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::time::{Duration, Instant};

    use crate::os::portable::processes as here;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Starts a process that waits for the end of its standard input, as the leader of a group.
    fn sleeper() -> Child {
        #[expect(clippy::disallowed_methods, reason = "a test starts a process of its own")]
        let mut command = Command::new("/bin/cat");
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn group_of(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    #[test]
    fn a_line_holds_any_group() {
        for group in [2, 9, 10, 4321, 99_999, i32::MAX] {
            let (line, length) = line(b'+', group);
            assert_eq!(str::from_utf8(&line[..length]).unwrap(), format!("+ {group}\n"));
        }
    }

    /// Waits until a process has ended. Not by its status, which a test of orphans in this program may have collected.
    fn wait_for_end(pid: i32) {
        let begin = Instant::now();
        while here::stat(pid).is_ok_and(|stat| !stat.has_ended) {
            assert!(begin.elapsed() < DEADLINE, "process {pid} goes on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_shell_kills_the_groups_that_are_left_when_the_pipe_ends() {
        let guard = ShellGuard::start().unwrap();
        let children = [sleeper(), sleeper(), sleeper()];
        let [kept, forgotten, last] = children.each_ref().map(group_of);
        for group in [kept, forgotten, last] {
            guard.add(group);
            tell(&guard.state().pipe, b'+', group);
        }
        guard.forget(forgotten);
        let shell = i32::try_from(guard.state().shell.id()).unwrap();
        drop(guard);
        [kept, last, shell].into_iter().for_each(wait_for_end);
        assert!(here::stat(forgotten).is_ok_and(|stat| !stat.has_ended));
        drop(children);
        wait_for_end(forgotten);
    }

    #[test]
    fn a_shell_that_was_killed_is_replaced_by_one_that_knows_the_same_groups() {
        let guard = ShellGuard::start().unwrap();
        let mut child = sleeper();
        guard.add(group_of(&child));
        let first = i32::try_from(guard.state().shell.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for_end(first);
        drop(guard.in_child().unwrap());
        assert_ne!(i32::try_from(guard.state().shell.id()).unwrap(), first);
        assert!(here::stat(group_of(&child)).is_ok_and(|stat| !stat.has_ended));
        drop(guard);
        wait_for_end(group_of(&child));
        let _ = child.wait();
    }

    #[test]
    fn a_child_tells_its_own_group() {
        let (reader, writer) = io::pipe().unwrap();
        let guard = ShellGuard::start().unwrap();
        guard.state().pipe = Arc::new(writer);
        guard.in_child().unwrap()().unwrap();
        drop(guard);
        let mut lines = BufReader::new(reader);
        let mut text = String::new();
        lines.read_line(&mut text).unwrap();
        assert_eq!(text, format!("+ {}\n", std::process::id()));
        assert_eq!(lines.read(&mut [0]).unwrap(), 0);
    }
}
