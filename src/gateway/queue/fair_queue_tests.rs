use super::*;
use proptest::prelude::*;

/// The turn of a key with normal priority.
fn turn(key: &str) -> Turn<'_> {
    Turn { priority: Priority::Normal, key, person: "" }
}

fn never<W>(_: &W) -> bool {
    false
}

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
        queue.join(turn("a"), None, number).unwrap();
    }
    for expected in 0..4 {
        queue.release_slot();
        assert_eq!(queue.grant_next(1, never), Some(expected));
    }
}

#[test]
fn a_key_with_a_thousand_waiting_delays_another_by_one_slot() {
    let mut queue = FairQueue::new(None);
    assert!(queue.try_start(1, None));
    for _ in 0..1_000 {
        queue.join(turn("busy"), None, "busy").unwrap();
    }
    queue.join(turn("quiet"), None, "quiet").unwrap();
    queue.release_slot();
    assert_eq!(queue.grant_next(1, never), Some("busy"));
    queue.release_slot();
    assert_eq!(queue.grant_next(1, never), Some("quiet"));
}

#[test]
fn a_newcomer_never_overtakes_a_waiter() {
    let mut queue = FairQueue::new(None);
    queue.join(turn("a"), None, 1).unwrap();
    assert!(!queue.try_start(1, None), "the slot is free, but a request waits");
    assert_eq!(queue.grant_next(1, never), Some(1));
}

#[test]
fn a_waiter_put_back_is_next_even_in_a_full_queue() {
    let mut queue = FairQueue::new(Some(2));
    assert!(queue.try_start(1, None));
    queue.join(turn("a"), None, "a1").unwrap();
    queue.join(turn("b"), None, "b1").unwrap();
    assert_eq!(queue.join(turn("c"), None, "c1"), Err(QueueFullError));
    let number = queue.return_to_front(turn("b"), "b0");
    assert_eq!((queue.waiting(), queue.active()), (3, 0));
    assert_eq!(queue.grant_next(1, never), Some("b0"));
    assert!(!queue.leave(turn("b"), number));
    queue.release_slot();
    assert_eq!(queue.grant_next(1, never), Some("a1"));
}

#[test]
fn a_request_of_the_same_batch_overtakes_but_not_for_ever() {
    let mut queue = FairQueue::new(None);
    assert!(queue.try_start(1, Some(1)));
    queue.join(turn("a"), Some(2), "other").unwrap();
    for _ in 0..3 * MOST_OVERTAKES {
        queue.join(turn("a"), Some(1), "same").unwrap();
    }
    let mut next = || {
        queue.release_slot();
        queue.grant_next(1, never).unwrap()
    };
    assert!((0..MOST_OVERTAKES).all(|_| next() == "same"));
    assert_eq!((next(), next()), ("other", "same"), "it has been overtaken often enough");
}

#[test]
fn people_behind_a_key_take_turns_within_the_turns_of_the_key() {
    let mut queue = FairQueue::new(None);
    let of = |key, person| Turn { person, ..turn(key) };
    for name in ["ann 1", "ann 2", "ann 3"] {
        queue.join(of("team", "ann"), None, name).unwrap();
    }
    queue.join(of("team", "bob"), None, "bob").unwrap();
    queue.join(of("other", ""), None, "other").unwrap();
    let served: Vec<_> = std::iter::from_fn(|| queue.grant_next(usize::MAX, never)).collect();
    assert_eq!(served, ["ann 1", "other", "bob", "ann 2", "ann 3"]);
}

#[test]
fn priorities_share_the_turns_by_eight_to_four_to_one() {
    let mut queue = FairQueue::new(None);
    for priority in Priority::ALL {
        for _ in 0..100 {
            queue.join(Turn { priority, ..turn("a") }, None, priority).unwrap();
        }
    }
    for _ in 0..5 {
        let served: Vec<_> = (0..13).filter_map(|_| queue.grant_next(usize::MAX, never)).collect();
        let count = |wanted| served.iter().filter(|priority| **priority == wanted).count();
        assert_eq!(Priority::ALL.map(count), [8, 4, 1], "{served:?}");
    }
}

#[test]
fn a_request_that_has_waited_too_long_counts_as_one_of_high_priority() {
    let mut queue = FairQueue::new(None);
    let of = |priority, key| Turn { priority, key, person: "" };
    for _ in 0..20 {
        queue.join(of(Priority::High, "busy"), None, "high").unwrap();
    }
    let number = queue.join(of(Priority::Low, "quiet"), None, "low").unwrap();
    queue.join(of(Priority::Low, "quiet"), None, "low too").unwrap();
    let is_overdue = |waiter: &&str| *waiter == "low";
    let served: Vec<_> = (0..3).filter_map(|_| queue.grant_next(usize::MAX, is_overdue)).collect();
    assert!(served.contains(&"low"), "its key has one turn in two: {served:?}");
    assert!(!queue.leave(of(Priority::Low, "quiet"), number));
    assert!(!served.contains(&"low too"));
}

#[test]
fn a_promoted_request_can_leave() {
    let mut queue = FairQueue::new(None);
    let low = Turn { priority: Priority::Low, ..turn("quiet") };
    let numbers = [0, 1].map(|nth| queue.join(low, None, nth).unwrap());
    for nth in 2..6 {
        queue.join(Turn { priority: Priority::High, ..turn("busy") }, None, nth).unwrap();
    }
    // Both are overdue; the first of the line is promoted with each grant.
    assert_eq!(queue.grant_next(usize::MAX, |waiter| *waiter < 2), Some(2));
    assert!(numbers.into_iter().all(|number| queue.leave(low, number)));
    assert_eq!(queue.waiting(), 3);
    let served: Vec<_> = std::iter::from_fn(|| queue.grant_next(usize::MAX, never)).collect();
    assert_eq!(served, [3, 4, 5]);
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
                    } else if let Ok(number) = queue.join(turn(&key.to_string()), None, (key, name)) {
                        prop_assert!(has_capacity);
                        waiting.push((key, number, name));
                    } else {
                        prop_assert!(!has_capacity);
                    }
                }
                QueueStep::Leave { nth } if !waiting.is_empty() => {
                    let (key, number, _) = waiting.remove(nth % waiting.len());
                    prop_assert!(queue.leave(turn(&key.to_string()), number));
                    prop_assert!(!queue.leave(turn(&key.to_string()), number), "a waiter cannot leave twice");
                }
                QueueStep::Finish if !holding.is_empty() => {
                    holding.remove(0);
                    queue.release_slot();
                }
                QueueStep::Serve => match queue.grant_next(slots, never) {
                    Some((key, name)) => {
                        let first = waiting.iter().position(|(other, ..)| *other == key);
                        prop_assert_eq!(first.map(|at| waiting.remove(at).2), Some(name), "first of its key");
                        holding.push((key, name));
                    }
                    None => prop_assert!(waiting.is_empty() || holding.len() == slots),
                },
                QueueStep::ReturnToFront if !holding.is_empty() => {
                    let (key, name) = holding.remove(0);
                    let number = queue.return_to_front(turn(&key.to_string()), (key, name));
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
            prop_assert_eq!(queue.classes.iter().all(|class| class.keys.is_empty()), queue.waiting() == 0);
        }
    }

    /// No key is served twice while another key waits, however many requests each key has.
    #[test]
    fn keys_are_served_in_rotation(counts in proptest::collection::vec(1..20usize, 1..6)) {
        let mut queue = FairQueue::new(None);
        prop_assert!(queue.try_start(1, None));
        for (key, count) in counts.iter().enumerate() {
            for _ in 0..*count {
                queue.join(turn(&key.to_string()), None, key).unwrap();
            }
        }
        let mut left = counts.clone();
        while left.iter().any(|count| *count > 0) {
            for key in (0..left.len()).filter(|key| left[*key] > 0).collect::<Vec<_>>() {
                queue.release_slot();
                prop_assert_eq!(queue.grant_next(1, never), Some(key));
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
            queue.join(turn("a"), Some(*batch), at).unwrap();
        }
        let served: Vec<usize> = std::iter::from_fn(|| queue.grant_next(usize::MAX, never)).collect();
        let mut sorted = served.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..batches.len()).collect::<Vec<_>>());
        for (place, at) in served.iter().enumerate() {
            prop_assert!(place <= at + (at + 1) * MOST_OVERTAKES, "{} at {}", at, place);
        }
    }

    /// With any turns, and any waiters overdue, each is served once or leaves once, and those of one line in their order.
    #[test]
    fn no_waiter_is_lost_between_priorities_keys_and_people(
        steps in proptest::collection::vec((0..3usize, 0..3u8, 0..3u8, 0..4u8), 1..120),
        late in 0..5u32,
    ) {
        let mut queue = FairQueue::new(None);
        let mut waiting: Vec<((usize, u8, u8), i64, u32)> = Vec::new();
        let is_overdue = |waiter: &((usize, u8, u8), u32)| waiter.1 % 5 < late;
        for (name, (priority, key, person, action)) in (0..).zip(steps) {
            let line = (priority, key, person);
            let names = (key.to_string(), person.to_string());
            let turn = Turn { priority: Priority::ALL[priority], key: &names.0, person: &names.1 };
            match action {
                0 if !waiting.is_empty() => {
                    let (waiter, _) = queue.grant_next(usize::MAX, is_overdue).map(|(line, name)| (name, line)).unwrap();
                    let at = waiting.iter().position(|(.., name)| *name == waiter).unwrap();
                    let (line, ..) = waiting.remove(at);
                    // One that is overdue may wait for a turn of high priority while its line goes on.
                    let is_before = |(other, _, name): &(_, _, u32)| *other == line && !is_overdue(&(line, *name));
                    prop_assert!(!waiting[..at].iter().any(is_before), "first of its line");
                }
                1 => {
                    if let Some(at) = waiting.iter().position(|(other, ..)| *other == line) {
                        let (_, number, _) = waiting.remove(at);
                        prop_assert!(queue.leave(turn, number));
                        prop_assert!(!queue.leave(turn, number));
                    }
                }
                _ => waiting.push((line, queue.join(turn, None, (line, name)).unwrap(), name)),
            }
            prop_assert_eq!(queue.waiting(), waiting.len());
        }
        prop_assert_eq!(queue.take_all().len(), waiting.len());
        prop_assert!(queue.classes.iter().all(|class| class.keys.is_empty()));
    }
}
