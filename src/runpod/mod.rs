//! Runs jobs from the queue of a RunPod endpoint, in addition to requests over HTTP.
//!
//! The platform owns the queue. This worker polls for jobs while it can serve some, sends each job to the gateway as a
//! request ([`Gateway::serve_job`]), posts the result, and pings the platform. The state of jobs is kept in memory
//! only. The queue inside the gateway, its capacity for jobs, and the way to llama-server are the gateway's.
//!
//! - `address.rs`: the URLs of RunPod's API
//! - `bounds.rs`: waits, queues and buffers whose size no user needs to choose
//! - `cancellations.rs`: polls for cancelled jobs and stops them
//! - `failure_streak.rs`: backoff and logging after failed requests to the platform
//! - `in_flight_jobs.rs`: the jobs in flight
//! - `input_members.rs`: the members of a JSON object in their order
//! - `job.rs`: translates a job into a request to the gateway
//! - `job_poller.rs`: polls for jobs while there is capacity
//! - `job_runner.rs`: runs one job and posts the result
//! - `output.rs`: the bodies that are posted: chunks, results, errors
//! - `ping.rs`: the pings that tell the platform that this worker is alive
//! - `platform_api.rs`: HTTP to the platform: connections, headers, timeouts, retries
//! - `stream_coalescer.rs`: merges the events of a stream into chunks to post

mod address;
pub mod bounds;
mod cancellations;
mod failure_streak;
mod in_flight_jobs;
mod input_members;
mod job;
mod job_poller;
mod job_runner;
mod output;
mod ping;
mod platform_api;
mod stream_coalescer;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::pause_clock;
use crate::runpod::bounds::{RESULT_GRACE, UNHEALTHY_REASON};
use crate::settings::RunpodQueue;
use in_flight_jobs::InFlightJobs;
use job_poller::JobPoller;
use job_runner::JobRunner;
use platform_api::PlatformApi;

/// The worker of a RunPod queue.
pub struct QueueWorker {
    api: Arc<PlatformApi>,
    /// The poller and the jobs.
    tasks: TaskTracker,
    /// Cancelled when no further jobs are to be polled.
    stop_polling: CancellationToken,
    /// Cancelled when no job can be served any more.
    abort: CancellationToken,
    /// Cancelled when everything has ended; stops the polls for cancellations.
    ended: CancellationToken,
    /// Cancelled when no further pings are to be sent.
    stop_pinging: CancellationToken,
    listener: TaskTracker,
    /// The thread of the pings; `None` if the platform gave no URL, key or id for them.
    pings: Option<JoinHandle<()>>,
}

/// Reports to the platform that this worker could not be started.
pub async fn report_failed_start(queue: &RunpodQueue, reason: &str) {
    // Without an id, the platform does not know this worker.
    let Some(id) = &queue.pod_id else { return };
    match PlatformApi::new(queue, id) {
        Ok(api) => report_unhealthy(&api, "start", reason).await,
        Err(problem) => warn!("it cannot be reported to RunPod that this worker is unhealthy: {problem}"),
    }
}

async fn report_unhealthy(api: &PlatformApi, check: &str, reason: &str) {
    let reason: String = reason.chars().take(UNHEALTHY_REASON).collect();
    if let Err(problem) = api.report_unhealthy(check, &reason).await {
        warn!("it cannot be reported to RunPod that this worker is unhealthy: {problem}");
    }
}

impl QueueWorker {
    /// Starts to poll for jobs as soon as they can be served.
    ///
    /// # Errors
    ///
    /// Returns an error if the HTTP client or the ping thread cannot be created.
    pub fn start(queue: &RunpodQueue, gateway: Arc<Gateway>, fleet: Arc<Fleet>) -> io::Result<Self> {
        let id = queue.pod_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let (api, in_flight) = (Arc::new(PlatformApi::new(queue, &id)?), Arc::new(InFlightJobs::default()));
        let (tasks, listener) = (TaskTracker::new(), TaskTracker::new());
        let [stop_polling, abort, ended, stop_pinging] = [(); 4].map(|()| CancellationToken::new());
        let has_pings = queue.ping.is_some() && queue.pod_id.is_some() && queue.key.is_some();
        let pings = has_pings.then(|| {
            // A client of its own, because connections belong to the runtime that opened them, and pings run on another
            // one.
            ping::start(
                PlatformApi::new(queue, &id)?,
                Arc::clone(&in_flight),
                queue.ping_interval,
                stop_pinging.clone(),
            )
        });
        let pings = pings.transpose()?;
        let (cancellations, stop) = (cancellations::poll(Arc::clone(&api), Arc::clone(&in_flight)), ended.clone());
        listener.spawn(async move { stop.run_until_cancelled(cancellations).await });
        let (runner_api, runner_gateway) = (Arc::clone(&api), Arc::clone(&gateway));
        let runner = Arc::new(JobRunner { api: runner_api, gateway: runner_gateway, fleet: Arc::clone(&fleet) });
        let poller = JobPoller {
            api: Arc::clone(&api),
            in_flight,
            fleet,
            gateway,
            runner,
            tasks: tasks.clone(),
            stop: stop_polling.clone(),
            abort: abort.clone(),
        };
        tasks.spawn(poller.run());
        info!(worker = id, pings = has_pings, "jobs are taken from RunPod's queue");
        Ok(Self { api, tasks, stop_polling, abort, ended, stop_pinging, listener, pings })
    }

    /// Stops polling and waits for the jobs in flight, including those that an open poll still returns.
    pub async fn drain(&self) {
        self.stop_polling.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops polling and reports to the platform that no job can be served here.
    pub async fn give_up(&mut self, reason: &str) {
        self.stop_polling.cancel();
        self.abort.cancel();
        // Stop the pings first: none may follow the report and contradict it.
        self.stop_pings().await;
        report_unhealthy(&self.api, "llama-server", reason).await;
    }

    /// Ends the drain: waits for at most [`RESULT_GRACE`] until the results of jobs that were cut off are posted.
    pub async fn finish(&self) {
        self.abort.cancel();
        if pause_clock::timeout(RESULT_GRACE, self.drain()).await.is_err() {
            warn!("the results of some jobs cannot be posted in time");
        }
    }

    /// Stops the polls for cancellations and the pings.
    pub async fn end(mut self) {
        self.ended.cancel();
        self.listener.close();
        self.listener.wait().await;
        self.stop_pings().await;
    }

    async fn stop_pings(&mut self) {
        self.stop_pinging.cancel();
        if let Some(pings) = self.pings.take() {
            let _ = tokio::task::spawn_blocking(move || pings.join()).await;
        }
    }
}
