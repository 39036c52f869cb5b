//! Takes jobs, while this worker can serve some and has room for more, until it is told to stop. What a question brings
//! that was under way by then is done all the same: the platform has given it away.

use super::failure_streak::{FailureStreak, PollError};
use super::in_flight_jobs::InFlightJobs;
use super::job::{self, Job};
use super::job_runner::JobRunner;
use super::platform_api::PlatformApi;
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::pause_clock::{self, ActiveInstant};
use crate::runpod::bounds::{LAST_TAKE, MOST_JOBS, MOST_TAKEN, PARSED_AT_ONCE, TAKE_PAUSE};
use bytes::Bytes;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Whoever takes them.
pub(super) struct JobPoller {
    pub(super) wire: Arc<PlatformApi>,
    pub(super) in_flight: Arc<InFlightJobs>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) runner: Arc<JobRunner>,
    /// Jobs run on it.
    pub(super) tasks: TaskTracker,
    /// Cancelled when no more are to be asked for.
    pub(super) stop: CancellationToken,
    /// Cancelled when none that still come can be served.
    pub(super) abort: CancellationToken,
}

impl JobPoller {
    /// Takes jobs until that is to stop.
    pub(super) async fn run(self) {
        let mut failures = FailureStreak::new("no jobs can be taken", "jobs can be taken again");
        while let Some(count) = self.stop.run_until_cancelled(self.free_capacity()).await {
            let asked = ActiveInstant::now();
            let take = self.wire.take(count, self.in_flight.count() > 0);
            let taken = tokio::select! {
                taken = take => taken,
                () = self.abort.cancelled() => return,
                () = self.grace_period() => return info!("RunPod is no longer asked for jobs"),
            };
            let begun = match taken {
                Ok(Some(text)) => self.start_jobs(text).await,
                Ok(None) => Ok(0),
                Err(setback) => Err(setback),
            };
            let pause = match begun {
                Ok(count) => {
                    failures.reset();
                    if count > 0 {
                        continue;
                    }
                    // One that was held for a while is asked again at once.
                    TAKE_PAUSE.saturating_sub(asked.elapsed())
                }
                Err(setback) => failures.record(setback),
            };
            if self.stop.run_until_cancelled(pause_clock::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Waits for as long as a question may still bring something once no more are to be asked: a while, and as long as
    /// there are jobs to finish anyway.
    async fn grace_period(&self) {
        self.stop.cancelled().await;
        pause_clock::sleep(LAST_TAKE).await;
        loop {
            let changes = self.in_flight.changed();
            if self.in_flight.count() == 0 {
                return;
            }
            changes.await;
        }
    }

    /// Waits until more jobs would be served at once: how many to ask for.
    async fn free_capacity(&self) -> usize {
        loop {
            let (hand, lanes, fleet) = (self.in_flight.changed(), self.gateway.changed(), self.fleet.changed());
            let in_hand = self.in_flight.count();
            // Of one on its way into a line nobody knows yet whether it has to wait there.
            if self.in_flight.are_all_counted() {
                let room = self.gateway.job_capacity(in_hand).min(MOST_JOBS.saturating_sub(in_hand));
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
    async fn start_jobs(&self, text: Bytes) -> Result<usize, PollError> {
        let read = match text.len() > PARSED_AT_ONCE {
            true => spawn_blocking(move || job::read_all(&text)).await.map_err(|_| unreadable("it cannot be read"))?,
            false => job::read_all(&text),
        };
        let jobs = read.map_err(|error| {
            unreadable(&format!("it is no JSON from line {}, column {} on", error.line(), error.column()))
        })?;
        let count = jobs.len();
        let begun = jobs.into_iter().map(|job| usize::from(self.start_job(job))).sum();
        if begun == 0 && count > 0 { Err(unreadable("none of it can be done")) } else { Ok(begun) }
    }

    fn start_job(&self, job: Result<Job, &'static str>) -> bool {
        let job = match job {
            Ok(job) => job,
            Err(problem) => {
                warn!("a job cannot be done, nor answered: {problem}");
                return false;
            }
        };
        let Some(held) = self.in_flight.add(&job.id) else {
            warn!(job = job.id, "a job that is in hand came again");
            return false;
        };
        let (runner, tasks, arriving) = (Arc::clone(&self.runner), self.tasks.clone(), held.mark_arriving());
        self.tasks.spawn(async move { runner.run(job, held, arriving, &tasks).await });
        true
    }
}

fn unreadable(why: &str) -> PollError {
    PollError::Failed(format!("what RunPod gives is no job: {why}"))
}
