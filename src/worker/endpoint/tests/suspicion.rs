//! Which requests become suspects over several lives of a llama-server.

use proptest::prelude::*;

use super::super::in_flight::InFlight;
use super::super::*;
use crate::pause_clock;

const ONE: Fingerprint = Fingerprint(1);
const OTHER: Fingerprint = Fingerprint(2);
const THIRD: Fingerprint = Fingerprint(3);

/// Creates the endpoint of one life of a llama-server.
fn life(crash_suspects: &Arc<CrashSuspects>) -> Arc<Endpoint> {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    Arc::new(Endpoint::new(address, HeaderValue::from_static("x"), Arc::clone(crash_suspects)).unwrap())
}

fn begin(endpoint: &Arc<Endpoint>, fingerprint: Fingerprint) -> Result<InFlight, NotAccepted> {
    Arc::clone(endpoint).begin(RequestClass::Inference(Some(fingerprint)), None)
}

fn serve(endpoint: &Arc<Endpoint>, fingerprint: Fingerprint) {
    begin(endpoint, fingerprint).ok().unwrap().record_success();
}

#[tokio::test(start_paused = true)]
async fn two_suspects_are_never_in_flight_together_and_other_requests_are_accepted() {
    let crash_suspects = Arc::<CrashSuspects>::default();
    crash_suspects.record_crash(&[ONE, OTHER]);
    let endpoint = life(&crash_suspects);
    let one = begin(&endpoint, ONE).ok().unwrap();
    for suspect in [ONE, OTHER] {
        assert_eq!(begin(&endpoint, suspect).err(), Some(NotAccepted::Suspected));
    }
    let third = begin(&endpoint, THIRD).ok().unwrap();
    let waits = async {
        endpoint.no_suspect_in_flight().await;
        begin(&endpoint, OTHER).ok().unwrap()
    };
    let leaves = async {
        tokio::task::yield_now().await;
        drop(one);
    };
    let (mut other, ()) = tokio::join!(pause_clock::timeout(Duration::from_secs(1), waits), leaves);
    other.as_mut().unwrap().record_success();
    drop((other, third));
    let _one = begin(&endpoint, ONE).ok().unwrap();
    assert!(begin(&endpoint, OTHER).is_ok(), "it has been served");
}

#[tokio::test(start_paused = true)]
async fn an_expired_suspicion_delays_no_request() {
    let crash_suspects = Arc::<CrashSuspects>::default();
    crash_suspects.record_crash(&[ONE, OTHER]);
    tokio::time::advance(crate::worker::bounds::DEATHS_REMEMBERED).await;
    let endpoint = life(&crash_suspects);
    let (_one, _other) = (begin(&endpoint, ONE).ok().unwrap(), begin(&endpoint, OTHER).ok().unwrap());
}

#[tokio::test]
async fn an_abandoned_request_is_accused_of_a_hang_but_not_of_a_crash() {
    for (case, is_accused) in [
        ("abandoned", true),
        ("abandoned, then an earlier request was served", true),
        ("abandoned, then a later request was served", false),
        ("answered with an error", false),
        ("served", false),
        ("not sent because descriptors ran out", false),
        ("abandoned, then llama-server crashed", false),
    ] {
        let crash_suspects = Arc::<CrashSuspects>::default();
        let endpoint = life(&crash_suspects);
        let mut before = begin(&endpoint, OTHER).ok().unwrap();
        let mut request = begin(&endpoint, ONE).ok().unwrap();
        match case {
            "answered with an error" => request.record_answer_end(),
            "served" => request.record_success(),
            "not sent because descriptors ran out" => {
                request.record_failure(&std::io::Error::from(nix::errno::Errno::EMFILE))
            }
            _ => {}
        }
        drop(request);
        match case {
            "abandoned, then an earlier request was served" => before.record_success(),
            "abandoned, then a later request was served" => serve(&endpoint, THIRD),
            _ => {}
        }
        drop(before);
        let _victim = begin(&endpoint, THIRD).ok().unwrap();
        if case == "abandoned, then llama-server crashed" {
            endpoint.record_exit();
        } else {
            endpoint.record_hang();
        }
        assert_eq!(crash_suspects.is_suspected(ONE), is_accused, "{case}");
        assert!(crash_suspects.is_suspected(THIRD), "{case}: it was in flight");
    }
}

#[tokio::test]
async fn a_second_hang_blocks_the_suspect_that_was_abandoned_first() {
    let crash_suspects = Arc::<CrashSuspects>::default();
    crash_suspects.record_crash(&[ONE, OTHER]);
    let endpoint = life(&crash_suspects);
    drop(begin(&endpoint, ONE)); // its client lost patience
    let _other = begin(&endpoint, OTHER).ok().unwrap();
    endpoint.record_hang();
    assert!(crash_suspects.is_blocked(ONE));
    assert!(!crash_suspects.is_blocked(OTHER));
}

#[tokio::test(start_paused = true)]
async fn a_read_only_request_does_not_count_as_use_and_is_not_cut_off() {
    let least = Duration::from_secs(10);
    let endpoint = life(&Arc::default());
    tokio::time::advance(least - Duration::from_secs(1)).await;
    let read_only = Arc::clone(&endpoint).begin(RequestClass::ReadOnly, None).ok().unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!endpoint.close_if_idle(least), "a read-only request is in flight");
    drop(read_only);
    assert!(endpoint.close_if_idle(least), "no inference request has used it");
}

proptest! {
    /// Clients send one poison request and innocent ones, again after each crash, until they are served or blocked;
    /// sometimes a client leaves. In every order only the poison request is blocked, after exactly two crashes, and all
    /// others are served in the end.
    #[test]
    fn the_poison_request_among_innocent_ones_is_blocked_and_no_other(
        slots in 1usize..6,
        innocents in 1u64..8,
        steps in proptest::collection::vec((0u8..8, 0usize..64), 400),
    ) {
        const POISON: Fingerprint = Fingerprint(0);
        let crash_suspects = Arc::<CrashSuspects>::default();
        let mut endpoint = life(&crash_suspects);
        let mut in_flight: Vec<(Fingerprint, InFlight)> = Vec::new();
        let mut crashes = 0;
        let mut unserved: Vec<Fingerprint> = (0..=innocents).map(Fingerprint).collect();
        // The last steps are not random, so that every request is served in the end.
        let steps = steps.into_iter().chain((0..200).map(|n| (if n % 2 == 0 { 0 } else { 6 }, n / 2)));
        for (action, which) in steps {
            let suspects = in_flight.iter().filter(|(_, request)| request.is_suspect).count();
            prop_assert!(suspects <= 1);
            if action < 4 {
                let Some(&fingerprint) = unserved.get(which % unserved.len().max(1)) else { continue };
                if crash_suspects.is_blocked(fingerprint) {
                    prop_assert_eq!(fingerprint, POISON);
                    unserved.retain(|known| *known != POISON);
                } else if in_flight.len() < slots
                    && in_flight.iter().all(|(known, _)| *known != fingerprint)
                    && let Ok(request) = begin(&endpoint, fingerprint)
                {
                    in_flight.push((fingerprint, request));
                }
            } else if !in_flight.is_empty() {
                let (fingerprint, mut request) = in_flight.swap_remove(which % in_flight.len());
                if action == 4 {
                    drop(request);
                } else if fingerprint == POISON {
                    crashes += 1;
                    in_flight.push((fingerprint, request));
                    endpoint.record_exit();
                    in_flight.clear();
                    endpoint = life(&crash_suspects);
                } else {
                    request.record_success();
                    unserved.retain(|known| *known != fingerprint);
                }
            }
        }
        prop_assert!(unserved.is_empty(), "{:?}", unserved);
        prop_assert_eq!(crashes, 2);
    }
}
