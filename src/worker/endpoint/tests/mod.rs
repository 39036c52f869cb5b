mod suspicion;
mod unload;

use std::io;

use nix::errno::Errno;

use super::in_flight::InFlight;
use super::*;

const POISON: Fingerprint = Fingerprint(7);

fn endpoint() -> Arc<Endpoint> {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    Arc::new(Endpoint::new(address, HeaderValue::from_static("x"), Arc::default()).unwrap())
}

fn begin(endpoint: &Arc<Endpoint>, fingerprint: Option<Fingerprint>) -> InFlight {
    Arc::clone(endpoint).begin(RequestClass::Inference(fingerprint), None).ok().unwrap()
}

#[tokio::test]
async fn a_doubt_that_is_raised_during_a_probe_outlives_its_answer() {
    let endpoint = endpoint();
    assert!(!endpoint.is_doubted());
    endpoint.doubt();
    endpoint.attention_needed().await;
    let doubts_at_probe = endpoint.doubts();
    endpoint.doubt();
    endpoint.clear_doubts(doubts_at_probe);
    assert!(endpoint.is_doubted(), "the answer may be older than the second doubt");
    endpoint.attention_needed().await; // the owner is notified at once
    endpoint.clear_doubts(endpoint.doubts());
    assert!(!endpoint.is_doubted());
}

#[tokio::test]
async fn a_paused_endpoint_gets_no_requests_and_is_not_doubted() {
    let endpoint = endpoint();
    assert!(!endpoint.resume_requests() && endpoint.pause_requests() && !endpoint.pause_requests());
    assert!(!endpoint.is_open() && !endpoint.is_doubted());
    assert!(endpoint.resume_requests() && endpoint.is_open());
}

#[tokio::test]
async fn a_shortage_of_this_machine_raises_no_doubt() {
    let endpoint = endpoint();
    let mut request = begin(&endpoint, None);
    request.record_failure(&io::Error::from(Errno::EMFILE));
    assert!(!endpoint.is_doubted());
    request.record_failure(&io::Error::from(Errno::ECONNRESET));
    assert!(endpoint.is_doubted());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_closed_as_idle_only_without_requests_and_stays_closed() {
    let endpoint = endpoint();
    let least = Duration::from_secs(10);
    let request = begin(&endpoint, None);
    tokio::time::advance(least).await;
    assert!(!endpoint.close_if_idle(least), "it is in use");
    drop(request);
    assert!(!endpoint.close_if_idle(least), "it was in use until now");
    tokio::time::advance(least).await;
    assert!(endpoint.close_if_idle(least));
    assert_eq!(endpoint.clone().begin(RequestClass::ReadOnly, None).err(), Some(NotAccepted::Closed));
    assert!(!endpoint.is_open());
}

#[tokio::test]
async fn only_requests_in_flight_or_just_broken_become_suspects_after_a_crash() {
    for (how, expected) in
        [("in flight", true), ("broken", true), ("left", false), ("broken, then a probe was answered", false)]
    {
        let endpoint = endpoint();
        endpoint.crash_suspects.record_crash(&[POISON]); // the first of two crashes
        let mut request = begin(&endpoint, Some(POISON));
        match how {
            "in flight" => {}
            "left" => drop(request),
            _ => {
                request.record_broken_connection();
                drop(request);
                if how != "broken" {
                    endpoint.clear_doubts(endpoint.doubts());
                }
            }
        }
        endpoint.record_exit();
        assert_eq!(endpoint.crash_suspects.is_blocked(POISON), expected, "{how}");
    }
}

#[tokio::test]
async fn only_compute_failures_in_a_row_count() {
    let endpoint = endpoint();
    let fail = || begin(&endpoint, None).record_compute_failure();
    for _ in 1..COMPUTE_ERRORS_UNTIL_RESTART {
        fail();
    }
    assert!(!endpoint.cannot_compute());
    begin(&endpoint, None).record_success();
    fail();
    assert!(!endpoint.cannot_compute());
    let burst: Vec<InFlight> = (0..8).map(|_| begin(&endpoint, None)).collect();
    burst.into_iter().for_each(|mut request| request.record_compute_failure());
    assert!(!endpoint.cannot_compute(), "one failed batch counts once");
    for _ in 2..COMPUTE_ERRORS_UNTIL_RESTART {
        fail();
    }
    assert!(endpoint.cannot_compute() && !endpoint.is_open());
    endpoint.attention_needed().await;
}
