//! Reaps orphans: descendants of a llama-server whose parent has ended become children of this process, and stay
//! zombies after their end until their status is collected.
//!
//! tokio waits for the children that this process started; [`super::children`] tells the two apart.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::spawner::Spawner;
use crate::worker::bounds::REAP_PAUSE;

/// Reaps orphans as they end, until `stop` is cancelled.
pub async fn reap_orphans(spawner: Spawner, stop: CancellationToken) {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            warn!(%error, "SIGCHLD cannot be handled, so orphans stay zombies");
            return;
        }
    };
    loop {
        // The first search does not wait for a signal: a child may have ended before the handler was installed.
        let has_searched = tokio::select! {
            has_searched = spawner.reap() => has_searched,
            () = stop.cancelled() => return,
        };
        let next = async {
            // Many children may end at once; one search finds them all.
            tokio::time::sleep(REAP_PAUSE).await;
            if has_searched {
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
    use crate::os::here;
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
        let children = here::stats().unwrap().into_iter().filter(|(_, stat)| stat.parent == own);
        children.map(|(pid, _)| pid).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn orphans_are_reaped_and_the_status_of_tracked_children_is_left_to_tokio() {
        let spawner = Spawner::start(tokio::runtime::Handle::current(), None).unwrap();
        // The guard of the children may be a child too.
        let before = children_of_this_process();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(reap_orphans(spawner.clone(), stop.clone()));
        let (stopped, reaper) = (stop.clone(), spawner.clone());
        tasks.spawn(async move {
            while !stopped.is_cancelled() {
                reaper.reap().await;
            }
        });
        for _ in 0..50 {
            let mut process = shell(&spawner, "(true &); exit 7").await;
            // The process has ended and its status was not collected yet, so a wrong reaper could take it.
            timeout(DEADLINE, async {
                // macOS shows no process that has ended.
                while here::stat(process.pid()).is_ok_and(|stat| !stat.has_ended) {
                    tokio::task::yield_now().await;
                }
                spawner.reap().await
            })
            .await
            .unwrap();
            assert_eq!(code_and_signal(process.wait().await.unwrap()), (Some(7), None));
        }
        timeout(DEADLINE, async {
            while children_of_this_process().iter().any(|child| !before.contains(child)) {
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
