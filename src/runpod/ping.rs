//! Says that this worker lives, from a thread of its own: however busy the others are, the platform must not take it
//! for dead and give its jobs to another.

use super::failure_streak::{self, FailureStreak, PollError};
use super::in_flight_jobs::InFlightJobs;
use super::platform_api::PlatformApi;
use crate::runpod::bounds::PING_TRIES;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pings every `period` until `stop` is cancelled.
pub(super) fn start(
    wire: PlatformApi,
    hand: Arc<InFlightJobs>,
    period: Duration,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pings = async move { stop.run_until_cancelled(keep_pinging(&wire, &hand, period)).await };
    thread::Builder::new().name("runpod-ping".to_owned()).spawn(move || {
        runtime.block_on(pings);
        // The name of a host that cannot be resolved must not hold up the end.
        runtime.shutdown_background();
    })
}

/// Time is the kernel's here: the platform has gone on while this program was paused.
async fn keep_pinging(wire: &PlatformApi, hand: &InFlightJobs, period: Duration) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures =
        FailureStreak::new("RunPod does not hear that this worker lives", "RunPod hears again that it lives");
    loop {
        ticks.tick().await;
        // As long as RunPod's SDK gives it.
        let patience = period * 2;
        if timeout(patience, ping(wire, hand, patience, &mut failures)).await.is_err() {
            failures.record(PollError::Failed("RunPod does not answer in time".to_owned()));
        }
    }
}

async fn ping(wire: &PlatformApi, hand: &InFlightJobs, patience: Duration, failures: &mut FailureStreak) {
    for tried in 1..=PING_TRIES {
        match wire.ping(&hand.ids(), patience).await {
            Ok(()) => return failures.reset(),
            Err(problem) => _ = failures.record(PollError::Failed(problem)),
        }
        sleep(failure_streak::after_failure(tried)).await;
    }
}
