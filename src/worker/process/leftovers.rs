//! Finds and ends the processes that a llama-server left running, of this gateway or of an earlier one that was killed.
//!
//! llama-server leads a process group, which is killed with it. A process that left the group (a daemon) is found by a
//! variable of its environment: the path of the worker's runtime directory, which is unique.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::runtime_dir::{AbandonedDir, RUNTIME_DIR_VARIABLE, RuntimeDir};
use crate::os::here;
use crate::os::identity::ProcessIdentity;
use crate::worker::bounds::{LEFTOVER_GRACE, LEFTOVER_POLL, LEFTOVER_SEARCH};
use crate::worker::memory::gpu;

/// Ends the processes that earlier gateways left running, removes their runtime directories, and waits until the GPU
/// memory is released. Returns early when `stop` is cancelled.
pub(crate) async fn clear_earlier(stop: &CancellationToken) {
    let clearing = run_blocking(|| {
        let dirs = AbandonedDir::all();
        let marks: Vec<Mark> =
            dirs.iter().map(|dir| Mark { dir: dir.path().to_owned(), leader: dir.process.clone() }).collect();
        let cleared = clear_all(&marks);
        // A directory is the only trace of its processes, so it stays as long as one of them may run.
        if cleared.left.is_empty() {
            dirs.into_iter().for_each(AbandonedDir::remove);
        }
        cleared
    });
    let cleared = tokio::select! {
        cleared = clearing => cleared,
        () = stop.cancelled() => None,
    };
    let Some(cleared) = cleared else { return };
    cleared.report("an earlier gateway");
    if !cleared.ended.is_empty() {
        gpu::released(cleared.ended, stop).await;
    }
}

/// Ends the processes that the process of this runtime directory left running, after that process itself has ended.
/// Returns the ids of all that have ended, for [`gpu::released`].
pub(crate) async fn clear(dir: &mut RuntimeDir, process: i32) -> BTreeSet<i32> {
    let mark = Mark { dir: dir.path().to_owned(), leader: None };
    let cleared = run_blocking(move || clear_all(&[mark])).await;
    let mut ended = BTreeSet::from([process]);
    if let Some(mut cleared) = cleared {
        cleared.report("llama-server");
        if cleared.left.is_empty() {
            dir.clear_process();
        }
        ended.append(&mut cleared.ended);
    }
    ended
}

/// How the processes of one runtime directory are recognized.
struct Mark {
    /// The value of [`RUNTIME_DIR_VARIABLE`] in their environment.
    dir: PathBuf,
    /// The leader of their group, if it may still run.
    leader: Option<ProcessIdentity>,
}

/// The ids of the processes that were found.
#[derive(Default)]
struct Cleared {
    ended: BTreeSet<i32>,
    /// Still running when time was up.
    left: BTreeSet<i32>,
}

impl Cleared {
    fn report(&self, origin: &str) {
        if !self.ended.is_empty() {
            warn!(pids = ?self.ended, "processes that {origin} left running were ended");
        }
        if !self.left.is_empty() {
            warn!(pids = ?self.left, "processes that {origin} left running do not end");
        }
    }
}

/// Runs a search among the processes on a thread that may block, because reading one may hang with it. Returns `None` when
/// it takes longer than [`LEFTOVER_SEARCH`].
async fn run_blocking(work: impl FnOnce() -> Cleared + Send + 'static) -> Option<Cleared> {
    let outcome = tokio::time::timeout(LEFTOVER_SEARCH, tokio::task::spawn_blocking(work)).await;
    if outcome.is_err() {
        warn!("the search for processes that were left running takes too long and goes on in the background");
    }
    outcome.ok()?.ok()
}

/// Searches and kills until no process is left, for [`LEFTOVER_GRACE`] at most. One round is not enough, because a
/// process may fork before it dies.
fn clear_all(marks: &[Mark]) -> Cleared {
    let mut cleared = Cleared::default();
    let begin = Instant::now();
    while !marks.is_empty() {
        // After a failed search nothing is known. The directory stays, and the next start searches again.
        let Ok(found) = find(marks) else { break };
        if found.is_empty() {
            break;
        }
        if begin.elapsed() >= LEFTOVER_GRACE {
            cleared.left = found.iter().map(|found| found.pid).collect();
            cleared.ended.retain(|pid| !cleared.left.contains(pid));
            break;
        }
        for target in found {
            // Checked again right before the signal, because the pid may belong to another process by now.
            if here::stat(target.pid).is_ok_and(|stat| stat.start == target.start) {
                let _ = kill(Pid::from_raw(target.pid), Signal::SIGKILL);
                cleared.ended.insert(target.pid);
            }
        }
        std::thread::sleep(LEFTOVER_POLL);
    }
    cleared
}

struct Found {
    pid: i32,
    start: u64,
}

fn find(marks: &[Mark]) -> io::Result<Vec<Found>> {
    let own = nix::unistd::getpid().as_raw();
    let leaders: Vec<i32> = marks
        .iter()
        .filter_map(|mark| mark.leader.as_ref())
        .filter(|leader| leader.is_running())
        .map(|leader| leader.pid)
        .collect();
    let mut found = Vec::new();
    for (pid, stat) in here::stats()? {
        if pid == own || stat.has_ended {
            continue;
        }
        let has_mark =
            || here::variable(pid, RUNTIME_DIR_VARIABLE).is_some_and(|dir| marks.iter().any(|mark| mark.dir == dir));
        if leaders.contains(&pid) || leaders.contains(&stat.group) || has_mark() {
            found.push(Found { pid, start: stat.start });
        }
    }
    Ok(found)
}
