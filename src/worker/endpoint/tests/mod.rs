mod suspicion;
mod unload;

use super::in_flight::InFlight;
use super::*;
use nix::errno::Errno;
use std::io;

const POISON: Fingerprint = Fingerprint(7);

fn endpoint() -> Arc<Endpoint> {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    Arc::new(Endpoint::new(address, HeaderValue::from_static("x"), Arc::default()).unwrap())
}

fn begin(endpoint: &Arc<Endpoint>, fingerprint: Option<Fingerprint>) -> InFlight {
    Arc::clone(endpoint).begin(RequestClass::Inference(fingerprint)).ok().unwrap()
}

#[tokio::test]
async fn a_doubt_that_comes_while_it_is_asked_outlives_the_answer() {
    let endpoint = endpoint();
    assert!(!endpoint.is_doubted());
    endpoint.doubt();
    endpoint.has_pending_compute_errors().await;
    let when_asked = endpoint.doubts();
    endpoint.doubt();
    endpoint.clear_doubts(when_asked);
    assert!(endpoint.is_doubted(), "the answer may be older than the second doubt");
    endpoint.has_pending_compute_errors().await; // its owner hears of it at once
    endpoint.clear_doubts(endpoint.doubts());
    assert!(!endpoint.is_doubted());
}

#[tokio::test]
async fn nothing_is_sent_to_one_that_is_held_and_nobody_doubts_it_for_that() {
    let endpoint = endpoint();
    assert!(!endpoint.resume_requests() && endpoint.pause_requests() && !endpoint.pause_requests());
    assert!(!endpoint.is_open() && !endpoint.is_doubted());
    assert!(endpoint.resume_requests() && endpoint.is_open());
}

#[tokio::test]
async fn a_shortage_of_our_own_is_no_doubt() {
    let endpoint = endpoint();
    let mut request = begin(&endpoint, None);
    request.record_failure(&io::Error::from(Errno::EMFILE));
    assert!(!endpoint.is_doubted());
    request.record_failure(&io::Error::from(Errno::ECONNRESET));
    assert!(endpoint.is_doubted());
}

#[tokio::test(start_paused = true)]
async fn it_is_closed_only_when_nothing_is_in_flight_and_then_for_ever() {
    let endpoint = endpoint();
    let least = Duration::from_secs(10);
    let request = begin(&endpoint, None);
    tokio::time::advance(least).await;
    assert!(!endpoint.close_if_idle(least), "it is in use");
    drop(request);
    assert!(!endpoint.close_if_idle(least), "it has just been");
    tokio::time::advance(least).await;
    assert!(endpoint.close_if_idle(least));
    assert_eq!(endpoint.clone().begin(RequestClass::ReadOnly).err(), Some(NotAccepted::Closed));
    assert!(!endpoint.is_open());
}

#[tokio::test]
async fn what_was_in_flight_or_had_just_broken_is_remembered_at_its_death_and_nothing_else() {
    for (how, expected) in [("in flight", true), ("broke", true), ("left", false), ("broke, then it answered", false)] {
        let endpoint = endpoint();
        endpoint.deaths.record_crash(&[POISON]); // once before
        let mut request = begin(&endpoint, Some(POISON));
        match how {
            "in flight" => {}
            "left" => drop(request),
            _ => {
                request.record_broken_connection();
                drop(request);
                if how != "broke" {
                    endpoint.clear_doubts(endpoint.doubts());
                }
            }
        }
        endpoint.record_exit();
        assert_eq!(endpoint.deaths.is_blocked(POISON), expected, "{how}");
    }
}

#[tokio::test]
async fn only_failures_in_a_row_count() {
    let endpoint = endpoint();
    let fails = || begin(&endpoint, None).record_compute_failure();
    for _ in 1..COMPUTE_ERRORS_UNTIL_RESTART {
        fails();
    }
    assert!(!endpoint.cannot_compute());
    begin(&endpoint, None).record_success();
    fails();
    assert!(!endpoint.cannot_compute());
    let burst: Vec<InFlight> = (0..8).map(|_| begin(&endpoint, None)).collect();
    burst.into_iter().for_each(|mut request| request.record_compute_failure());
    assert!(!endpoint.cannot_compute(), "one batch failed them all");
    for _ in 2..COMPUTE_ERRORS_UNTIL_RESTART {
        fails();
    }
    assert!(endpoint.cannot_compute() && !endpoint.is_open());
    endpoint.has_pending_compute_errors().await;
}
