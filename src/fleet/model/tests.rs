use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;

use super::leasing::LeaseRequest;
use super::unavailable::Unavailable;
use super::*;
use crate::fleet::{Breaker, Lease, Quota, Rank, RequestClass, WorkerKind};
use crate::settings::values::Strategy;
use crate::worker::{FailureCause, LastExit, WorkerCondition, WorkerHandle};

const COOLDOWN: Duration = Duration::from_secs(30);
const RANK: Rank = Rank { weight: 1.0, priority: 0 };
/// A request that takes a slot.
const WORK: RequestClass = RequestClass::Inference(Some(Fingerprint(7)));

/// Sets the status of a worker, as its owner would.
type Owner = watch::Sender<WorkerStatus>;

fn handle() -> (Owner, WorkerHandle) {
    WorkerHandle::stub(([127, 0, 0, 1], 1).into())
}

fn local(number: u32, slots: usize) -> (Owner, Arc<Member>) {
    let (owner, handle) = handle();
    (owner, Arc::new(Member::local(handle, WorkerKind::Local, number, slots, RANK)))
}

/// A remote worker whose breaker opens after two failures in a row.
fn remote(number: u32, slots: usize, rpm: Option<u32>) -> (Owner, Arc<Member>) {
    let (owner, handle) = handle();
    let breaker = Breaker::new(NonZeroU32::new(2).unwrap(), COOLDOWN);
    let quota = Quota::new(rpm.and_then(NonZeroU32::new), None);
    (owner, Arc::new(Member::remote(handle, number, slots, RANK, breaker, quota)))
}

fn model(members: &[&(Owner, Arc<Member>)]) -> Model {
    let policy = RoutingPolicy { strategy: Strategy::LeastBusy, remote_first: true, ..RoutingPolicy::default() };
    Model::new(ModelInfo::named("m"), policy, members.iter().map(|(_, member)| Arc::clone(member)).collect())
}

fn lease(model: &Model) -> Result<Lease, Unavailable> {
    model.lease(&WORK.into())
}

fn number(lease: &Lease) -> u32 {
    lease.member().number
}

fn set_state(owner: &Owner, state: WorkerState, asleep: bool) {
    owner.send_modify(|status| {
        status.state = state;
        status.asleep = asleep;
        if state != WorkerState::Ready {
            status.endpoint = None;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_model_has_the_slots_of_its_serving_workers_and_grants_no_more() {
    let (one, two) = (local(0, 1), local(1, 2));
    let model = model(&[&one, &two]);
    assert_eq!(model.slots(), 3);
    let leases: Vec<Lease> = (0..3).map(|_| lease(&model).unwrap()).collect();
    let count = |of| leases.iter().filter(|lease| number(lease) == of).count();
    assert_eq!((count(0), count(1)), (1, 2));
    assert_eq!(lease(&model).err(), Some(Unavailable::Busy));
    assert!(model.lease(&RequestClass::ReadOnly.into()).is_ok(), "a request without a slot does not wait for one");
    set_state(&two.0, WorkerState::Backoff, false);
    assert_eq!((model.slots(), model.state()), (3, WorkerState::Ready), "requests in flight hold their slots");
    drop(leases);
    assert_eq!(model.slots(), 1);
    assert_eq!(number(&lease(&model).unwrap()), 0);
}

/// A worker whose breaker is open may still have long streams; the queue counts them too.
#[tokio::test(start_paused = true)]
async fn streams_on_a_worker_with_an_open_breaker_take_no_slot_of_another() {
    let (near, far) = (local(0, 1), remote(1, 8, None));
    let model = model(&[&near, &far]);
    let streams: Vec<Lease> = (0..5).map(|_| lease(&model).unwrap()).collect();
    (0..2).for_each(|_| lease(&model).unwrap().break_off());
    assert_eq!(model.slots(), streams.len() + 1);
    let next = lease(&model).unwrap();
    assert_eq!((number(&next), model.slots()), (0, streams.len() + 1));
    tokio::time::advance(COOLDOWN).await;
    assert_eq!(model.slots(), streams.len() + 1 + 1, "the remote worker gets a trial beside its streams");
    assert_eq!(number(&lease(&model).unwrap()), 1);
    set_state(&near.0, WorkerState::Backoff, false);
    set_state(&far.0, WorkerState::Unhealthy, false);
    assert_eq!(model.slots(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_suspected_request_waits_for_the_other_suspect_and_not_for_a_slot() {
    let (one, two) = (local(0, 2), local(1, 1));
    let model = model(&[&one, &two]);
    let other = Fingerprint(8);
    let suspect = |number| RequestClass::Inference(Some(Fingerprint(number)));
    let _busy = model.lease(&LeaseRequest { avoid: &[0], ..LeaseRequest::from(suspect(1)) }).unwrap();
    for member in model.members() {
        member.handle().record_crash_by(Fingerprint(7));
        member.handle().record_crash_by(other);
    }
    let in_flight = lease(&model).unwrap();
    assert_eq!(number(&in_flight), 0);
    assert_eq!(model.lease(&suspect(8).into()).err(), Some(Unavailable::Suspected));
    let mut changes = model.subscribe().unwrap();
    let mut left = Box::pin(changes.suspect_left());
    tokio::select! {
        biased;
        _ = &mut left => panic!("the other suspect is still in flight"),
        () = tokio::task::yield_now() => {}
    }
    drop(in_flight);
    assert!(left.await);
    assert!(model.lease(&suspect(8).into()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_permanently_failed_worker_does_not_keep_another_asleep() {
    for state in [WorkerState::Failed, WorkerState::Backoff] {
        let (one, two) = (local(0, 1), local(1, 1));
        let model = model(&[&one, &two]);
        set_state(&one.0, state, false);
        set_state(&two.0, WorkerState::Stopped, true);
        let _want = model.demand();
        assert!(model.members().last().unwrap().handle().is_wanted(), "{state}");
        assert!(!model.is_hopeless());
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_failed_at_a_request_gets_it_again_only_if_no_other_is_free() {
    let (one, two) = (local(0, 2), local(1, 1));
    let model = model(&[&one, &two]);
    let request = LeaseRequest { avoid: &[0], ..LeaseRequest::from(WORK) };
    let first = model.lease(&request).unwrap();
    assert_eq!(number(&first), 1);
    assert_eq!(number(&model.lease(&request).unwrap()), 0);
    assert!(model.has_another(&[0]) && !model.has_another(&[0, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_serve_a_request_never_gets_it_and_the_one_that_can_is_woken() {
    let (near, far) = (local(0, 1), remote(1, 2, None));
    let model = model(&[&near, &far]);
    let request = LeaseRequest { unfit: &[1], ..LeaseRequest::from(WORK) };
    assert_eq!(number(&model.lease(&request).unwrap()), 0);
    set_state(&near.0, WorkerState::Stopped, true);
    assert_eq!(model.lease(&request).err(), Some(Unavailable::OnlyTriedBefore), "slots of others are of no use to it");
    let without_slot = LeaseRequest { unfit: &[1], ..LeaseRequest::from(RequestClass::Inference(None)) };
    assert_eq!(model.lease(&without_slot).err(), Some(Unavailable::Asleep));
    assert!(!near.1.handle().is_wanted());
    let _want = model.demand_without(&[1]);
    assert!(near.1.handle().is_wanted());
    assert!(model.has_fit_worker(&[1]) && !model.has_fit_worker(&[0, 1]));
    set_state(&near.0, WorkerState::Failed, false);
    assert!(!model.has_fit_worker(&[1]));
    assert_eq!(model.lease(&request).err(), Some(Unavailable::Failed));
}

/// Regression: a request for the one busy worker that could serve it went round the queue without a pause, as long as a
/// worker that could not had a free slot.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_slot_of_the_workers_that_can_serve_it_and_not_for_one_of_others() {
    for others in [1, 2] {
        let (near, far) = (local(0, 1), remote(1, others, None));
        let model = model(&[&near, &far]);
        let request = LeaseRequest { unfit: &[1], ..LeaseRequest::from(WORK) };
        let first = model.lease(&request).unwrap();
        assert!(model.slots() > 1, "the queue would grant a slot");
        assert_eq!(model.lease(&request).err(), Some(Unavailable::OnlyTriedBefore));
        let avoiding = LeaseRequest { avoid: &[0], ..request };
        assert_eq!(model.lease(&avoiding).err(), Some(Unavailable::OnlyTriedBefore), "after a failure too");
        let mut freed = Box::pin(model.slot_freed());
        freed.as_mut().enable();
        drop(first);
        freed.await;
        assert_eq!(number(&model.lease(&request).unwrap()), 0);
    }
}

/// Regression: a request went back to the backend that had just refused it as soon as all others were full.
#[tokio::test(start_paused = true)]
async fn a_remote_worker_that_failed_at_a_request_does_not_get_it_again_while_another_can_serve() {
    let (one, two) = (remote(0, 2, None), remote(1, 1, None));
    let model = model(&[&one, &two]);
    let request = LeaseRequest { avoid: &[0], ..LeaseRequest::from(WORK) };
    let first = model.lease(&request).unwrap();
    assert_eq!(number(&first), 1);
    let mut freed = Box::pin(model.slot_freed());
    freed.as_mut().enable();
    assert_eq!(model.lease(&request).err(), Some(Unavailable::OnlyTriedBefore));
    let mut others = (0..2).map(|_| lease(&model).unwrap());
    let [_a, _b] = [others.next(), others.next()];
    assert_eq!(model.lease(&request).err(), Some(Unavailable::Busy), "no worker has a free slot");
    drop(first);
    freed.await;
    assert_eq!(number(&model.lease(&request).unwrap()), 1);
    drop(_a);
    set_state(&two.0, WorkerState::Unhealthy, false);
    assert_eq!(number(&model.lease(&request).unwrap()), 0, "no other worker can serve");
}

#[tokio::test(start_paused = true)]
async fn the_most_hopeful_reason_is_returned() {
    let (one, two) = (local(0, 1), local(1, 1));
    let model = model(&[&one, &two]);
    for (states, reason) in [
        ([(WorkerState::Failed, false), (WorkerState::Loading, false)], Unavailable::Loading),
        ([(WorkerState::Unhealthy, false), (WorkerState::Stopped, true)], Unavailable::Asleep),
        ([(WorkerState::Unhealthy, false), (WorkerState::Failed, false)], Unavailable::Down),
        ([(WorkerState::Failed, false), (WorkerState::Failed, false)], Unavailable::Failed),
    ] {
        for (owner, (state, asleep)) in [&one.0, &two.0].into_iter().zip(states) {
            set_state(owner, state, asleep);
        }
        assert_eq!((model.available(), lease(&model).err()), (Err(reason), Some(reason)), "{states:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_remote_worker_that_keeps_failing_gets_no_requests_and_then_one_trial() {
    let far = remote(0, 8, None);
    let model = model(&[&far]);
    let mut changes = model.subscribe().unwrap();
    for _ in 0..2 {
        lease(&model).unwrap().record_response(StatusCode::BAD_GATEWAY, None);
    }
    assert!(changes.next().await, "the opening is a change");
    assert_eq!((lease(&model).err(), model.slots()), (Some(Unavailable::BreakerOpen), 0));
    assert_eq!(model.available_in(), Some(COOLDOWN));
    assert!(changes.next().await, "and so is the end of the cooldown");
    assert_eq!(model.available_in(), None);
    assert_eq!(model.slots(), 1);
    let mut trial = lease(&model).unwrap();
    assert_eq!(lease(&model).err(), Some(Unavailable::BreakerOpen), "one trial at a time");
    trial.record_response(StatusCode::OK, None);
    assert_eq!(model.slots(), 8, "other requests need not wait for the end of the response");
    trial.record_success();
}

#[tokio::test(start_paused = true)]
async fn a_trial_whose_client_leaves_allows_another_trial() {
    let far = remote(0, 8, None);
    let model = model(&[&far]);
    (0..2).for_each(|_| lease(&model).unwrap().break_off());
    tokio::time::advance(COOLDOWN).await;
    drop(lease(&model).unwrap());
    assert!(lease(&model).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_counts_as_a_failure_though_its_head_was_good() {
    let far = remote(0, 8, None);
    let model = model(&[&far]);
    for _ in 0..2 {
        let mut lease = lease(&model).unwrap();
        lease.record_response(StatusCode::OK, None);
        lease.break_off();
    }
    assert_eq!(lease(&model).err(), Some(Unavailable::BreakerOpen));
    assert_eq!(model.stats()[0].failures, 2);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_refills_with_time() {
    let far = remote(0, 8, Some(1));
    let model = model(&[&far]);
    let mut changes = model.subscribe().unwrap();
    lease(&model).unwrap().record_success();
    assert_eq!(lease(&model).err(), Some(Unavailable::QuotaExhausted));
    let begun = ActiveInstant::now();
    while model.available() == Err(Unavailable::QuotaExhausted) {
        assert!(changes.next().await);
    }
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(lease(&model).is_ok());
}

#[tokio::test(start_paused = true)]
async fn local_workers_serve_if_no_remote_worker_can() {
    let (near, far) = (local(0, 1), remote(1, 1, None));
    let model = model(&[&near, &far]);
    assert_eq!((model.slots(), number(&lease(&model).unwrap())), (1, 1));
    set_state(&far.0, WorkerState::Unhealthy, false);
    assert_eq!(number(&lease(&model).unwrap()), 0);
    model.update(ModelInfo::named("m"), RoutingPolicy { remote_first: false, ..(**model.policy()).clone() });
    set_state(&near.0, WorkerState::Stopped, true);
    assert_eq!(lease(&model).err(), Some(Unavailable::Asleep));
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_is_hopeless_unless_another_worker_serves_or_loads() {
    let (one, two) = (local(0, 1), local(1, 1));
    let model = model(&[&one, &two]);
    set_state(&one.0, WorkerState::Backoff, false);
    assert!(!model.is_hopeless());
    set_state(&two.0, WorkerState::Loading, false);
    assert!(!model.is_hopeless());
    set_state(&two.0, WorkerState::Failed, false);
    assert!(model.is_hopeless());
}

/// Regression: status and state were read separately, so `/health` reported 200 for a model that was starting.
/// Regression: a backend that refuses connections was listed as loaded.
#[test]
fn a_remote_backend_that_does_not_answer_is_not_reported_as_loaded() {
    use WorkerState::{Failed, Ready, Stopped, Unhealthy};
    let (far, other, own) = (remote(0, 1, None), remote(1, 1, None), local(2, 1));
    for (states, expected) in [([Unhealthy, Unhealthy], Failed), ([Unhealthy, Ready], Ready)] {
        set_state(&far.0, states[0], false);
        set_state(&other.0, states[1], false);
        assert_eq!(model(&[&far, &other]).load_state(), expected, "{states:?}");
    }
    set_state(&own.0, Stopped, true);
    assert_eq!(model(&[&own, &far]).load_state(), Stopped, "the llama-server can be loaded");
    set_state(&own.0, Unhealthy, false);
    assert_eq!(model(&[&own, &far]).load_state(), Unhealthy, "its model is loaded, and it is restarted");
}

#[test]
fn a_report_is_consistent_while_a_worker_changes() {
    const LOOKS: usize = 20_000;
    let one = local(0, 1);
    let model = model(&[&one]);
    let is_finished = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_finished.load(Ordering::Relaxed) {
                set_state(&one.0, WorkerState::Ready, false);
                set_state(&one.0, WorkerState::Backoff, false);
                set_state(&one.0, WorkerState::Starting, false);
            }
        });
        let wrong = (0..LOOKS).map(|_| model.report()).find(|(status, report)| {
            *status != Some(ServiceStatus::of(WorkerCondition { state: report.state, is_asleep: false }))
        });
        is_finished.store(true, Ordering::Relaxed);
        assert!(wrong.is_none(), "{wrong:?}");
    });
}

/// Regression: a worker that sleeps because it found no memory counted as one that is about to start, so queued
/// requests waited for nothing.
#[tokio::test(start_paused = true)]
async fn sleeping_workers_are_not_waited_for_if_another_found_no_memory_beside_pinned_models() {
    let (one, two) = (local(0, 1), local(1, 1));
    let model = model(&[&one, &two]);
    set_state(&one.0, WorkerState::Stopped, true);
    set_state(&two.0, WorkerState::Stopped, true);
    assert!(!model.is_hopeless(), "both can be woken");
    let (program, model_id) = ("llama-server".to_owned(), "m".to_owned());
    let crowded_out = LastExit {
        code: None,
        signal: None,
        hint: None,
        at: jiff::Timestamp::UNIX_EPOCH,
        cause: FailureCause::NoRoom,
        program,
        model: model_id,
    };
    one.0.send_modify(|status| status.last_exit = Some(crowded_out.clone()));
    assert!(model.is_hopeless(), "the other worker would find no memory either");
    set_state(&two.0, WorkerState::Starting, true);
    assert!(!model.is_hopeless(), "the other worker may have found memory");
    two.0.send_modify(|status| status.last_exit = Some(crowded_out));
    assert!(!model.is_hopeless(), "the other worker still tries");
    set_state(&two.0, WorkerState::Stopped, true);
    assert!(model.is_hopeless());
}
