//! Requests that begin while their worker is being closed.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;

/// A random number generator with a fixed seed.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn spin(&mut self) {
        for _ in 0..self.below(40) {
            std::hint::spin_loop();
        }
    }
}

/// How many endpoints two threads race for, one after the other.
const ROUNDS: usize = 10_000;
const REQUESTS: u64 = 4;

#[test]
fn an_endpoint_is_never_closed_as_idle_under_a_request() {
    let (begun, refused, kept) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let endpoints: Vec<(Arc<Endpoint>, AtomicUsize)> = (0..ROUNDS).map(|_| (endpoint(), AtomicUsize::new(0))).collect();
    let barrier = Barrier::new(2);
    let was_violated = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seeded = Seeded(1);
            for (endpoint, in_flight) in &endpoints {
                barrier.wait();
                for _ in 0..REQUESTS {
                    seeded.spin();
                    match Arc::clone(endpoint).begin(RequestClass::Inference(None), None) {
                        Ok(request) => {
                            in_flight.fetch_add(1, Ordering::SeqCst);
                            begun.fetch_add(1, Ordering::Relaxed);
                            seeded.spin();
                            // The other thread must not close it under this request.
                            was_violated.fetch_or(endpoint.serving().is_closed, Ordering::SeqCst);
                            in_flight.fetch_sub(1, Ordering::SeqCst);
                            drop(request);
                        }
                        Err(NotAccepted::Closed) => _ = refused.fetch_add(1, Ordering::Relaxed),
                        Err(NotAccepted::Suspected) => panic!("there are no suspects"),
                    }
                }
            }
        });
        scope.spawn(|| {
            let mut seeded = Seeded(2);
            for (endpoint, in_flight) in &endpoints {
                barrier.wait();
                seeded.spin();
                match endpoint.close_if_idle(Duration::ZERO) {
                    true => was_violated.fetch_or(in_flight.load(Ordering::SeqCst) > 0, Ordering::SeqCst),
                    false => kept.fetch_add(1, Ordering::Relaxed) > ROUNDS,
                };
            }
        });
    });
    assert!(!was_violated.into_inner(), "an endpoint was closed under a request");
    let (begun, refused, kept) = (begun.into_inner(), refused.into_inner(), kept.into_inner());
    assert_eq!(begun + refused, ROUNDS * REQUESTS as usize, "each request began or was refused");
    for (endpoint, _) in &endpoints {
        assert!(endpoint.serving().is_empty());
    }
    assert!(begun > 0 && refused > 0, "each thread was first in some rounds: {begun} {refused} {kept}");
}

#[tokio::test]
async fn an_endpoint_that_is_closed_to_new_requests_finishes_those_in_flight() {
    let endpoint = endpoint();
    let requests = [begin(&endpoint, None), begin(&endpoint, None)];
    let read_only = Arc::clone(&endpoint).begin(RequestClass::ReadOnly, None).ok().unwrap();
    endpoint.close_to_new();
    assert_eq!(Arc::clone(&endpoint).begin(RequestClass::Inference(None), None).err(), Some(NotAccepted::Closed));
    assert!(!endpoint.is_open() && !endpoint.close_if_idle(Duration::ZERO), "closing it does not make it idle");
    let [first, second] = requests;
    drop(first);
    let gone = second.gone();
    for left in [second, read_only] {
        tokio::select! {
            biased;
            () = endpoint.idle() => panic!("a request is in flight"),
            () = std::future::ready(()) => {}
        }
        drop(left);
    }
    endpoint.idle().await;
    tokio::select! {
        biased;
        () = gone => panic!("no request was cut off"),
        () = std::future::ready(()) => {}
    }
}
