//! A shell that ends the children of this process when this process has ended, however it ended.
//!
//! The shell reads a pipe whose other end only this process holds. Each child writes its group into it before it becomes
//! its program, so no child can be missed; the end of the pipe is the end of this process.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
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

/// Returns true: this system is not asked, so the children are listed at every look.
pub(crate) fn may_have_ended_child() -> bool {
    true
}

/// Kills the groups of all children when this process has ended. Orphans of theirs go to the system's first process, which
/// reaps them.
#[derive(Clone)]
pub(crate) struct ShellGuard(Arc<Mutex<GuardState>>);

struct GuardState {
    shell: Child,
    pipe: Arc<PipeWriter>,
    /// The groups that the shell was told of, for a shell that takes the place of one that was killed.
    groups: BTreeSet<i32>,
    /// Has the number of the child that is being started, once that has told the shell of itself.
    begun: Option<PipeReader>,
}

impl ShellGuard {
    /// Starts the shell.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (shell, pipe) = start_shell()?;
        Ok(Self(Arc::new(Mutex::new(GuardState { shell, pipe, groups: BTreeSet::new(), begun: None }))))
    }

    /// Returns what the next child must do between `fork` and `exec`: plain system calls without allocation and locks.
    ///
    /// # Errors
    ///
    /// The shell has ended, and another one cannot be started; or there is no pipe.
    pub(crate) fn in_child(&self) -> io::Result<impl Fn() -> io::Result<()> + Send + Sync + use<>> {
        self.renew()?;
        let (reader, begun) = io::pipe()?;
        // A child that has told nothing must not hold up this process.
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut state = self.state();
        state.begun = Some(reader);
        let pipe = Arc::clone(&state.pipe);
        let broken_pipe = SigSet::from(Signal::SIGPIPE);
        Ok(move || {
            let pid = getpid().as_raw();
            let (line, length) = line(b'+', pid);
            // First of all, so that this process knows of every child that the shell knows of.
            write(&begun, &pid.to_ne_bytes())?;
            // SIGPIPE has its default action here: if the shell has just ended, the child would end by it, and count as
            // started. It stays blocked where the write fails, because the child ends then.
            broken_pipe.thread_block()?;
            write(&*pipe, line.get(..length).unwrap_or_default())?;
            broken_pipe.thread_unblock()?;
            Ok(())
        })
    }

    /// Starts another shell if the present one has ended. Returns whether it had.
    ///
    /// # Errors
    ///
    /// Another one cannot be started. The next call tries again.
    pub(crate) fn renew(&self) -> io::Result<bool> {
        let mut state = self.state();
        // It is no child that anything else waits for; its status may have been collected with those of orphans.
        let has_ended = !matches!(state.shell.try_wait(), Ok(None));
        if has_ended {
            (state.shell, state.pipe) = start_shell()?;
            state.groups.iter().for_each(|group| tell(&state.pipe, b'+', *group));
        }
        Ok(has_ended)
    }

    /// Takes note of a child that was started, the leader of a group. The shell knows it from the child itself.
    pub(crate) fn add(&self, group: i32) {
        let mut state = self.state();
        state.begun = None;
        state.groups.insert(group);
    }

    /// Forgets the last child, which has ended before it became its program: its number may become another process's.
    pub(crate) fn forget_failed(&self) {
        let mut state = self.state();
        let mut pid = [0; size_of::<i32>()];
        // Nothing was told where there is nothing to read.
        if state.begun.take().is_some_and(|mut begun| begun.read_exact(&mut pid).is_ok()) {
            tell(&state.pipe, b'-', i32::from_ne_bytes(pid));
        }
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

/// Tells the shell about a group. A shell that is gone is replaced when its end is noticed, and told then.
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
    use std::io::read_to_string;
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
        assert!(!guard.renew().unwrap());
        let first = i32::try_from(guard.state().shell.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), Signal::SIGKILL).unwrap();
        wait_for_end(first);
        assert!(guard.renew().unwrap() && !guard.renew().unwrap());
        assert_ne!(i32::try_from(guard.state().shell.id()).unwrap(), first);
        assert!(here::stat(group_of(&child)).is_ok_and(|stat| !stat.has_ended));
        drop(guard);
        wait_for_end(group_of(&child));
        let _ = child.wait();
    }

    /// Returns what the shell is told meanwhile, by this process in place of a child too.
    fn told(meanwhile: impl FnOnce(&ShellGuard)) -> String {
        let (reader, writer) = io::pipe().unwrap();
        let guard = ShellGuard::start().unwrap();
        // The shell would end with its pipe, and one that takes its place would know the group of this process.
        let _kept = std::mem::replace(&mut guard.state().pipe, Arc::new(writer));
        meanwhile(&guard);
        drop(guard);
        read_to_string(reader).unwrap()
    }

    #[test]
    fn a_child_tells_its_own_group() {
        let own = std::process::id();
        assert_eq!(told(|guard| guard.in_child().unwrap()().unwrap()), format!("+ {own}\n"));
    }

    /// Its number once stayed with the shell, which killed what had it at the end of the gateway.
    #[test]
    fn a_child_that_did_not_become_its_program_is_forgotten() {
        let own = std::process::id();
        let failed = told(|guard| {
            guard.in_child().unwrap()().unwrap();
            guard.forget_failed();
            guard.forget_failed();
        });
        assert_eq!(failed, format!("+ {own}\n- {own}\n"));
        let before_fork = told(|guard| {
            drop(guard.in_child().unwrap());
            guard.forget_failed();
        });
        assert_eq!(before_fork, "");
        let next = told(|guard| {
            guard.in_child().unwrap()().unwrap();
            guard.add(2_000_000_000);
            guard.forget_failed();
            guard.forget(2_000_000_000);
        });
        assert_eq!(next, format!("+ {own}\n- 2000000000\n"), "one that was started stays");
    }
}
