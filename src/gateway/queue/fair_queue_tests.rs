use super::*;
use proptest::prelude::*;

#[test]
fn free_slots_and_places_to_wait_are_counted_together() {
    let mut queue = FairQueue::<()>::new(Some(2));
    assert_eq!((queue.places(3), queue.places(0)), (5, 2));
    assert!(queue.try_start(1, None));
    assert_eq!((queue.places(3), queue.places(1)), (4, 2));
    assert_eq!(FairQueue::<()>::new(None).places(1), usize::MAX);
}

#[test]
fn the_requests_of_a_key_are_served_in_the_order_of_their_arrival() {
    let mut queue = FairQueue::new(None);
    assert!(queue.try_start(1, None));
    for number in 0..4 {
        queue.join("a", None, number).unwrap();
    }
    for expected in 0..4 {
        queue.release_slot();
        assert_eq!(queue.grant_next(1), Some(expected));
    }
}

#[test]
fn a_key_with_a_thousand_waiting_delays_another_by_one_slot() {
    let mut queue = FairQueue::new(None);
    assert!(queue.try_start(1, None));
    for _ in 0..1_000 {
        queue.join("busy", None, "busy").unwrap();
    }
    queue.join("quiet", None, "quiet").unwrap();
    queue.release_slot();
    assert_eq!(queue.grant_next(1), Some("busy"));
    queue.release_slot();
    assert_eq!(queue.grant_next(1), Some("quiet"));
}

#[test]
fn a_newcomer_never_overtakes_a_waiter() {
    let mut queue = FairQueue::new(None);
    queue.join("a", None, 1).unwrap();
    assert!(!queue.try_start(1, None), "the slot is free, but a request waits");
    assert_eq!(queue.grant_next(1), Some(1));
}

#[test]
fn a_waiter_put_back_is_next_even_in_a_full_queue() {
    let mut queue = FairQueue::new(Some(2));
    assert!(queue.try_start(1, None));
    queue.join("a", None, "a1").unwrap();
    queue.join("b", None, "b1").unwrap();
    assert_eq!(queue.join("c", None, "c1"), Err(QueueFullError));
    let number = queue.return_to_front("b", "b0");
    assert_eq!((queue.waiting(), queue.active()), (3, 0));
    assert_eq!(queue.grant_next(1), Some("b0"));
    assert!(!queue.leave("b", number));
    queue.release_slot();
    assert_eq!(queue.grant_next(1), Some("a1"));
}

#[test]
fn a_request_of_the_same_batch_overtakes_but_not_for_ever() {
    let mut queue = FairQueue::new(None);
    assert!(queue.try_start(1, Some(1)));
    queue.join("a", Some(2), "other").unwrap();
    for _ in 0..3 * MOST_OVERTAKES {
        queue.join("a", Some(1), "same").unwrap();
    }
    let mut next = || {
        queue.release_slot();
        queue.grant_next(1).unwrap()
    };
    assert!((0..MOST_OVERTAKES).all(|_| next() == "same"));
    assert_eq!((next(), next()), ("other", "same"), "it has been overtaken often enough");
}

/// An operation on a queue. There are few keys, so that several requests share one.
#[derive(Debug, Clone)]
enum QueueStep {
    Arrive { key: u8, is_ready: bool },
    Leave { nth: usize },
    Finish,
    Serve,
    ReturnToFront,
    RefuseAll,
}

fn steps() -> impl Strategy<Value = Vec<QueueStep>> {
    let step = prop_oneof![
        8 => (0..4u8, any::<bool>()).prop_map(|(key, is_ready)| QueueStep::Arrive { key, is_ready }),
        2 => (0..50usize).prop_map(|nth| QueueStep::Leave { nth }),
        4 => Just(QueueStep::Finish),
        4 => Just(QueueStep::Serve),
        1 => Just(QueueStep::ReturnToFront),
        1 => Just(QueueStep::RefuseAll),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Compared with a plain list: no waiter is lost, duplicated or served out of order, and the bounds hold.
    #[test]
    fn no_waiter_is_lost_and_no_bound_is_broken(steps in steps(), slots in 1..4usize, bound in proptest::option::of(0..6usize)) {
        let mut queue = FairQueue::new(bound);
        let mut waiting: Vec<(u8, i64, u32)> = Vec::new();
        let mut holding: Vec<(u8, u32)> = Vec::new();
        let mut returned = 0usize;
        for (name, step) in steps.into_iter().enumerate() {
            let name = name as u32;
            match step {
                QueueStep::Arrive { key, is_ready } => {
                    let slots = if is_ready { slots } else { 0 };
                    let has_capacity = queue.has_capacity(slots);
                    if queue.try_start(slots, None) {
                        prop_assert!(has_capacity && is_ready && waiting.is_empty());
                        holding.push((key, name));
                    } else if let Ok(number) = queue.join(&key.to_string(), None, (key, name)) {
                        prop_assert!(has_capacity);
                        waiting.push((key, number, name));
                    } else {
                        prop_assert!(!has_capacity);
                    }
                }
                QueueStep::Leave { nth } if !waiting.is_empty() => {
                    let (key, number, _) = waiting.remove(nth % waiting.len());
                    prop_assert!(queue.leave(&key.to_string(), number));
                    prop_assert!(!queue.leave(&key.to_string(), number), "a waiter cannot leave twice");
                }
                QueueStep::Finish if !holding.is_empty() => {
                    holding.remove(0);
                    queue.release_slot();
                }
                QueueStep::Serve => match queue.grant_next(slots) {
                    Some((key, name)) => {
                        let first = waiting.iter().position(|(other, ..)| *other == key);
                        prop_assert_eq!(first.map(|at| waiting.remove(at).2), Some(name), "first of its key");
                        holding.push((key, name));
                    }
                    None => prop_assert!(waiting.is_empty() || holding.len() == slots),
                },
                QueueStep::ReturnToFront if !holding.is_empty() => {
                    let (key, name) = holding.remove(0);
                    let number = queue.return_to_front(&key.to_string(), (key, name));
                    waiting.insert(0, (key, number, name));
                    returned += 1;
                }
                QueueStep::RefuseAll => prop_assert_eq!(queue.take_all().len(), std::mem::take(&mut waiting).len()),
                _ => {}
            }
            prop_assert_eq!(queue.waiting(), waiting.len());
            prop_assert_eq!(queue.active(), holding.len());
            prop_assert!(holding.len() <= slots);
            prop_assert!(bound.is_none_or(|bound| waiting.len() <= bound + returned));
            prop_assert_eq!(queue.key_rotation.len(), queue.waiters.len());
        }
    }

    /// No key is served twice while another key waits, however many requests each key has.
    #[test]
    fn keys_are_served_in_rotation(counts in proptest::collection::vec(1..20usize, 1..6)) {
        let mut queue = FairQueue::new(None);
        prop_assert!(queue.try_start(1, None));
        for (key, count) in counts.iter().enumerate() {
            for _ in 0..*count {
                queue.join(&key.to_string(), None, key).unwrap();
            }
        }
        let mut left = counts.clone();
        while left.iter().any(|count| *count > 0) {
            for key in (0..left.len()).filter(|key| left[*key] > 0).collect::<Vec<_>>() {
                queue.release_slot();
                prop_assert_eq!(queue.grant_next(1), Some(key));
                left[key] -= 1;
            }
        }
    }

    /// With any batches no request is lost, and none is overtaken by more requests of its key than the bound allows for
    /// itself and each one before it.
    #[test]
    fn batches_lose_no_request_and_overtake_within_the_bound(batches in proptest::collection::vec(0..3u32, 1..60)) {
        let mut queue = FairQueue::new(None);
        for (at, batch) in batches.iter().enumerate() {
            queue.join("a", Some(*batch), at).unwrap();
        }
        let served: Vec<usize> = std::iter::from_fn(|| queue.grant_next(usize::MAX)).collect();
        let mut sorted = served.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..batches.len()).collect::<Vec<_>>());
        for (place, at) in served.iter().enumerate() {
            prop_assert!(place <= at + (at + 1) * MOST_OVERTAKES, "{} at {}", at, place);
        }
    }
}
