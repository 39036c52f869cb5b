use super::ticket::{QueueEntry, Ticket};
use super::*;
use crate::fleet::{Fingerprint, Lease, LeaseRequest, ModelInfo, RequestClass, RoutingPolicy, StubWorker};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const WORK: RequestClass = RequestClass::Inference(None);

fn lease_request(errand: RequestClass) -> LeaseRequest<'static> {
    LeaseRequest::from(errand)
}
const LONG: Duration = Duration::from_secs(300);

fn queue(slots: usize, bound: Option<usize>, timeout: Option<Duration>) -> (Queue, Arc<AtomicBool>) {
    let ready = Arc::new(AtomicBool::new(true));
    let gate = Arc::clone(&ready);
    let patience = QueueTimeouts { queue: timeout, request: LONG };
    let metrics = Arc::new(Metrics::new("test"));
    let slots = move || if gate.load(Ordering::SeqCst) { slots } else { 0 };
    (Queue::new(bound, patience, slots, metrics, Arc::default()), ready)
}

fn enter(queue: &Queue, name: &str) -> Result<QueueEntry, Refusal> {
    queue.enter(name, true, || Ok(()))
}

fn counts(queue: &Queue) -> (usize, usize) {
    let state = queue.lock();
    (state.fair_queue.active(), state.fair_queue.waiting())
}

async fn is_waiting(future: &mut (impl Future<Output = Result<Ticket, Refusal>> + Unpin)) -> bool {
    tokio::select! {
        biased;
        _ = future => false,
        () = tokio::task::yield_now() => true,
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_charges_nothing() {
    let (queue, _) = queue(1, Some(1), None);
    let _slot = enter(&queue, "a").unwrap();
    let _waits = enter(&queue, "a").unwrap();
    let mut charged = false;
    let refused = queue.enter("b", true, || {
        charged = true;
        Ok(())
    });
    assert_eq!(refused.err(), Some(Refusal::QueueFull(RETRY_AFTER_UNKNOWN)));
    assert!(!charged);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_charge_is_refused_takes_no_place() {
    let (queue, _) = queue(1, Some(1), None);
    let refused = queue.enter("a", true, || Err(Refusal::RateLimited("requests", LONG)));
    assert_eq!(refused.err(), Some(Refusal::RateLimited("requests", LONG)));
    assert_eq!(counts(&queue), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn retry_after_follows_the_time_that_slots_are_held() {
    let (queue, _) = queue(2, Some(0), None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.unwrap();
    tokio::time::advance(Duration::from_secs(8)).await;
    drop(ticket);
    let _held = (enter(&queue, "a").unwrap(), enter(&queue, "a").unwrap());
    assert_eq!(enter(&queue, "a").err(), Some(Refusal::QueueFull(Duration::from_secs(4))));
}

#[tokio::test(start_paused = true)]
async fn a_freed_slot_goes_to_the_next_waiter_and_not_to_one_that_left() {
    let (queue, _) = queue(1, None, None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.unwrap();
    let gone = enter(&queue, "a").unwrap();
    let mut next = Box::pin(enter(&queue, "a").unwrap().ticket());
    assert!(is_waiting(&mut next).await);
    drop(gone);
    assert_eq!(counts(&queue), (1, 1));
    drop(ticket);
    let ticket = next.await.unwrap();
    assert_eq!(counts(&queue), (1, 0));
    drop(ticket);
    assert_eq!(counts(&queue), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_as_it_is_granted_a_slot_passes_it_on() {
    let (queue, _) = queue(1, None, None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.unwrap();
    let leaving = enter(&queue, "a").unwrap();
    let staying = enter(&queue, "b").unwrap();
    drop(ticket);
    assert_eq!(counts(&queue), (1, 1), "the slot is on its way to the one that leaves");
    drop(leaving);
    assert!(staying.ticket().await.is_ok());
    assert_eq!(counts(&queue), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_with_queue_timeout() {
    let (queue, _) = queue(1, None, Some(Duration::from_secs(3)));
    let _slot = enter(&queue, "a").unwrap();
    let start = ActiveInstant::now();
    let refused = enter(&queue, "a").unwrap().ticket().await.err();
    assert_eq!(refused, Some(Refusal::QueueTimeout(RETRY_AFTER_UNKNOWN)));
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(counts(&queue).1, 0);
}

#[tokio::test(start_paused = true)]
async fn without_queue_timeout_only_the_wait_for_a_model_has_an_end() {
    let (queue, ready) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap();
    let mut waits = Box::pin(enter(&queue, "a").unwrap().ticket());
    assert!(tokio::time::timeout(LONG * 3, &mut waits).await.is_err(), "it still waits behind a served request");
    drop(slot);
    assert!(waits.await.is_ok());
    ready.store(false, Ordering::SeqCst);
    let start = ActiveInstant::now();
    let refused = enter(&queue, "a").unwrap().ticket().await.err();
    assert_eq!(refused, Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
    assert_eq!(start.elapsed(), LONG);
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_model_that_is_not_ready_even_when_slots_are_free() {
    let (queue, ready) = queue(2, None, None);
    ready.store(false, Ordering::SeqCst);
    let mut waits = Box::pin(enter(&queue, "a").unwrap().ticket());
    assert!(is_waiting(&mut waits).await);
    ready.store(true, Ordering::SeqCst);
    queue.grant_slots(&mut queue.lock());
    assert!(waits.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_ticket_for_a_worker_that_went_away_goes_back_to_the_front() {
    let (queue, ready) = queue(1, None, None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.unwrap();
    let mut second = Box::pin(enter(&queue, "a").unwrap().ticket());
    ready.store(false, Ordering::SeqCst);
    let mut first = Box::pin(ticket.requeue("a").ticket());
    assert!(is_waiting(&mut first).await && is_waiting(&mut second).await);
    assert_eq!(counts(&queue), (0, 2));
    ready.store(true, Ordering::SeqCst);
    queue.grant_slots(&mut queue.lock());
    let ticket = first.await.unwrap();
    assert!(is_waiting(&mut second).await);
    drop(ticket);
    assert!(second.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn closing_refuses_all_waiters_and_newcomers() {
    let (queue, _) = queue(1, None, None);
    let _slot = enter(&queue, "a").unwrap();
    let waits = enter(&queue, "a").unwrap();
    queue.close();
    let refusal = Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
    assert_eq!(waits.ticket().await.err(), refusal);
    assert_eq!(enter(&queue, "b").err(), refusal);
}

#[tokio::test(start_paused = true)]
async fn the_drain_waits_for_requests_without_a_slot_too_and_counts_them_nowhere() {
    let (queue, _) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap();
    let pass = queue.enter("a", false, || Ok(())).unwrap();
    assert_eq!(queue.0.metrics.active.get(), 1, "a pass takes no slot");
    queue.close();
    drop(slot);
    assert!(!queue.0.drained.is_cancelled(), "the pass is in flight");
    drop(pass);
    queue.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_retired_queue_waits_for_yielded_slots_and_takes_no_request_after() {
    for needs_slot in [true, false] {
        let (queue, _) = queue(1, None, None);
        let place = queue.enter("a", needs_slot, || Ok(())).unwrap();
        let aside = place.ticket().await.unwrap().yield_slot();
        queue.retire();
        assert!(!queue.is_drained(), "it comes back");
        let other = enter(&queue, "b").unwrap();
        let ticket = aside.requeue("a");
        drop(other);
        drop(ticket.ticket().await.unwrap());
        assert!(queue.is_drained());
        assert_eq!(enter(&queue, "a").err(), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_closed_for_a_worker_stop_does_not_say_that_the_service_stops() {
    let (queue, _) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap().ticket().await.unwrap();
    let waits = enter(&queue, "a").unwrap();
    queue.retire();
    queue.close_for_worker_stop(None);
    let refusal = Some(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN));
    assert_eq!(waits.ticket().await.err(), refusal);
    assert_eq!(slot.requeue("a").ticket().await.err(), refusal);
    assert!(queue.is_drained());
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_comes_back_to_a_closed_line_is_refused_at_once() {
    let (queue, ready) = queue(1, None, None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.unwrap();
    ready.store(false, Ordering::SeqCst);
    queue.close();
    let start = ActiveInstant::now();
    let refused = ticket.requeue("a").ticket().await.err();
    assert_eq!(refused, Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
    assert_eq!(start.elapsed(), Duration::ZERO);
    queue.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiter_in_a_healthy_queue_has_the_whole_timeout_for_a_model_that_crashes_then() {
    let (queue, ready) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap();
    let start = ActiveInstant::now();
    let waits = enter(&queue, "a").unwrap().ticket();
    let crash = LONG - Duration::from_secs(1);
    let crashes = async {
        tokio::time::sleep(crash).await;
        ready.store(false, Ordering::SeqCst);
        drop(slot);
    };
    let (refused, ()) = tokio::join!(waits, crashes);
    assert_eq!(refused.err(), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
    assert_eq!(start.elapsed(), crash + LONG);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_was_ready_in_between_is_waited_for_anew() {
    let (queue, ready) = queue(1, None, None);
    let _slot = enter(&queue, "a").unwrap();
    let start = ActiveInstant::now();
    let waits = enter(&queue, "a").unwrap().ticket();
    let changes = async {
        for is_ready in [false, true, false] {
            tokio::time::sleep(Duration::from_secs(100)).await;
            ready.store(is_ready, Ordering::SeqCst);
            queue.grant_slots(&mut queue.lock());
        }
    };
    let (refused, ()) = tokio::join!(waits, changes);
    assert_eq!(refused.err(), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
    assert_eq!(start.elapsed(), Duration::from_secs(300) + LONG);
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_two_parts_is_counted_once() {
    let (queue, ready) = queue(1, None, None);
    let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
    let first = enter(&queue, "a").unwrap();
    let place = enter(&queue, "a").unwrap();
    let wish = lease_request(WORK);
    let waits = queue.ticket_and_lease(place, "a", &model, &wish);
    let changes = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        model.lease(&wish).unwrap().record_broken_connection();
        drop(first);
        ready.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(3)).await;
        worker.restart();
        ready.store(true, Ordering::SeqCst);
        queue.grant_slots(&mut queue.lock());
    };
    let (served, ()) = tokio::join!(waits, changes);
    assert_eq!(served.ok().unwrap().0.waited, Duration::from_secs(5));
    assert_eq!(queue.0.metrics.queue_wait.get(), 5.0);
}

/// A line with two slots, and one of two suspects in flight.
fn queue_with_suspect(timeout: Option<Duration>) -> (Queue, StubWorker, Arc<Model>, Lease) {
    let (queue, _) = queue(2, None, timeout);
    let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
    model.record_crash_by(ONE);
    model.record_crash_by(OTHER);
    let lease = model.lease(&lease_request(RequestClass::Inference(Some(ONE)))).unwrap();
    (queue, worker, model, lease)
}

const ONE: Fingerprint = Fingerprint(1);
const OTHER: Fingerprint = Fingerprint(2);

#[tokio::test(start_paused = true)]
async fn a_suspect_waits_with_its_slot_until_the_other_has_left() {
    let (queue, _worker, model, lease) = queue_with_suspect(None);
    let wish = lease_request(RequestClass::Inference(Some(OTHER)));
    let waits = queue.ticket_and_lease(enter(&queue, "a").unwrap(), "a", &model, &wish);
    let leaves = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(counts(&queue), (1, 0));
        drop(lease);
    };
    let (served, ()) = tokio::join!(waits, leaves);
    assert_eq!(served.ok().unwrap().0.waited, Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_waits_no_longer_than_it_may() {
    for (timeout, expected) in [(None, LONG), (Some(Duration::from_secs(9)), Duration::from_secs(9))] {
        let (queue, _worker, model, _lease) = queue_with_suspect(timeout);
        let start = ActiveInstant::now();
        let wish = lease_request(RequestClass::Inference(Some(OTHER)));
        let waits = queue.ticket_and_lease(enter(&queue, "a").unwrap(), "a", &model, &wish);
        assert!(matches!(waits.await.err(), Some(Refusal::QueueTimeout(_))));
        assert_eq!(start.elapsed(), expected);
        assert_eq!(counts(&queue), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_waits_is_refused_with_all_others() {
    let (queue, _worker, model, _lease) = queue_with_suspect(None);
    let wish = lease_request(RequestClass::Inference(Some(OTHER)));
    let waits = queue.ticket_and_lease(enter(&queue, "a").unwrap(), "a", &model, &wish);
    let closes = async {
        tokio::task::yield_now().await;
        queue.close();
    };
    let (refused, ()) = tokio::join!(waits, closes);
    assert_eq!(refused.err(), Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
    queue.drained().await;
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_slot_are_bounded_too() {
    let (queue, _) = queue(1, None, None);
    let enter = || queue.enter("a", false, || Ok(()));
    let mut passes: Vec<QueueEntry> = (0..MAX_SLOTLESS_REQUESTS).map(|_| enter().unwrap()).collect();
    assert_eq!(enter().err(), Some(Refusal::QueueFull(RETRY_AFTER_UNKNOWN)));
    passes.pop();
    assert!(enter().is_ok());
}

/// Many threads at once: never more in flight than there are slots, never one more in the line than its bound, and every
/// one that came in gets exactly one slot or leaves.
#[test]
fn no_interleaving_breaks_a_bound() {
    const SLOTS: usize = 3;
    const BOUND: usize = 5;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for seed in 0..20u64 {
        let (queue, _) = queue(SLOTS, Some(BOUND), None);
        let in_flight = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let served = runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..200u64 {
                let (queue, in_flight, most) = (queue.clone(), Arc::clone(&in_flight), Arc::clone(&most));
                let dice = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_mul(number + 1) >> 32;
                tasks.spawn(async move {
                    for _ in 0..dice % 4 {
                        tokio::task::yield_now().await;
                    }
                    let place = match enter(&queue, &(number % 3).to_string()) {
                        Ok(place) => place,
                        Err(refusal) => {
                            assert!(matches!(refusal, Refusal::QueueFull(_)));
                            return 0;
                        }
                    };
                    assert!(queue.lock().fair_queue.waiting() <= BOUND);
                    if dice % 5 == 0 {
                        return 0; // a client that leaves at once
                    }
                    let ticket = place.ticket().await.unwrap();
                    most.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    for _ in 0..dice % 3 {
                        tokio::task::yield_now().await;
                    }
                    in_flight.fetch_sub(1, Ordering::SeqCst);
                    drop(ticket);
                    1
                });
            }
            let mut served = 0;
            while let Some(task) = tasks.join_next().await {
                served += task.unwrap();
            }
            served
        });
        assert!(most.load(Ordering::SeqCst) <= SLOTS);
        assert!(served >= SLOTS, "seed {seed}");
        assert_eq!(counts(&queue), (0, 0), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_for_a_model_that_goes_down_are_refused_if_it_has_a_fallback() {
    for fallbacks in [vec!["other".to_owned()], Vec::new()] {
        let (queue, _) = queue(1, None, None);
        let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
        let goes_elsewhere = !fallbacks.is_empty();
        model.update(ModelInfo::named("m"), RoutingPolicy { fallbacks, ..RoutingPolicy::default() });
        let stop = CancellationToken::new();
        let mut following = tokio::task::JoinSet::new();
        following.spawn(queue.clone().follow(Arc::clone(&model), stop.clone()));
        let _slot = enter(&queue, "a").unwrap();
        let mut waits = Box::pin(enter(&queue, "a").unwrap().ticket());
        assert!(is_waiting(&mut waits).await);
        worker.stop();
        tokio::time::sleep(Duration::from_millis(1)).await; // on a paused clock: until all others wait
        match goes_elsewhere {
            true => assert!(matches!(waits.await, Err(Refusal::BackendUnavailable(_)))),
            false => assert!(is_waiting(&mut waits).await),
        }
        stop.cancel();
        following.join_all().await;
    }
}
