//! Who is suspected of what, over the lives of a llama-server.

use super::super::in_flight::InFlight;
use super::super::*;
use crate::pause_clock;
use proptest::prelude::*;

const ONE: Fingerprint = Fingerprint(1);
const OTHER: Fingerprint = Fingerprint(2);
const THIRD: Fingerprint = Fingerprint(3);

/// One life.
fn life(deaths: &Arc<CrashSuspects>) -> Arc<Endpoint> {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    Arc::new(Endpoint::new(address, HeaderValue::from_static("x"), Arc::clone(deaths)).unwrap())
}

fn begin(endpoint: &Arc<Endpoint>, fingerprint: Fingerprint) -> Result<InFlight, NotAccepted> {
    Arc::clone(endpoint).begin(RequestClass::Inference(Some(fingerprint)))
}

fn serve(endpoint: &Arc<Endpoint>, fingerprint: Fingerprint) {
    begin(endpoint, fingerprint).ok().unwrap().record_success();
}

#[tokio::test(start_paused = true)]
async fn two_suspects_are_never_in_flight_together_and_others_are_free() {
    let deaths = Arc::<CrashSuspects>::default();
    deaths.record_crash(&[ONE, OTHER]);
    let endpoint = life(&deaths);
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
async fn a_suspicion_that_is_too_old_holds_up_nobody() {
    let deaths = Arc::<CrashSuspects>::default();
    deaths.record_crash(&[ONE, OTHER]);
    tokio::time::advance(crate::worker::bounds::DEATHS_REMEMBERED).await;
    let endpoint = life(&deaths);
    let (_one, _other) = (begin(&endpoint, ONE).ok().unwrap(), begin(&endpoint, OTHER).ok().unwrap());
}

#[tokio::test]
async fn what_was_given_up_in_silence_is_accused_of_a_hang_and_of_nothing_else() {
    for (what, accused) in [
        ("given up", true),
        ("given up, and then only what had begun before it was served", true),
        ("given up, and something was served since", false),
        ("answered with an error", false),
        ("served", false),
        ("never sent for want of descriptors", false),
        ("given up, and it died by itself", false),
    ] {
        let deaths = Arc::<CrashSuspects>::default();
        let endpoint = life(&deaths);
        let mut before = begin(&endpoint, OTHER).ok().unwrap();
        let mut request = begin(&endpoint, ONE).ok().unwrap();
        match what {
            "answered with an error" => request.record_answer_end(),
            "served" => request.record_success(),
            "never sent for want of descriptors" => {
                request.record_failure(&std::io::Error::from(nix::errno::Errno::EMFILE))
            }
            _ => {}
        }
        drop(request);
        match what {
            "given up, and then only what had begun before it was served" => before.record_success(),
            "given up, and something was served since" => serve(&endpoint, THIRD),
            _ => {}
        }
        drop(before);
        let _victim = begin(&endpoint, THIRD).ok().unwrap();
        if what == "given up, and it died by itself" {
            endpoint.record_exit();
        } else {
            endpoint.record_hang();
        }
        assert_eq!(deaths.is_suspected(ONE), accused, "{what}");
        assert!(deaths.is_suspected(THIRD), "{what}: it was in flight");
    }
}

#[tokio::test]
async fn of_two_suspects_the_one_that_was_given_up_first_is_convicted_of_the_second_hang() {
    let deaths = Arc::<CrashSuspects>::default();
    deaths.record_crash(&[ONE, OTHER]);
    let endpoint = life(&deaths);
    drop(begin(&endpoint, ONE)); // its client lost patience
    let _other = begin(&endpoint, OTHER).ok().unwrap();
    endpoint.record_hang();
    assert!(deaths.is_blocked(ONE));
    assert!(!deaths.is_blocked(OTHER));
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_does_not_use_it_and_is_not_cut_off() {
    let least = Duration::from_secs(10);
    let endpoint = life(&Arc::default());
    tokio::time::advance(least - Duration::from_secs(1)).await;
    let look = Arc::clone(&endpoint).begin(RequestClass::ReadOnly).ok().unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!endpoint.close_if_idle(least), "it is being looked at");
    drop(look);
    assert!(endpoint.close_if_idle(least), "nobody has used it");
}

proptest! {
    /// Clients send one deadly request and innocent ones, again after each crash, until they are served or refused; now
    /// and then one leaves. Whatever the order, nobody is refused but the killer, which kills twice and never again, and
    /// everybody is served in the end.
    #[test]
    fn one_killer_among_many_is_found_and_nobody_else(
        slots in 1usize..6,
        innocents in 1u64..8,
        steps in proptest::collection::vec((0u8..8, 0usize..64), 400),
    ) {
        const KILLER: Fingerprint = Fingerprint(0);
        let deaths = Arc::<CrashSuspects>::default();
        let mut endpoint = life(&deaths);
        let mut in_flight: Vec<(Fingerprint, InFlight)> = Vec::new();
        let mut kills = 0;
        let mut left: Vec<Fingerprint> = (0..=innocents).map(Fingerprint).collect();
        // The last steps are in order, so that all are served.
        let steps = steps.into_iter().chain((0..200).map(|n| (if n % 2 == 0 { 0 } else { 6 }, n / 2)));
        for (what, which) in steps {
            let suspects = in_flight.iter().filter(|(_, request)| request.is_suspect).count();
            prop_assert!(suspects <= 1);
            if what < 4 {
                let Some(&fingerprint) = left.get(which % left.len().max(1)) else { continue };
                if deaths.is_blocked(fingerprint) {
                    prop_assert_eq!(fingerprint, KILLER);
                    left.retain(|one| *one != KILLER);
                } else if in_flight.len() < slots
                    && in_flight.iter().all(|(one, _)| *one != fingerprint)
                    && let Ok(request) = begin(&endpoint, fingerprint)
                {
                    in_flight.push((fingerprint, request));
                }
            } else if !in_flight.is_empty() {
                let (fingerprint, mut request) = in_flight.swap_remove(which % in_flight.len());
                if what == 4 {
                    drop(request);
                } else if fingerprint == KILLER {
                    kills += 1;
                    in_flight.push((fingerprint, request));
                    endpoint.record_exit();
                    in_flight.clear();
                    endpoint = life(&deaths);
                } else {
                    request.record_success();
                    left.retain(|one| *one != fingerprint);
                }
            }
        }
        prop_assert!(left.is_empty(), "{:?}", left);
        prop_assert_eq!(kills, 2);
    }
}
