//! The order of a line, pure: who holds a slot, who waits, who is next.
//!
//! Within a key, first come is first served. Between keys the turn goes round, so a key with a thousand waiting requests
//! delays another one's only request by a single turn. Knows nothing of time, tasks or locks; `mod.rs` does.

use std::collections::{HashMap, VecDeque};

/// A line of waiters `W`.
pub(super) struct FairQueue<W> {
    bound: Option<usize>,
    active: usize,
    waiting: usize,
    next_number: u64,
    /// The keys that have somebody waiting, each once; the first one's turn is next.
    key_rotation: VecDeque<String>,
    waiters: HashMap<String, VecDeque<(i64, W)>>,
    /// Counts down: numbers of those who were put back to the front.
    front_number: i64,
}

/// The line is as long as it may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFullError;

impl<W> FairQueue<W> {
    /// At most `bound` wait.
    pub(super) fn new(bound: Option<usize>) -> Self {
        Self {
            bound,
            active: 0,
            waiting: 0,
            next_number: 0,
            key_rotation: VecDeque::new(),
            waiters: HashMap::new(),
            front_number: 0,
        }
    }

    pub(super) fn active(&self) -> usize {
        self.active
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether one more may come in: to one of so many slots, or into the line.
    pub(super) fn has_capacity(&self, slots: usize) -> bool {
        self.can_start(slots) || self.bound.is_none_or(|bound| self.waiting < bound)
    }

    /// Takes one of so many slots if one is free and nobody waits for it.
    pub(super) fn try_start(&mut self, slots: usize) -> bool {
        let starts = self.can_start(slots);
        self.active += usize::from(starts);
        starts
    }

    fn can_start(&self, slots: usize) -> bool {
        self.waiting == 0 && self.active < slots
    }

    /// Goes to the end of the key's part of the line. Returns the number to leave with.
    pub(super) fn join(&mut self, key: &str, waiter: W) -> Result<i64, QueueFullError> {
        if self.bound.is_some_and(|bound| self.waiting >= bound) {
            return Err(QueueFullError);
        }
        let number = i64::try_from(self.next_number).unwrap_or(i64::MAX);
        self.next_number += 1;
        match self.waiters.get_mut(key) {
            Some(queue) => queue.push_back((number, waiter)),
            None => {
                self.key_rotation.push_back(key.to_owned());
                self.waiters.insert(key.to_owned(), VecDeque::from([(number, waiter)]));
            }
        }
        self.waiting += 1;
        Ok(number)
    }

    /// Gives a slot back and goes to the very front: the slot was no use, because the worker went away in between.
    /// Whoever held a slot is let in whatever the bound.
    pub(super) fn return_to_front(&mut self, key: &str, waiter: W) -> i64 {
        self.active -= 1;
        self.join_front(key, waiter)
    }

    /// Goes to the very front, whatever the bound.
    pub(super) fn join_front(&mut self, key: &str, waiter: W) -> i64 {
        self.front_number -= 1;
        let number = self.front_number;
        self.waiters.entry(key.to_owned()).or_default().push_front((number, waiter));
        self.key_rotation.retain(|turn| turn != key);
        self.key_rotation.push_front(key.to_owned());
        self.waiting += 1;
        number
    }

    /// Leaves the line. False when the waiter is no longer in it, because its turn has come.
    pub(super) fn leave(&mut self, key: &str, number: i64) -> bool {
        let Some(queue) = self.waiters.get_mut(key) else { return false };
        // Numbers ascend within a queue: those put back count down in front, the others up behind.
        let Ok(at) = queue.binary_search_by_key(&number, |(number, _)| *number) else { return false };
        queue.remove(at);
        if queue.is_empty() {
            self.waiters.remove(key);
            self.key_rotation.retain(|turn| turn != key);
        }
        self.waiting -= 1;
        true
    }

    /// Gives a slot back.
    pub(super) fn release_slot(&mut self) {
        self.active -= 1;
    }

    /// The next waiter, who now holds one of so many slots, if there is both.
    pub(super) fn grant_next(&mut self, slots: usize) -> Option<W> {
        if self.active >= slots {
            return None;
        }
        let waiter = self.pop()?;
        self.active += 1;
        Some(waiter)
    }

    /// Sends everybody away.
    pub(super) fn take_all(&mut self) -> Vec<W> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    fn pop(&mut self) -> Option<W> {
        let key = self.key_rotation.pop_front()?;
        let queue = self.waiters.get_mut(&key)?;
        let (_, waiter) = queue.pop_front()?;
        if queue.is_empty() {
            self.waiters.remove(&key);
        } else {
            self.key_rotation.push_back(key);
        }
        self.waiting -= 1;
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn within_a_key_first_come_is_first_served() {
        let mut line = FairQueue::new(None);
        assert!(line.try_start(1));
        for number in 0..4 {
            line.join("a", number).unwrap();
        }
        for expected in 0..4 {
            line.release_slot();
            assert_eq!(line.grant_next(1), Some(expected));
        }
    }

    #[test]
    fn a_key_with_a_thousand_waiting_delays_another_by_one_slot() {
        let mut line = FairQueue::new(None);
        assert!(line.try_start(1));
        for _ in 0..1_000 {
            line.join("greedy", "greedy").unwrap();
        }
        line.join("modest", "modest").unwrap();
        line.release_slot();
        assert_eq!(line.grant_next(1), Some("greedy"));
        line.release_slot();
        assert_eq!(line.grant_next(1), Some("modest"));
    }

    #[test]
    fn a_newcomer_never_overtakes_a_waiter() {
        let mut line = FairQueue::new(None);
        line.join("a", 1).unwrap();
        assert!(!line.try_start(1), "the slot is free, but somebody waits");
        assert_eq!(line.grant_next(1), Some(1));
    }

    #[test]
    fn a_waiter_put_back_is_next_even_in_a_full_queue() {
        let mut line = FairQueue::new(Some(2));
        assert!(line.try_start(1));
        line.join("a", "a1").unwrap();
        line.join("b", "b1").unwrap();
        assert_eq!(line.join("c", "c1"), Err(QueueFullError));
        let number = line.return_to_front("b", "b0");
        assert_eq!((line.waiting(), line.active()), (3, 0));
        assert_eq!(line.grant_next(1), Some("b0"));
        assert!(!line.leave("b", number));
        line.release_slot();
        assert_eq!(line.grant_next(1), Some("a1"));
    }

    /// What may happen to a line; keys are few, so that they meet.
    #[derive(Debug, Clone)]
    enum QueueStep {
        Arrive { key: u8, open: bool },
        Leave { nth: usize },
        Finish,
        Serve,
        PutBack,
        Dissolve,
    }

    fn steps() -> impl Strategy<Value = Vec<QueueStep>> {
        let step = prop_oneof![
            8 => (0..4u8, any::<bool>()).prop_map(|(key, open)| QueueStep::Arrive { key, open }),
            2 => (0..50usize).prop_map(|nth| QueueStep::Leave { nth }),
            4 => Just(QueueStep::Finish),
            4 => Just(QueueStep::Serve),
            1 => Just(QueueStep::PutBack),
            1 => Just(QueueStep::Dissolve),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a model that is a plain list: nobody is lost, doubled, or served out of turn; bounds hold.
        #[test]
        fn no_waiter_is_lost_and_no_bound_is_broken(steps in steps(), slots in 1..4usize, bound in proptest::option::of(0..6usize)) {
            let mut line = FairQueue::new(bound);
            let mut waiting: Vec<(u8, i64, u32)> = Vec::new();
            let mut holding: Vec<(u8, u32)> = Vec::new();
            let mut put_back = 0usize;
            for (name, step) in steps.into_iter().enumerate() {
                let name = name as u32;
                match step {
                    QueueStep::Arrive { key, open } => {
                        let slots = if open { slots } else { 0 };
                        let room = line.has_capacity(slots);
                        if line.try_start(slots) {
                            prop_assert!(room && open && waiting.is_empty());
                            holding.push((key, name));
                        } else if let Ok(number) = line.join(&key.to_string(), (key, name)) {
                            prop_assert!(room);
                            waiting.push((key, number, name));
                        } else {
                            prop_assert!(!room);
                        }
                    }
                    QueueStep::Leave { nth } if !waiting.is_empty() => {
                        let (key, number, _) = waiting.remove(nth % waiting.len());
                        prop_assert!(line.leave(&key.to_string(), number));
                        prop_assert!(!line.leave(&key.to_string(), number), "nobody leaves twice");
                    }
                    QueueStep::Finish if !holding.is_empty() => {
                        holding.remove(0);
                        line.release_slot();
                    }
                    QueueStep::Serve => match line.grant_next(slots) {
                        Some((key, name)) => {
                            let first = waiting.iter().position(|(other, ..)| *other == key);
                            prop_assert_eq!(first.map(|at| waiting.remove(at).2), Some(name), "first of its key");
                            holding.push((key, name));
                        }
                        None => prop_assert!(waiting.is_empty() || holding.len() == slots),
                    },
                    QueueStep::PutBack if !holding.is_empty() => {
                        let (key, name) = holding.remove(0);
                        let number = line.return_to_front(&key.to_string(), (key, name));
                        waiting.insert(0, (key, number, name));
                        put_back += 1;
                    }
                    QueueStep::Dissolve => prop_assert_eq!(line.take_all().len(), std::mem::take(&mut waiting).len()),
                    _ => {}
                }
                prop_assert_eq!(line.waiting(), waiting.len());
                prop_assert_eq!(line.active(), holding.len());
                prop_assert!(holding.len() <= slots);
                prop_assert!(bound.is_none_or(|bound| waiting.len() <= bound + put_back));
                prop_assert_eq!(line.key_rotation.len(), line.waiters.len());
            }
        }

        /// However many each key brings, no key is served twice while another one waits through both.
        #[test]
        fn keys_are_served_in_rotation(counts in proptest::collection::vec(1..20usize, 1..6)) {
            let mut line = FairQueue::new(None);
            prop_assert!(line.try_start(1));
            for (key, count) in counts.iter().enumerate() {
                for _ in 0..*count {
                    line.join(&key.to_string(), key).unwrap();
                }
            }
            let mut left = counts.clone();
            while left.iter().any(|count| *count > 0) {
                for key in (0..left.len()).filter(|key| left[*key] > 0).collect::<Vec<_>>() {
                    line.release_slot();
                    prop_assert_eq!(line.grant_next(1), Some(key));
                    left[key] -= 1;
                }
            }
        }
    }
}
