use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::ticket::{Moved, QueueEntry, Ticket, TicketKind, WaitEnd};
use super::*;
use crate::fleet::{Fingerprint, Lease, LeaseRequest, ModelInfo, RequestClass, RoutingPolicy, StubWorker};
use crate::keys::Priority;

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
    let timeouts = QueueTimeouts { queue: timeout, request: LONG, priority: LONG };
    let metrics = Arc::new(Metrics::new("test"));
    let slots = move || if is_ready.load(Ordering::SeqCst) { slots } else { 0 };
    (Queue::new(bound, timeouts, slots, metrics, Arc::default()), ready)
}

/// The turn of a key with normal priority.
fn turn(key: &str) -> Turn<'_> {
    Turn { priority: Priority::Normal, key, person: "" }
}

fn enter(queue: &Queue, key: &str) -> Result<QueueEntry, Refusal> {
    queue.enter(turn(key), true, None, |_| Ok(()))
}

fn counts(queue: &Queue) -> (usize, usize) {
    let state = queue.lock();
    (state.fair_queue.active(), state.fair_queue.waiting())
}

/// Returns the refusal that ended a wait.
fn refusal<T>(outcome: Result<T, WaitEnd>) -> Option<Refusal> {
    match outcome {
        Err(WaitEnd::Refused(refusal)) => Some(refusal),
        Err(WaitEnd::Moved(_)) | Ok(_) => None,
    }
}

/// Returns the entry in the other queue that ended a wait.
fn moved<T>(outcome: Result<T, WaitEnd>) -> Moved {
    match outcome {
        Err(WaitEnd::Moved(moved)) => *moved,
        Err(WaitEnd::Refused(refusal)) => panic!("{refusal}"),
        Ok(_) => panic!("the request did not move"),
    }
}

/// Returns a model with this queue.
fn model_queue(queue: Queue) -> Arc<ModelQueue> {
    Arc::new(ModelQueue { model: StubWorker::ready(([127, 0, 0, 1], 1)).1, queue })
}

async fn is_waiting(future: &mut (impl Future<Output = Result<Ticket, WaitEnd>> + Unpin)) -> bool {
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
    let refused = queue.enter(turn("b"), true, None, |_| {
        charged = true;
        Ok(())
    });
    assert_eq!(refused.err(), Some(Refusal::QueueFull(RETRY_AFTER_UNKNOWN)));
    assert!(!charged);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_charge_is_refused_takes_no_place() {
    let (queue, _) = queue(1, Some(1), None);
    let refused = queue.enter(turn("a"), true, None, |_| Err(Refusal::RateLimited("requests", LONG)));
    assert_eq!(refused.err(), Some(Refusal::RateLimited("requests", LONG)));
    assert_eq!(counts(&queue), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn retry_after_follows_the_time_that_slots_are_held() {
    let (queue, _) = queue(2, Some(0), None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.ok().unwrap();
    tokio::time::advance(Duration::from_secs(8)).await;
    drop(ticket);
    let _held = (enter(&queue, "a").unwrap(), enter(&queue, "a").unwrap());
    assert_eq!(enter(&queue, "a").err(), Some(Refusal::QueueFull(Duration::from_secs(4))));
}

#[tokio::test(start_paused = true)]
async fn a_freed_slot_goes_to_the_next_waiter_and_not_to_one_that_left() {
    let (queue, _) = queue(1, None, None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.ok().unwrap();
    let gone = enter(&queue, "a").unwrap();
    let mut next = Box::pin(enter(&queue, "a").unwrap().ticket());
    assert!(is_waiting(&mut next).await);
    drop(gone);
    assert_eq!(counts(&queue), (1, 1));
    drop(ticket);
    let ticket = next.await.ok().unwrap();
    assert_eq!(counts(&queue), (1, 0));
    drop(ticket);
    assert_eq!(counts(&queue), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_while_it_is_granted_a_slot_passes_it_on() {
    let (queue, _) = queue(1, None, None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.ok().unwrap();
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
    let refused = refusal(enter(&queue, "a").unwrap().ticket().await);
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
    let refused = refusal(enter(&queue, "a").unwrap().ticket().await);
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
    let ticket = enter(&queue, "a").unwrap().ticket().await.ok().unwrap();
    let mut second = Box::pin(enter(&queue, "a").unwrap().ticket());
    ready.store(false, Ordering::SeqCst);
    let mut first = Box::pin(ticket.requeue(turn("a")).ok().unwrap().ticket());
    assert!(is_waiting(&mut first).await && is_waiting(&mut second).await);
    assert_eq!(counts(&queue), (0, 2));
    ready.store(true, Ordering::SeqCst);
    queue.grant_slots(&mut queue.lock());
    let ticket = first.await.ok().unwrap();
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
    let expected = Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
    assert_eq!(refusal(waiting.ticket().await), expected);
    assert_eq!(enter(&queue, "b").err(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_drain_waits_for_slotless_requests_and_the_gauges_do_not_count_them() {
    let (queue, _) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap();
    let slotless = queue.enter(turn("a"), false, None, |_| Ok(())).unwrap();
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
        let entry = queue.enter(turn("a"), needs_slot, None, |_| Ok(())).unwrap();
        let yielded = entry.ticket().await.ok().unwrap().yield_slot();
        queue.retire(None);
        assert!(!queue.is_drained(), "the yielded request comes back");
        let other = enter(&queue, "b").unwrap();
        let ticket = yielded.requeue(turn("a")).ok().unwrap();
        drop(other);
        drop(ticket.ticket().await.ok().unwrap());
        assert!(queue.is_drained());
        assert_eq!(enter(&queue, "a").err(), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_closed_for_a_worker_stop_does_not_say_that_the_service_stops() {
    let (queue, _) = queue(1, None, None);
    let slot = enter(&queue, "a").unwrap().ticket().await.ok().unwrap();
    let waiting = enter(&queue, "a").unwrap();
    queue.retire(None);
    queue.close_for_worker_stop("m");
    let expected = Some(Refusal::ModelRemoved("m".to_owned()));
    assert_eq!(slot.stop_refusal(), expected);
    assert_eq!(refusal(waiting.ticket().await), expected);
    assert_eq!(refusal(slot.requeue(turn("a")).ok().unwrap().ticket().await), expected);
    assert!(queue.is_drained());
}

/// Regression: requests that waited for a model that a reload gave new workers were refused, or served by the old workers
/// as long as `DRAIN_TIMEOUT` allowed.
#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_a_replaced_model_move_in_their_order_and_keep_their_timeouts() {
    let timeout = Duration::from_secs(9);
    let (old, _) = queue(1, None, Some(timeout));
    let (new, ready) = queue(1, Some(1), Some(timeout));
    ready.store(false, Ordering::SeqCst);
    let slot = enter(&old, "a").unwrap().ticket().await.ok().unwrap();
    let start = ActiveInstant::now();
    let waiting = ["a", "a", "b", "a", "c"].map(|key| enter(&old, key).unwrap());
    let newcomer = enter(&new, "b").unwrap();
    tokio::time::advance(Duration::from_secs(4)).await;
    let replacement = model_queue(new.clone());
    old.retire(Some(&replacement));
    assert_eq!((counts(&old), counts(&new)), ((1, 0), (0, 6)), "they move whatever the bound is");
    assert!(!old.is_drained(), "the request in flight goes on");
    assert_eq!(enter(&old, "a").err(), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));

    let mut entries = Vec::new();
    for (at, entry) in waiting.into_iter().enumerate() {
        let Moved { model_queue, entry } = moved(entry.ticket().await);
        assert!(Arc::ptr_eq(&model_queue, &replacement));
        entries.push((at, Box::pin(entry.ticket())));
    }
    entries.push((9, Box::pin(newcomer.ticket())));
    ready.store(true, Ordering::SeqCst);
    new.grant_slots(&mut new.lock());
    // Round robin between the keys: a, b, c; then a, and the newcomer of b; then a.
    for expected in [0, 2, 4, 1, 9] {
        let (mut granted, mut held) = (Vec::new(), Vec::new());
        for (at, entry) in &mut entries {
            tokio::select! {
                biased;
                ticket = entry => {
                    granted.push(*at);
                    held.extend(ticket.ok());
                }
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!((granted, held.len()), (vec![expected], 1));
        entries.retain(|(at, _)| *at != expected);
    }
    let (_, last) = entries.pop().unwrap();
    drop(last.await.ok().unwrap());
    ready.store(false, Ordering::SeqCst);

    // The timeout counts from the arrival at the old queue.
    let waiting = enter(&new, "a").unwrap();
    let second = model_queue(queue(0, None, Some(timeout)).0);
    tokio::time::advance(Duration::from_secs(7)).await;
    new.retire(Some(&second));
    let arrival = ActiveInstant::now();
    assert!(refusal(moved(waiting.ticket().await).entry.ticket().await).is_some());
    assert_eq!((arrival.elapsed(), start.elapsed()), (Duration::from_secs(2), Duration::from_secs(13)));
    drop(slot);
    assert!(old.is_drained() && new.is_drained());
    assert_eq!(counts(&second.queue), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_leaves_while_it_moves_leaves_the_new_queue() {
    let (old, _) = queue(1, None, None);
    let _slot = enter(&old, "a").unwrap();
    let waiting = [enter(&old, "a").unwrap(), enter(&old, "b").unwrap()];
    let [first, second] = [1, 1].map(|slots| model_queue(queue(slots, None, None).0));
    old.retire(Some(&first));
    assert_eq!(counts(&first.queue), (1, 1), "the new workers are ready: one has a slot");
    first.queue.retire(Some(&second));
    assert_eq!((counts(&first.queue), counts(&second.queue)), ((1, 0), (1, 0)));
    drop(waiting);
    assert_eq!((counts(&first.queue), counts(&second.queue)), ((0, 0), (0, 0)));
    assert!(first.queue.is_drained());
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_slot_that_wait_for_a_replaced_model_move_to_the_line_of_the_new_one() {
    let (old, _) = queue(1, None, None);
    let enter = |queue: &Queue| queue.enter(turn("a"), false, None, |_| Ok(())).unwrap();
    let in_flight: Vec<_> = (0..MAX_SLOTLESS_REQUESTS).map(|_| enter(&old)).collect();
    let waiting = [enter(&old), enter(&old)];
    let replacement = model_queue(queue(1, None, None).0);
    let mut first_ones: Vec<_> = (1..MAX_SLOTLESS_REQUESTS).map(|_| enter(&replacement.queue)).collect();
    old.retire(Some(&replacement));
    let [first, second] = waiting;
    let ticket = moved(first.ticket().await).entry.ticket().await.ok().unwrap();
    let mut second = Box::pin(moved(second.ticket().await).entry.ticket());
    assert!(ticket.kind == TicketKind::Slotless && is_waiting(&mut second).await, "there is one place");
    first_ones.pop();
    assert!(second.await.is_ok());
    drop((in_flight, ticket, first_ones));
    assert!(old.is_drained());
    replacement.queue.close();
    assert!(replacement.queue.is_drained());
}

#[tokio::test(start_paused = true)]
async fn requests_with_a_ticket_of_a_replaced_model_come_back_to_the_front_of_the_new_one() {
    let (old, _) = queue(2, None, Some(Duration::from_secs(9)));
    let [granted, yielded] = [enter(&old, "a"), enter(&old, "b")].map(Result::unwrap);
    let slotless = old.enter(turn("c"), false, None, |_| Ok(())).unwrap().ticket().await.ok().unwrap().yield_slot();
    let (granted, yielded) = (granted.ticket().await.ok().unwrap(), yielded.ticket().await.ok().unwrap().yield_slot());
    let (new, ready) = queue(1, None, Some(Duration::from_secs(9)));
    ready.store(false, Ordering::SeqCst);
    let newcomer = enter(&new, "d").unwrap();
    let replacement = model_queue(new.clone());
    old.retire(Some(&replacement));
    assert!(granted.is_replaced() && granted.stop_refusal().is_none());
    old.close_for_worker_stop("m");
    assert_eq!(granted.stop_refusal(), Some(Refusal::ModelReplaced("m".to_owned(), RETRY_AFTER_UNKNOWN)));
    tokio::time::advance(Duration::from_secs(20)).await;
    let slotless = slotless.requeue(turn("c")).err().unwrap();
    assert!(!slotless.entry.is_waiting());
    let mut first = Box::pin(yielded.requeue(turn("b")).err().unwrap().entry.ticket());
    assert!(is_waiting(&mut first).await, "the time of its attempts is no waiting time");
    let refused = refusal(granted.requeue(turn("a")).err().unwrap().entry.ticket().await);
    assert_eq!(refused, Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)), "its whole wait was");
    assert!(old.is_drained());
    ready.store(true, Ordering::SeqCst);
    new.grant_slots(&mut new.lock());
    assert!(first.await.is_ok(), "it is before the newcomer");
    drop(newcomer);
    drop(slotless);
    let (other, _) = queue(1, None, None);
    let ticket = enter(&other, "a").unwrap().ticket().await.ok().unwrap();
    other.retire(Some(&replacement));
    new.retire(None);
    assert!(ticket.move_to_replacement(turn("a")).is_none(), "the model was removed since");
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_comes_back_to_a_closed_queue_is_refused_at_once() {
    let (queue, ready) = queue(1, None, None);
    let ticket = enter(&queue, "a").unwrap().ticket().await.ok().unwrap();
    ready.store(false, Ordering::SeqCst);
    queue.close();
    let start = ActiveInstant::now();
    let refused = refusal(ticket.requeue(turn("a")).ok().unwrap().ticket().await);
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
    assert_eq!(refusal(refused), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
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
    assert_eq!(refusal(refused), Some(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
    assert_eq!(start.elapsed(), Duration::from_secs(300) + LONG);
}

#[tokio::test(start_paused = true)]
async fn both_parts_of_an_interrupted_wait_are_counted_once() {
    let (queue, ready) = queue(1, None, None);
    let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
    let first = enter(&queue, "a").unwrap();
    let entry = enter(&queue, "a").unwrap();
    let request = lease_request(WORK);
    let waiting = queue.ticket_and_lease(entry, turn("a"), &model, &request);
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
    let waiting = queue.ticket_and_lease(enter(&queue, "a").unwrap(), turn("a"), &model, &request);
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
        let waiting = queue.ticket_and_lease(enter(&queue, "a").unwrap(), turn("a"), &model, &request);
        assert!(matches!(refusal(waiting.await), Some(Refusal::QueueTimeout(_))));
        assert_eq!(start.elapsed(), expected);
        assert_eq!(counts(&queue), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_suspect_is_refused_when_the_queue_closes() {
    let (queue, _worker, model, _lease) = queue_with_suspect(None);
    let request = lease_request(RequestClass::Inference(Some(OTHER_SUSPECT)));
    let waiting = queue.ticket_and_lease(enter(&queue, "a").unwrap(), turn("a"), &model, &request);
    let close_later = async {
        tokio::task::yield_now().await;
        queue.close();
    };
    let (refused, ()) = tokio::join!(waiting, close_later);
    assert_eq!(refusal(refused), Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
    queue.drained().await;
}

/// Regression: a client that asked for many counts at once got 503 for the 33rd.
#[tokio::test(start_paused = true)]
async fn a_burst_of_slotless_requests_waits_its_turn() {
    let (queue, _) = queue(1, Some(0), None);
    let enter = |key: &str| queue.enter(turn(key), false, None, |_| Ok(()));
    let mut in_flight: VecDeque<QueueEntry> = (0..MAX_SLOTLESS_REQUESTS).map(|_| enter("a").unwrap()).collect();
    let mut waiting: Vec<QueueEntry> = (0..MAX_WAITING_SLOTLESS_REQUESTS).map(|_| enter("a").unwrap()).collect();
    assert!(waiting.iter().all(|entry| !entry.is_waiting()), "none of them waits for a slot");
    assert_eq!(enter("a").err(), Some(Refusal::QueueFull(RETRY_AFTER_UNKNOWN)));
    assert_eq!(counts(&queue), (0, 0), "the gauges count slots");
    assert!(queue.enter(turn("a"), true, None, |_| Ok(())).is_ok(), "a request that needs a slot has its own line");

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
    drop(last.await.ok().unwrap());
    queue.close();
    queue.drained().await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_a_slotless_request_ends() {
    for (queue_timeout, is_ready, longest) in
        [(None, true, LONG), (Some(Duration::from_secs(3)), true, Duration::from_secs(3)), (None, false, LONG)]
    {
        let (queue, ready) = queue(1, None, queue_timeout);
        let _in_flight: Vec<_> =
            (0..MAX_SLOTLESS_REQUESTS).map(|_| queue.enter(turn("a"), false, None, |_| Ok(()))).collect();
        ready.store(is_ready, Ordering::SeqCst);
        let start = ActiveInstant::now();
        let refused = refusal(queue.enter(turn("a"), false, None, |_| Ok(())).unwrap().ticket().await);
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
        (0..=MAX_SLOTLESS_REQUESTS).map(|_| queue.enter(turn("a"), false, None, |_| Ok(())).unwrap()).collect();
    let waiting = entries.pop().unwrap();
    queue.close();
    assert_eq!(refusal(waiting.ticket().await), Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
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
                    let ticket = entry.ticket().await.ok().unwrap();
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
            true => assert!(matches!(refusal(waiting.await), Some(Refusal::BackendUnavailable(_)))),
            false => assert!(is_waiting(&mut waiting).await),
        }
        stop.cancel();
        following.join_all().await;
    }
}
