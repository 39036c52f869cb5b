//! Reaping strangers: orphans of a llama-server become children of this process, and somebody must ask for their status
//! when they end, or they stay as zombies.
//!
//! Its own children are tokio's to wait for; [`super::children`] tells the two apart.

use super::spawner::Spawner;
use crate::worker::bounds::REAP_PAUSE;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Reaps orphans as they end, until `stop` is cancelled.
pub async fn reap_orphans(spawner: Spawner, stop: CancellationToken) {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            warn!(%error, "ends of processes cannot be heard of, orphans stay as zombies");
            return;
        }
    };
    loop {
        // First without a signal: some may have ended before it was listened for.
        let has_looked = tokio::select! {
            has_looked = spawner.reap() => has_looked,
            () = stop.cancelled() => return,
        };
        let next = async {
            tokio::time::sleep(REAP_PAUSE).await;
            if has_looked {
                ended.recv().await;
            }
        };
        tokio::select! {
            () = next => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spawner::{CommandLine, Process, code_and_signal};
    use super::*;
    use crate::worker::procfs::{self, ProcStat};
    use std::time::Duration;
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn shell(spawner: &Spawner, script: &str) -> Process {
        let arguments = vec!["-c".into(), script.into()];
        let line = CommandLine { program: "/bin/sh".into(), arguments, environment: Vec::new() };
        spawner.spawn(line).await.unwrap()
    }

    fn children_of_this_process() -> Vec<i32> {
        let own = nix::unistd::getpid().as_raw();
        let is_child = |pid: &i32| ProcStat::of(*pid).is_ok_and(|stat| stat.parent == own);
        procfs::pids().unwrap().into_iter().filter(is_child).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn orphans_are_reaped_and_no_status_is_taken_from_whom_it_belongs_to() {
        let spawner = Spawner::start(tokio::runtime::Handle::current(), None).unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(reap_orphans(spawner.clone(), stop.clone()));
        let (looking, orders) = (stop.clone(), spawner.clone());
        tasks.spawn(async move {
            while !looking.is_cancelled() {
                orders.reap().await;
            }
        });
        for _ in 0..50 {
            let mut process = shell(&spawner, "(true &); exit 7").await;
            // It has ended, and its status lies there for everybody to take.
            timeout(DEADLINE, async {
                while !ProcStat::of(process.pid()).is_ok_and(|stat| stat.has_ended()) {
                    tokio::task::yield_now().await;
                }
                spawner.reap().await
            })
            .await
            .unwrap();
            assert_eq!(code_and_signal(process.wait().await.unwrap()), (Some(7), None));
        }
        timeout(DEADLINE, async {
            while !children_of_this_process().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        stop.cancel();
        tasks.close();
        timeout(DEADLINE, tasks.wait()).await.unwrap();
    }
}
