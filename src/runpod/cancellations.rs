//! Hears which jobs are to be stopped, because nobody waits for them any more.

use super::failure_streak::FailureStreak;
use super::in_flight_jobs::InFlightJobs;
use super::platform_api::PlatformApi;
use crate::pause_clock::{self, ActiveInstant};
use crate::runpod::bounds::STOPS_PAUSE;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use tracing::{info, warn};

/// Asks again and again, until it is dropped.
pub(super) async fn listen(wire: Arc<PlatformApi>, hand: Arc<InFlightJobs>) {
    let mut failures = FailureStreak::new("nobody says which jobs to stop", "it is said again which jobs to stop");
    loop {
        let asked = ActiveInstant::now();
        let Some(heard) = wire.stops().await else {
            warn!("jobs cannot be stopped: the address that jobs are taken from does not show where to ask");
            return;
        };
        let pause = match heard {
            Ok(text) => {
                failures.reset();
                let ids = text.as_deref().map(named).unwrap_or_default();
                for id in &ids {
                    if hand.stop(id) {
                        info!(job = id, "a job is stopped");
                    }
                }
                if ids.is_empty() { STOPS_PAUSE.saturating_sub(asked.elapsed()) } else { continue }
            }
            Err(setback) => failures.record(setback).max(STOPS_PAUSE),
        };
        pause_clock::sleep(pause).await;
    }
}

/// The jobs that are named, whatever else there is.
fn named(text: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Stops {
        #[serde(rename = "jobsToStop")]
        jobs: Vec<Value>,
    }
    let Ok(stops) = serde_json::from_slice::<Stops>(text) else { return Vec::new() };
    let text = |id| if let Value::String(id) = id { Some(id) } else { None };
    stops.jobs.into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_are_ids() {
        for (text, ids) in [
            (&br#"{"jobsToStop":["a","b",5]}"#[..], &["a", "b"][..]),
            (br#"{"jobsToStop":null}"#, &[]),
            (br#"{"jobsToStop":"a"}"#, &[]),
            (br#"["a"]"#, &[]),
            (b"null", &[]),
            (b"{", &[]),
        ] {
            assert_eq!(named(text), ids);
        }
    }
}
