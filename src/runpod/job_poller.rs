//! Polls for jobs while this worker can serve more, until it is told to stop. Jobs that an open poll still returns then
//! are run too, because the platform has already assigned them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::failure_streak::{FailureStreak, PollError};
use super::in_flight_jobs::InFlightJobs;
use super::job::{self, Job};
use super::job_runner::JobRunner;
use super::platform_api::PlatformApi;
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::pause_clock::{self, ActiveInstant};
use crate::runpod::bounds::{INLINE_PARSE_SIZE, LAST_POLL_GRACE, MAX_JOBS_IN_FLIGHT, MAX_JOBS_PER_POLL, POLL_PAUSE};

/// Polls for jobs and starts them.
pub(super) struct JobPoller {
    pub(super) api: Arc<PlatformApi>,
    pub(super) in_flight: Arc<InFlightJobs>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) runner: Arc<JobRunner>,
    /// Tracks the tasks of the jobs.
    pub(super) tasks: TaskTracker,
    /// Cancelled when no further polls are to be sent.
    pub(super) stop: CancellationToken,
    /// Cancelled when jobs that still arrive cannot be served.
    pub(super) abort: CancellationToken,
}

impl JobPoller {
    /// Polls until `stop` or `abort` is cancelled.
    pub(super) async fn run(self) {
        let mut failures = FailureStreak::new("no jobs can be taken", "jobs can be taken again");
        while let Some(count) = self.stop.run_until_cancelled(self.free_capacity()).await {
            let polled = ActiveInstant::now();
            let poll = self.api.poll_jobs(count, self.in_flight.count() > 0);
            let response = tokio::select! {
                response = poll => response,
                () = self.abort.cancelled() => return,
                () = self.grace_period() => return info!("RunPod is no longer polled for jobs"),
            };
            let started = match response {
                Ok(Some(text)) => self.start_jobs(text).await,
                Ok(None) => Ok(0),
                Err(error) => Err(error),
            };
            let pause = match started {
                Ok(count) => {
                    failures.reset();
                    if count > 0 {
                        continue;
                    }
                    // A poll that was held open for longer than the pause is repeated at once.
                    POLL_PAUSE.saturating_sub(polled.elapsed())
                }
                Err(error) => failures.record(error),
            };
            if self.stop.run_until_cancelled(pause_clock::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Waits while an open poll may still return jobs after `stop`: for [`LAST_POLL_GRACE`], and as long as there are
    /// jobs to finish anyway.
    async fn grace_period(&self) {
        self.stop.cancelled().await;
        pause_clock::sleep(LAST_POLL_GRACE).await;
        loop {
            let changes = self.in_flight.changed();
            if self.in_flight.count() == 0 {
                return;
            }
            changes.await;
        }
    }

    /// Waits until the gateway could serve more jobs at once. Returns the number of jobs to poll for.
    async fn free_capacity(&self) -> usize {
        loop {
            // Created before the capacity is read, so that no change in between is missed.
            let (job_change, queue_change, fleet_change) =
                (self.in_flight.changed(), self.gateway.changed(), self.fleet.changed());
            let in_flight = self.in_flight.count();
            // While a job is on its way into a queue, it is unknown whether it will have to wait there.
            if self.in_flight.are_all_counted() {
                let capacity = self.gateway.job_capacity(in_flight).min(MAX_JOBS_IN_FLIGHT.saturating_sub(in_flight));
                if capacity > 0 {
                    return capacity.min(MAX_JOBS_PER_POLL);
                }
            }
            tokio::select! {
                () = job_change => {}
                () = queue_change => {}
                () = fleet_change => {}
            }
        }
    }

    /// Starts the jobs of a response and returns their number.
    ///
    /// # Errors
    ///
    /// Returns an error if the response contains jobs, but none that can be started.
    async fn start_jobs(&self, text: Bytes) -> Result<usize, PollError> {
        let parsed = match text.len() > INLINE_PARSE_SIZE {
            true => {
                spawn_blocking(move || job::read_all(&text)).await.map_err(|_| invalid_response("it cannot be read"))?
            }
            false => job::read_all(&text),
        };
        let jobs = parsed.map_err(|error| {
            invalid_response(&format!("it is not JSON from line {}, column {} on", error.line(), error.column()))
        })?;
        let count = jobs.len();
        let started = jobs.into_iter().map(|job| usize::from(self.start_job(job))).sum();
        if started == 0 && count > 0 { Err(invalid_response("none of them can be run")) } else { Ok(started) }
    }

    fn start_job(&self, job: Result<Job, &'static str>) -> bool {
        let job = match job {
            Ok(job) => job,
            Err(problem) => {
                warn!("a job can be neither run nor answered: {problem}");
                return false;
            }
        };
        let Some(guard) = self.in_flight.add(&job.id) else {
            warn!(job = job.id, "a job that is in flight was delivered again");
            return false;
        };
        let (runner, tasks, arriving) = (Arc::clone(&self.runner), self.tasks.clone(), guard.mark_arriving());
        self.tasks.spawn(async move { runner.run(job, guard, arriving, &tasks).await });
        true
    }
}

fn invalid_response(reason: &str) -> PollError {
    PollError::Failed(format!("RunPod's response contains no valid job: {reason}"))
}
