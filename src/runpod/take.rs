//! Takes jobs, while this worker can serve some and has room for more, until it is told to stop. What a question brings
//! that was under way by then is done all the same: the platform has given it away.

use super::hand::Hand;
use super::job::{self, Job};
use super::pause::{Failures, PollError};
use super::run::Runner;
use super::wire::Wire;
use crate::awake::{self, Instant};
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::runpod::bounds::{LAST_TAKE, MOST_JOBS, MOST_TAKEN, PARSED_AT_ONCE, TAKE_PAUSE};
use bytes::Bytes;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Whoever takes them.
pub(super) struct Taker {
    pub(super) wire: Arc<Wire>,
    pub(super) hand: Arc<Hand>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) runner: Arc<Runner>,
    /// Jobs run on it.
    pub(super) tasks: TaskTracker,
    /// Cancelled when no more are to be asked for.
    pub(super) stop: CancellationToken,
    /// Cancelled when none that still come can be served.
    pub(super) lost: CancellationToken,
}

impl Taker {
    /// Takes jobs until that is to stop.
    pub(super) async fn run(self) {
        let mut failures = Failures::of("no jobs can be taken", "jobs can be taken again");
        while let Some(count) = self.stop.run_until_cancelled(self.has_room()).await {
            let asked = Instant::now();
            let take = self.wire.take(count, self.hand.count() > 0);
            let taken = tokio::select! {
                taken = take => taken,
                () = self.lost.cancelled() => return,
                () = self.lingers() => return info!("RunPod is no longer asked for jobs"),
            };
            let begun = match taken {
                Ok(Some(text)) => self.begin(text).await,
                Ok(None) => Ok(0),
                Err(setback) => Err(setback),
            };
            let pause = match begun {
                Ok(count) => {
                    failures.forget();
                    if count > 0 {
                        continue;
                    }
                    // One that was held for a while is asked again at once.
                    TAKE_PAUSE.saturating_sub(asked.elapsed())
                }
                Err(setback) => failures.note(setback),
            };
            if self.stop.run_until_cancelled(awake::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Waits for as long as a question may still bring something once no more are to be asked: a while, and as long as
    /// there are jobs to finish anyway.
    async fn lingers(&self) {
        self.stop.cancelled().await;
        awake::sleep(LAST_TAKE).await;
        loop {
            let changes = self.hand.changes();
            if self.hand.count() == 0 {
                return;
            }
            changes.await;
        }
    }

    /// Waits until more jobs would be served at once: how many to ask for.
    async fn has_room(&self) -> usize {
        loop {
            let (hand, lanes, fleet) = (self.hand.changes(), self.gateway.changes(), self.fleet.changes());
            let in_hand = self.hand.count();
            // Of one on its way into a line nobody knows yet whether it has to wait there.
            if self.hand.has_arrived() {
                let room = self.gateway.room(in_hand).min(MOST_JOBS.saturating_sub(in_hand));
                if room > 0 {
                    return room.min(MOST_TAKEN);
                }
            }
            tokio::select! {
                () = hand => {}
                () = lanes => {}
                () = fleet => {}
            }
        }
    }

    /// Begins what was taken: how many jobs. Where something was and it is none that can be done, that is a setback.
    async fn begin(&self, text: Bytes) -> Result<usize, PollError> {
        let read = match text.len() > PARSED_AT_ONCE {
            true => spawn_blocking(move || job::read_all(&text)).await.map_err(|_| no_job("it cannot be read"))?,
            false => job::read_all(&text),
        };
        let jobs = read.map_err(|error| {
            no_job(&format!("it is no JSON from line {}, column {} on", error.line(), error.column()))
        })?;
        let count = jobs.len();
        let begun = jobs.into_iter().map(|job| usize::from(self.begin_one(job))).sum();
        if begun == 0 && count > 0 { Err(no_job("none of it can be done")) } else { Ok(begun) }
    }

    fn begin_one(&self, job: Result<Job, &'static str>) -> bool {
        let job = match job {
            Ok(job) => job,
            Err(problem) => {
                warn!("a job cannot be done, nor answered: {problem}");
                return false;
            }
        };
        let Some(held) = self.hand.hold(&job.id) else {
            warn!(job = job.id, "a job that is in hand came again");
            return false;
        };
        let (runner, tasks, arriving) = (Arc::clone(&self.runner), self.tasks.clone(), held.arrives());
        self.tasks.spawn(async move { runner.run(job, held, arriving, &tasks).await });
        true
    }
}

fn no_job(why: &str) -> PollError {
    PollError::Failed(format!("what RunPod gives is no job: {why}"))
}
