//! Pings the platform from a thread of its own: however busy the other threads are, the platform must not take this
//! worker for dead and give its jobs to another one.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::failure_streak::{self, FailureStreak, PollError};
use super::in_flight_jobs::InFlightJobs;
use super::platform_api::PlatformApi;
use crate::runpod::bounds::PING_ATTEMPTS;

/// Starts a thread that pings every `period` until `stop` is cancelled.
///
/// # Errors
///
/// Returns an error if the runtime or the thread cannot be created.
pub(super) fn start(
    api: PlatformApi,
    in_flight: Arc<InFlightJobs>,
    period: Duration,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pings = async move { stop.run_until_cancelled(keep_pinging(&api, &in_flight, period)).await };
    thread::Builder::new().name("runpod-ping".to_owned()).spawn(move || {
        runtime.block_on(pings);
        // A DNS lookup that hangs must not delay the end.
        runtime.shutdown_background();
    })
}

/// Pings for ever. Uses the kernel's clock, because the platform does not stop while this process is paused.
async fn keep_pinging(api: &PlatformApi, in_flight: &InFlightJobs, period: Duration) {
    let mut ticks = interval(period);
    // After a pause one ping is enough; there must be no burst to catch up.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = FailureStreak::new("pings to RunPod fail", "pings to RunPod succeed again");
    loop {
        ticks.tick().await;
        // The same timeout as in RunPod's SDK.
        let limit = period * 2;
        if timeout(limit, ping(api, in_flight, limit, &mut failures)).await.is_err() {
            failures.record(PollError::Failed("RunPod does not answer in time".to_owned()));
        }
    }
}

async fn ping(api: &PlatformApi, in_flight: &InFlightJobs, limit: Duration, failures: &mut FailureStreak) {
    for attempt in 1..=PING_ATTEMPTS {
        match api.ping(&in_flight.ids(), limit).await {
            Ok(()) => return failures.reset(),
            Err(problem) => _ = failures.record(PollError::Failed(problem)),
        }
        sleep(failure_streak::backoff(attempt)).await;
    }
}
