//! What a llama-server leaves running: found and ended, be it of this gateway or of one that was killed.
//!
//! llama-server leads a process group, which ends with it. What left the group (a daemon) is known by a
//! variable of its environment: the folder of the worker that started it, which nobody else has.

use super::runtime_dir::{AbandonedDir, MARK, RuntimeDir};
use crate::worker::bounds::{LEFTOVER_GRACE, LEFTOVER_POLL, LEFTOVER_SEARCH};
use crate::worker::memory::gpu;
use crate::worker::procfs::{self, ProcStat, ProcessIdentity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Ends what gateways that are gone left running, removes their folders, and waits until the GPU has its memory back.
/// Returns early when `stop` is cancelled.
pub(crate) async fn clear_earlier(stop: &CancellationToken) {
    let clearing = on_a_thread(|| {
        let dens = AbandonedDir::all();
        let marks =
            dens.iter().map(|den| Mark { den: den.path().to_owned(), leader: den.process.clone() }).collect::<Vec<_>>();
        let cleared = clear_all(&marks);
        if cleared.left.is_empty() {
            dens.into_iter().for_each(AbandonedDir::remove);
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

/// Ends what the process of this den has left running, after that process has ended. Gives the ids of all that have
/// ended, for [`gpu::released`].
pub(crate) async fn clear(den: &mut RuntimeDir, process: i32) -> BTreeSet<i32> {
    let mark = Mark { den: den.path().to_owned(), leader: None };
    let cleared = on_a_thread(move || clear_all(&[mark])).await;
    let mut ended = BTreeSet::from([process]);
    if let Some(mut cleared) = cleared {
        cleared.report("llama-server");
        if cleared.left.is_empty() {
            den.vacate();
        }
        ended.append(&mut cleared.ended);
    }
    ended
}

/// By what the processes of one den are known.
struct Mark {
    den: PathBuf,
    /// The leader of their group, where it may still run.
    leader: Option<ProcessIdentity>,
}

#[derive(Default)]
struct Cleared {
    ended: BTreeSet<i32>,
    left: BTreeSet<i32>,
}

impl Cleared {
    fn report(&self, whose: &str) {
        if !self.ended.is_empty() {
            warn!(pids = ?self.ended, "processes that {whose} left running were ended");
        }
        if !self.left.is_empty() {
            warn!(pids = ?self.left, "processes that {whose} left running do not end");
        }
    }
}

/// Searching `/proc` may take long when a process hangs, so it is done on a thread that may block. Nothing when it took
/// too long.
async fn on_a_thread(work: impl FnOnce() -> Cleared + Send + 'static) -> Option<Cleared> {
    let outcome = tokio::time::timeout(LEFTOVER_SEARCH, tokio::task::spawn_blocking(work)).await;
    if outcome.is_err() {
        warn!("the search for processes that were left running takes too long, it is not waited for");
    }
    outcome.ok()?.ok()
}

/// Kills until there is nobody left to kill, for no longer than [`LEFTOVER_GRACE`]: who is not yet dead may fork.
fn clear_all(marks: &[Mark]) -> Cleared {
    let mut cleared = Cleared::default();
    let begin = Instant::now();
    while !marks.is_empty() {
        // A search that fails has found out nothing; what is left is looked for at the next start.
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
            // Asked once more, right before: its number must not have gone to somebody else.
            if ProcStat::of(target.pid).is_ok_and(|stat| stat.start == target.start) {
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
    for pid in procfs::pids()? {
        let Ok(stat) = ProcStat::of(pid) else { continue };
        if pid == own || stat.has_ended() {
            continue;
        }
        let is_at_home = || procfs::variable(pid, MARK).is_some_and(|den| marks.iter().any(|mark| mark.den == den));
        if leaders.contains(&pid) || leaders.contains(&stat.group) || is_at_home() {
            found.push(Found { pid, start: stat.start });
        }
    }
    Ok(found)
}
