//! Jobs from the queue of a RunPod endpoint, beside the requests that come over HTTP.
//!
//! The platform holds the queue: this side asks for jobs while it can serve some, does each as a request of our own
//! ([`Gateway::serve_job`]), posts what comes of it, and says now and then that it lives. All that is known of a job is
//! in memory. Owns neither the line that jobs wait in beside other requests, nor how many of them there is room for, nor
//! the way to llama-server: all are the gateway's.
//!
//! - `address.rs`: the addresses of RunPod's API
//! - `bounds.rs`: waits, queues and buffers whose size no user needs to choose
//! - `stream_coalescer.rs`: the events of a stream, put together into pieces to post
//! - `in_flight_jobs.rs`: the jobs in flight
//! - `job.rs`: what a job asks for, as a request to the gateway
//! - `input_members.rs`: the members of a JSON object in their order
//! - `output.rs`: what is posted about a job: pieces, results, errors
//! - `failure_streak.rs`: the backoff after a request to the platform that failed
//! - `ping.rs`: the heartbeat that tells the platform that this worker is alive
//! - `job_runner.rs`: one job: sends it to the gateway and posts the result
//! - `cancellations.rs`: asks which jobs are to be cancelled
//! - `job_poller.rs`: polls for jobs while there is room for more
//! - `platform_api.rs`: HTTP to the platform: connections, headers, timeouts, retries

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

use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::pause_clock;
use crate::runpod::bounds::{RESULT_GRACE, UNHEALTHY_REASON};
use crate::settings::RunpodQueue;
use in_flight_jobs::InFlightJobs;
use job_poller::JobPoller;
use job_runner::JobRunner;
use platform_api::PlatformApi;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// The worker of an endpoint's queue.
pub struct QueueWorker {
    wire: Arc<PlatformApi>,
    /// The one that takes jobs, and the jobs.
    tasks: TaskTracker,
    /// Cancelled when no more jobs are to be asked for.
    stop_polling: CancellationToken,
    /// Cancelled when no job can be served any more.
    abort: CancellationToken,
    /// Cancelled when all is over.
    ended: CancellationToken,
    /// Cancelled when no more is to be said of this worker.
    stop_pinging: CancellationToken,
    listener: TaskTracker,
    /// None where the platform does not say how it wants to hear of this worker, or which one it is.
    pings: Option<JoinHandle<()>>,
}

/// Tells the platform that nothing comes of a worker which has not even begun.
pub async fn report_failed_start(queue: &RunpodQueue, reason: &str) {
    // What has no name cannot be told of.
    let Some(id) = &queue.pod_id else { return };
    match PlatformApi::new(queue, id) {
        Ok(wire) => report_unhealthy(&wire, "start", reason).await,
        Err(problem) => warn!("RunPod cannot be told that this worker is unhealthy: {problem}"),
    }
}

async fn report_unhealthy(wire: &PlatformApi, check: &str, reason: &str) {
    let reason: String = reason.chars().take(UNHEALTHY_REASON).collect();
    if let Err(problem) = wire.report_unhealthy(check, &reason).await {
        warn!("RunPod cannot be told that this worker is unhealthy: {problem}");
    }
}

impl QueueWorker {
    /// Begins to take jobs as soon as they can be served.
    pub fn start(queue: &RunpodQueue, gateway: Arc<Gateway>, fleet: Arc<Fleet>) -> io::Result<Self> {
        let id = queue.pod_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let (wire, hand) = (Arc::new(PlatformApi::new(queue, &id)?), Arc::new(InFlightJobs::default()));
        let (tasks, listener) = (TaskTracker::new(), TaskTracker::new());
        let [no_more, lost, over, silent] = [(); 4].map(|()| CancellationToken::new());
        let has_pings = queue.ping.is_some() && queue.pod_id.is_some() && queue.key.is_some();
        let pings = has_pings.then(|| {
            // Connections belong to the runtime that made them.
            ping::start(PlatformApi::new(queue, &id)?, Arc::clone(&hand), queue.ping_interval, silent.clone())
        });
        let pings = pings.transpose()?;
        let (stops, stop) = (cancellations::listen(Arc::clone(&wire), Arc::clone(&hand)), over.clone());
        listener.spawn(async move { stop.run_until_cancelled(stops).await });
        let (own, door) = (Arc::clone(&wire), Arc::clone(&gateway));
        let runner = Arc::new(JobRunner { wire: own, gateway: door, fleet: Arc::clone(&fleet) });
        let taker = JobPoller {
            wire: Arc::clone(&wire),
            in_flight: hand,
            fleet,
            gateway,
            runner,
            tasks: tasks.clone(),
            stop: no_more.clone(),
            abort: lost.clone(),
        };
        tasks.spawn(taker.run());
        info!(worker = id, pings = has_pings, "jobs are taken from RunPod's queue");
        Ok(Self { wire, tasks, stop_polling: no_more, abort: lost, ended: over, stop_pinging: silent, listener, pings })
    }

    /// Asks for no more jobs, and waits until those in hand are done, and whatever a question brings that is under way.
    pub async fn drain(&self) {
        self.stop_polling.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Tells the platform that no job can be served here, and asks for no more.
    pub async fn give_up(&mut self, reason: &str) {
        self.stop_polling.cancel();
        self.abort.cancel();
        // The last word, and none that it lives comes after it.
        self.stop_pings().await;
        report_unhealthy(&self.wire, "llama-server", reason).await;
    }

    /// After the drain: those in hand have been cut, and what comes of them is posted if that does not take long.
    pub async fn cut(&self) {
        self.abort.cancel();
        if pause_clock::timeout(RESULT_GRACE, self.drain()).await.is_err() {
            warn!("what came of some jobs cannot be posted in time");
        }
    }

    /// Ends all that is left: what is still asked, heard and said.
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
