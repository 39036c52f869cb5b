//! Requests that come while their worker is being closed.

use super::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// A generator whose numbers a test can repeat.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn dawdle(&mut self) {
        for _ in 0..self.below(40) {
            std::hint::spin_loop();
        }
    }
}

/// What two threads do to each of these endpoints at the same time, round by round.
const ROUNDS: usize = 10_000;
const REQUESTS: u64 = 4;

#[test]
fn a_request_that_has_begun_is_never_on_one_that_was_closed_as_idle() {
    let (begun, refused, kept) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let current: Vec<(Arc<Endpoint>, AtomicUsize)> = (0..ROUNDS).map(|_| (endpoint(), AtomicUsize::new(0))).collect();
    let barrier = Barrier::new(2);
    let was_broken = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seeded = Seeded(1);
            for (endpoint, in_flight) in &current {
                barrier.wait();
                for _ in 0..REQUESTS {
                    seeded.dawdle();
                    match Arc::clone(endpoint).begin(RequestClass::Inference(None)) {
                        Ok(request) => {
                            in_flight.fetch_add(1, Ordering::SeqCst);
                            begun.fetch_add(1, Ordering::Relaxed);
                            seeded.dawdle();
                            // Whoever closes it must wait for this one.
                            was_broken.fetch_or(endpoint.serving().closed, Ordering::SeqCst);
                            in_flight.fetch_sub(1, Ordering::SeqCst);
                            drop(request);
                        }
                        Err(NotAccepted::Closed) => _ = refused.fetch_add(1, Ordering::Relaxed),
                        Err(NotAccepted::Suspected) => panic!("nobody is suspected"),
                    }
                }
            }
        });
        scope.spawn(|| {
            let mut seeded = Seeded(2);
            for (endpoint, in_flight) in &current {
                barrier.wait();
                seeded.dawdle();
                match endpoint.close_if_idle(Duration::ZERO) {
                    true => was_broken.fetch_or(in_flight.load(Ordering::SeqCst) > 0, Ordering::SeqCst),
                    false => kept.fetch_add(1, Ordering::Relaxed) > ROUNDS,
                };
            }
        });
    });
    assert!(!was_broken.into_inner(), "one was closed under a request");
    let (begun, refused, kept) = (begun.into_inner(), refused.into_inner(), kept.into_inner());
    assert_eq!(begun + refused, ROUNDS * REQUESTS as usize, "each began or was told why not");
    for (endpoint, _) in &current {
        assert!(endpoint.serving().is_empty());
    }
    assert!(begun > 0 && refused > 0, "both came first now and then: {begun} {refused} {kept}");
}

#[tokio::test]
async fn one_that_is_closed_to_new_requests_finishes_those_it_has() {
    let endpoint = endpoint();
    let requests = [begin(&endpoint, None), begin(&endpoint, None)];
    let looks = Arc::clone(&endpoint).begin(RequestClass::ReadOnly).ok().unwrap();
    endpoint.close_to_new();
    assert_eq!(Arc::clone(&endpoint).begin(RequestClass::Inference(None)).err(), Some(NotAccepted::Closed));
    assert!(!endpoint.is_open() && !endpoint.close_if_idle(Duration::ZERO), "it is not idle for that");
    let [first, second] = requests;
    drop(first);
    let gone = second.gone();
    for left in [second, looks] {
        tokio::select! {
            biased;
            () = endpoint.idle() => panic!("something is in flight"),
            () = std::future::ready(()) => {}
        }
        drop(left);
    }
    endpoint.idle().await;
    tokio::select! {
        biased;
        () = gone => panic!("nothing was cut"),
        () = std::future::ready(()) => {}
    }
}
