use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::ticket::{QueueEntry, Ticket};
use super::*;
use crate::fleet::{Fingerprint, Lease, LeaseRequest, ModelInfo, RequestClass, RoutingPolicy, StubWorker};

const WORK: RequestClass = RequestClass::Inference(None);

/// The `REQUEST_TIMEOUT` of the tests.
const LONG: Duration = Duration::from_secs(300);

fn lease_request(class: RequestClass) -> LeaseRequest<'static> {
    LeaseRequest::from(class)
}

/// Creates a queue whose model is ready while the returned flag is set.
fn queue(slots: usize, bound: Option<usize>, timeout: Option<Duration>) -> (Queue, Arc<AtomicBool>) {
    let ready = Arc::new(AtomicBool::new(true));
    let is_ready = Arc::clone(&ready);
    let timeouts = QueueTimeouts { queue: timeout, request: LONG };
    let metrics = Arc::new(Metrics::new("test"));
    let slots = move || if is_ready.load(Ordering::SeqCst) { slots } else { 0 };
    (Queue::new(bound, timeouts, slots, metrics, Arc::default()), ready)
}

fn enter(queue: &Queue, key: &str) -> Result<QueueEntry, Refusal> {
    queue.enter(key, true, || Ok(()))
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
    let _waiting = enter(&queue, "a").unwrap();
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
async fn a_waiter_that_leaves_while_it_is_granted_a_slot_passes_it_on() {
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
async fn without_queue_timeout_only_the_wait_for_a_model_that_is_not_ready_ends() {
    let (queue, ready) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap();
    let mut waiting = Box::pin(enter(&queue, "a").unwrap().ticket());
    assert!(
        tokio::time::timeout(LONG * 3, &mut waiting).await.is_err(),
        "it still waits behind a request that is being served"
    );
    drop(slot);
    assert!(waiting.await.is_ok());
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
    let mut waiting = Box::pin(enter(&queue, "a").unwrap().ticket());
    assert!(is_waiting(&mut waiting).await);
    ready.store(true, Ordering::SeqCst);
    queue.grant_slots(&mut queue.lock());
    assert!(waiting.await.is_ok());
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
    let waiting = enter(&queue, "a").unwrap();
    queue.close();
    let refusal = Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
    assert_eq!(waiting.ticket().await.err(), refusal);
    assert_eq!(enter(&queue, "b").err(), refusal);
}

#[tokio::test(start_paused = true)]
async fn the_drain_waits_for_slotless_requests_and_the_gauges_do_not_count_them() {
    let (queue, _) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap();
    let slotless = queue.enter("a", false, || Ok(())).unwrap();
    assert_eq!(queue.0.metrics.active.get(), 1, "a slotless ticket takes no slot");
    queue.close();
    drop(slot);
    assert!(!queue.0.drained.is_cancelled(), "the slotless request is in flight");
    drop(slotless);
    queue.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_retired_queue_waits_for_yielded_requests_and_then_accepts_none() {
    for needs_slot in [true, false] {
        let (queue, _) = queue(1, None, None);
        let entry = queue.enter("a", needs_slot, || Ok(())).unwrap();
        let yielded = entry.ticket().await.unwrap().yield_slot();
        queue.retire();
        assert!(!queue.is_drained(), "the yielded request comes back");
        let other = enter(&queue, "b").unwrap();
        let ticket = yielded.requeue("a");
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
    let waiting = enter(&queue, "a").unwrap();
    queue.retire();
    queue.close_for_worker_stop(None);
    let refusal = Some(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN));
    assert_eq!(waiting.ticket().await.err(), refusal);
    assert_eq!(slot.requeue("a").ticket().await.err(), refusal);
    assert!(queue.is_drained());
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_comes_back_to_a_closed_queue_is_refused_at_once() {
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
async fn a_waiter_has_the_whole_timeout_from_the_crash_of_a_model_that_was_ready() {
    let (queue, ready) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap();
    let start = ActiveInstant::now();
    let waiting = enter(&queue, "a").unwrap().ticket();
    let crash = LONG - Duration::from_secs(1);
    let crash_later = async {
        tokio::time::sleep(crash).await;
        ready.store(false, Ordering::SeqCst);
        drop(slot);
    };
    let (refused, ()) = tokio::join!(waiting, crash_later);
    assert_eq!(refused.err(), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
    assert_eq!(start.elapsed(), crash + LONG);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_for_a_model_restarts_when_the_model_was_ready_in_between() {
    let (queue, ready) = queue(1, None, None);
    let _slot = enter(&queue, "a").unwrap();
    let start = ActiveInstant::now();
    let waiting = enter(&queue, "a").unwrap().ticket();
    let changes = async {
        for is_ready in [false, true, false] {
            tokio::time::sleep(Duration::from_secs(100)).await;
            ready.store(is_ready, Ordering::SeqCst);
            queue.grant_slots(&mut queue.lock());
        }
    };
    let (refused, ()) = tokio::join!(waiting, changes);
    assert_eq!(refused.err(), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
    assert_eq!(start.elapsed(), Duration::from_secs(300) + LONG);
}

#[tokio::test(start_paused = true)]
async fn both_parts_of_an_interrupted_wait_are_counted_once() {
    let (queue, ready) = queue(1, None, None);
    let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
    let first = enter(&queue, "a").unwrap();
    let entry = enter(&queue, "a").unwrap();
    let request = lease_request(WORK);
    let waiting = queue.ticket_and_lease(entry, "a", &model, &request);
    let changes = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        model.lease(&request).unwrap().record_broken_connection();
        drop(first);
        ready.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(3)).await;
        worker.restart();
        ready.store(true, Ordering::SeqCst);
        queue.grant_slots(&mut queue.lock());
    };
    let (served, ()) = tokio::join!(waiting, changes);
    assert_eq!(served.ok().unwrap().0.waited, Duration::from_secs(5));
    assert_eq!(queue.0.metrics.queue_wait.get(), 5.0);
}

/// Creates a queue with two slots, and one of two suspects in flight.
fn queue_with_suspect(timeout: Option<Duration>) -> (Queue, StubWorker, Arc<Model>, Lease) {
    let (queue, _) = queue(2, None, timeout);
    let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
    model.record_crash_by(SUSPECT);
    model.record_crash_by(OTHER_SUSPECT);
    let lease = model.lease(&lease_request(RequestClass::Inference(Some(SUSPECT)))).unwrap();
    (queue, worker, model, lease)
}

const SUSPECT: Fingerprint = Fingerprint(1);
const OTHER_SUSPECT: Fingerprint = Fingerprint(2);

#[tokio::test(start_paused = true)]
async fn a_suspect_waits_with_its_slot_until_the_other_suspect_has_left() {
    let (queue, _worker, model, lease) = queue_with_suspect(None);
    let request = lease_request(RequestClass::Inference(Some(OTHER_SUSPECT)));
    let waiting = queue.ticket_and_lease(enter(&queue, "a").unwrap(), "a", &model, &request);
    let leave_later = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(counts(&queue), (1, 0));
        drop(lease);
    };
    let (served, ()) = tokio::join!(waiting, leave_later);
    assert_eq!(served.ok().unwrap().0.waited, Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_waits_until_its_timeout() {
    for (timeout, expected) in [(None, LONG), (Some(Duration::from_secs(9)), Duration::from_secs(9))] {
        let (queue, _worker, model, _lease) = queue_with_suspect(timeout);
        let start = ActiveInstant::now();
        let request = lease_request(RequestClass::Inference(Some(OTHER_SUSPECT)));
        let waiting = queue.ticket_and_lease(enter(&queue, "a").unwrap(), "a", &model, &request);
        assert!(matches!(waiting.await.err(), Some(Refusal::QueueTimeout(_))));
        assert_eq!(start.elapsed(), expected);
        assert_eq!(counts(&queue), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_suspect_is_refused_when_the_queue_closes() {
    let (queue, _worker, model, _lease) = queue_with_suspect(None);
    let request = lease_request(RequestClass::Inference(Some(OTHER_SUSPECT)));
    let waiting = queue.ticket_and_lease(enter(&queue, "a").unwrap(), "a", &model, &request);
    let close_later = async {
        tokio::task::yield_now().await;
        queue.close();
    };
    let (refused, ()) = tokio::join!(waiting, close_later);
    assert_eq!(refused.err(), Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
    queue.drained().await;
}

/// Regression: a client that asked for many counts at once got 503 for the 33rd.
#[tokio::test(start_paused = true)]
async fn a_burst_of_slotless_requests_waits_its_turn() {
    let (queue, _) = queue(1, Some(0), None);
    let enter = |key: &str| queue.enter(key, false, || Ok(()));
    let mut in_flight: VecDeque<QueueEntry> = (0..MAX_SLOTLESS_REQUESTS).map(|_| enter("a").unwrap()).collect();
    let mut waiting: Vec<QueueEntry> = (0..MAX_WAITING_SLOTLESS_REQUESTS).map(|_| enter("a").unwrap()).collect();
    assert!(waiting.iter().all(|entry| !entry.is_waiting()), "none of them waits for a slot");
    assert_eq!(enter("a").err(), Some(Refusal::QueueFull(RETRY_AFTER_UNKNOWN)));
    assert_eq!(counts(&queue), (0, 0), "the gauges count slots");
    assert!(queue.enter("a", true, || Ok(())).is_ok(), "a request that needs a slot has its own line");

    let mut last = Box::pin(waiting.pop().unwrap().ticket());
    assert!(is_waiting(&mut last).await);
    // A client that leaves makes room.
    drop(waiting.pop());
    let mut other = Box::pin(enter("b").unwrap().ticket());
    for _ in 0..2 {
        assert!(is_waiting(&mut other).await);
        drop(in_flight.pop_front());
    }
    assert!(other.await.is_ok(), "a key with a thousand waiting requests delays another by one");
    assert!(is_waiting(&mut last).await);
    drop((waiting, in_flight));
    drop(last.await.unwrap());
    queue.close();
    queue.drained().await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_a_slotless_request_ends() {
    for (queue_timeout, is_ready, longest) in
        [(None, true, LONG), (Some(Duration::from_secs(3)), true, Duration::from_secs(3)), (None, false, LONG)]
    {
        let (queue, ready) = queue(1, None, queue_timeout);
        let _in_flight: Vec<_> = (0..MAX_SLOTLESS_REQUESTS).map(|_| queue.enter("a", false, || Ok(()))).collect();
        ready.store(is_ready, Ordering::SeqCst);
        let start = ActiveInstant::now();
        let refused = queue.enter("a", false, || Ok(())).unwrap().ticket().await.err();
        let expected = match is_ready {
            true => Refusal::QueueTimeout(RETRY_AFTER_UNKNOWN),
            false => Refusal::ModelLoading(RETRY_AFTER_UNKNOWN),
        };
        assert_eq!((refused, start.elapsed()), (Some(expected), longest));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slotless_request_that_waits_is_refused_when_the_queue_closes_and_the_drain_waits_for_the_others() {
    let (queue, _) = queue(1, None, None);
    let mut entries: Vec<_> =
        (0..=MAX_SLOTLESS_REQUESTS).map(|_| queue.enter("a", false, || Ok(())).unwrap()).collect();
    let waiting = entries.pop().unwrap();
    queue.close();
    assert_eq!(waiting.ticket().await.err(), Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
    assert!(!queue.is_drained());
    drop(entries);
    assert!(queue.is_drained());
}

/// With many threads at once, the requests in flight never exceed the slots, the waiters never exceed the bound, and every
/// accepted request gets exactly one slot or leaves.
#[test]
fn no_interleaving_breaks_a_bound() {
    const SLOTS: usize = 3;
    const BOUND: usize = 5;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for seed in 0..20u64 {
        let (queue, _) = queue(SLOTS, Some(BOUND), None);
        let in_flight = Arc::new(AtomicUsize::new(0));
        let peak = Arc::new(AtomicUsize::new(0));
        let served = runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..200u64 {
                let (queue, in_flight, peak) = (queue.clone(), Arc::clone(&in_flight), Arc::clone(&peak));
                let random = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_mul(number + 1) >> 32;
                tasks.spawn(async move {
                    for _ in 0..random % 4 {
                        tokio::task::yield_now().await;
                    }
                    let entry = match enter(&queue, &(number % 3).to_string()) {
                        Ok(entry) => entry,
                        Err(refusal) => {
                            assert!(matches!(refusal, Refusal::QueueFull(_)));
                            return 0;
                        }
                    };
                    assert!(queue.lock().fair_queue.waiting() <= BOUND);
                    if random % 5 == 0 {
                        return 0; // a client that disconnects at once
                    }
                    let ticket = entry.ticket().await.unwrap();
                    peak.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    for _ in 0..random % 3 {
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
        assert!(peak.load(Ordering::SeqCst) <= SLOTS);
        assert!(served >= SLOTS, "seed {seed}");
        assert_eq!(counts(&queue), (0, 0), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_for_a_model_that_goes_down_are_refused_if_it_has_a_fallback() {
    for fallbacks in [vec!["other".to_owned()], Vec::new()] {
        let (queue, _) = queue(1, None, None);
        let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
        let has_fallback = !fallbacks.is_empty();
        model.update(ModelInfo::named("m"), RoutingPolicy { fallbacks, ..RoutingPolicy::default() });
        let stop = CancellationToken::new();
        let mut following = tokio::task::JoinSet::new();
        following.spawn(queue.clone().follow(Arc::clone(&model), stop.clone()));
        let _slot = enter(&queue, "a").unwrap();
        let mut waiting = Box::pin(enter(&queue, "a").unwrap().ticket());
        assert!(is_waiting(&mut waiting).await);
        worker.stop();
        tokio::time::sleep(Duration::from_millis(1)).await; // on a paused clock this ends once all other tasks wait
        match has_fallback {
            true => assert!(matches!(waiting.await, Err(Refusal::BackendUnavailable(_)))),
            false => assert!(is_waiting(&mut waiting).await),
        }
        stop.cancel();
        following.join_all().await;
    }
}
