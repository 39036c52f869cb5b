//! Polls for cancelled jobs and stops them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tracing::{info, warn};

use super::failure_streak::FailureStreak;
use super::in_flight_jobs::InFlightJobs;
use super::platform_api::PlatformApi;
use crate::pause_clock::{self, ActiveInstant};
use crate::runpod::bounds::CANCELLATION_POLL_PAUSE;

/// Polls until it is dropped.
pub(super) async fn poll(api: Arc<PlatformApi>, in_flight: Arc<InFlightJobs>) {
    let mut failures =
        FailureStreak::new("the list of jobs to stop cannot be fetched", "the list of jobs to stop is fetched again");
    loop {
        let polled = ActiveInstant::now();
        let Some(response) = api.poll_cancellations().await else {
            warn!(
                "jobs cannot be cancelled: the URL for this cannot be derived from the URL that jobs are polled from"
            );
            return;
        };
        let pause = match response {
            Ok(text) => {
                failures.reset();
                // The next poll follows at once after a list with jobs: there may be more.
                let ids = text.as_deref().map(job_ids).unwrap_or_default();
                for id in &ids {
                    if in_flight.stop(id) {
                        info!(job = id, "the job was cancelled and is stopped");
                    }
                }
                if ids.is_empty() { CANCELLATION_POLL_PAUSE.saturating_sub(polled.elapsed()) } else { continue }
            }
            Err(error) => failures.record(error).max(CANCELLATION_POLL_PAUSE),
        };
        pause_clock::sleep(pause).await;
    }
}

/// Returns the ids in the list of cancelled jobs; ignores everything else.
fn job_ids(text: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Cancellations {
        #[serde(rename = "jobsToStop")]
        jobs: Vec<Value>,
    }
    let Ok(cancellations) = serde_json::from_slice::<Cancellations>(text) else { return Vec::new() };
    let text = |id| if let Value::String(id) = id { Some(id) } else { None };
    cancellations.jobs.into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strings_are_job_ids() {
        for (text, ids) in [
            (&br#"{"jobsToStop":["a","b",5]}"#[..], &["a", "b"][..]),
            (br#"{"jobsToStop":null}"#, &[]),
            (br#"{"jobsToStop":"a"}"#, &[]),
            (br#"["a"]"#, &[]),
            (b"null", &[]),
            (b"{", &[]),
        ] {
            assert_eq!(job_ids(text), ids);
        }
    }
}
