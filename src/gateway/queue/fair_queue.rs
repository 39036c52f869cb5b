//! A fair queue, as pure data: the number of slots in use, and the order of the waiting requests.
//!
//! First in, first out within a key; round robin between keys. So a key with a thousand waiting requests delays the only
//! request of another key by a single slot. Within a key, a request that can be computed together with those that were let
//! through last may overtake the first one, a few times. Does not deal with time, tasks or locks; `mod.rs` does.

use std::collections::{HashMap, VecDeque};

use crate::gateway::bounds::{BATCH_LOOKAHEAD, MOST_OVERTAKES};

/// What a worker can compute together: requests with the same number. `None` goes with all.
pub(super) type Batch = Option<u32>;

/// The waiters of one key.
struct KeyLine<W> {
    /// With their numbers, which ascend.
    waiters: VecDeque<(i64, Batch, W)>,
    /// How often the first one has been overtaken.
    overtaken: usize,
}

impl<W> KeyLine<W> {
    fn of(waiter: (i64, Batch, W)) -> Self {
        Self { waiters: VecDeque::from([waiter]), overtaken: 0 }
    }

    /// Removes the next waiter: the first one, or a later one that goes with the `last` batch.
    fn pop(&mut self, last: Batch) -> Option<(Batch, W)> {
        let (_, first, _) = self.waiters.front()?;
        let may_overtake = first.is_some() && *first != last && last.is_some() && self.overtaken < MOST_OVERTAKES;
        let goes_along = |(_, batch, _): &(i64, Batch, W)| *batch == last;
        let at = match may_overtake {
            true => self.waiters.iter().take(BATCH_LOOKAHEAD).position(goes_along).unwrap_or(0),
            false => 0,
        };
        self.overtaken = if at == 0 { 0 } else { self.overtaken + 1 };
        self.waiters.remove(at).map(|(_, batch, waiter)| (batch, waiter))
    }
}

/// A fair queue of waiters `W`.
pub(super) struct FairQueue<W> {
    /// The most waiters; `None` means no bound.
    bound: Option<usize>,
    /// Slots in use.
    active: usize,
    /// Waiters in `waiters`, over all keys.
    waiting: usize,
    /// Counts up: the number of the next waiter that joins at the end.
    next_number: u64,
    /// The keys with waiters, each once, in the order of their turns.
    key_rotation: VecDeque<String>,
    /// The waiters of each key.
    waiters: HashMap<String, KeyLine<W>>,
    /// The batch of the request that was let through last.
    last: Batch,
    /// Counts down: the number of the last waiter that joined at the front.
    front_number: i64,
}

/// The queue has as many waiters as its bound allows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFullError;

impl<W> FairQueue<W> {
    /// Creates an empty queue with at most `bound` waiters.
    pub(super) fn new(bound: Option<usize>) -> Self {
        Self {
            bound,
            active: 0,
            waiting: 0,
            next_number: 0,
            key_rotation: VecDeque::new(),
            waiters: HashMap::new(),
            last: None,
            front_number: 0,
        }
    }

    /// Returns the number of slots in use.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Returns the number of waiters.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether one more request can take one of `slots` slots or join the queue.
    pub(super) fn has_capacity(&self, slots: usize) -> bool {
        self.can_start(slots) || self.bound.is_none_or(|bound| self.waiting < bound)
    }

    /// Returns how many more requests can take one of `slots` slots or join the queue; `usize::MAX` without a bound.
    pub(super) fn places(&self, slots: usize) -> usize {
        let free = if self.waiting == 0 { slots.saturating_sub(self.active) } else { 0 };
        self.bound.map_or(usize::MAX, |bound| bound.saturating_sub(self.waiting).saturating_add(free))
    }

    /// Takes one of `slots` slots if one is free and no request waits for it. Returns whether it did.
    pub(super) fn try_start(&mut self, slots: usize, batch: Batch) -> bool {
        let can_start = self.can_start(slots);
        if can_start {
            self.last = batch.or(self.last);
        }
        self.active += usize::from(can_start);
        can_start
    }

    fn can_start(&self, slots: usize) -> bool {
        self.waiting == 0 && self.active < slots
    }

    /// Appends a waiter to those of its key. Returns the number to [`leave`](Self::leave) with.
    ///
    /// # Errors
    /// [`QueueFullError`] when `bound` requests wait already.
    pub(super) fn join(&mut self, key: &str, batch: Batch, waiter: W) -> Result<i64, QueueFullError> {
        if self.bound.is_some_and(|bound| self.waiting >= bound) {
            return Err(QueueFullError);
        }
        let number = i64::try_from(self.next_number).unwrap_or(i64::MAX);
        self.next_number += 1;
        match self.waiters.get_mut(key) {
            Some(line) => line.waiters.push_back((number, batch, waiter)),
            // A key without waiters is not in the rotation; it joins at the end.
            None => {
                self.key_rotation.push_back(key.to_owned());
                self.waiters.insert(key.to_owned(), KeyLine::of((number, batch, waiter)));
            }
        }
        self.waiting += 1;
        Ok(number)
    }

    /// Releases a slot and puts its holder at the front of the queue, because the worker went away before the slot was used.
    /// Ignores the bound: the request was accepted before.
    pub(super) fn return_to_front(&mut self, key: &str, waiter: W) -> i64 {
        self.active -= 1;
        self.join_front(key, waiter)
    }

    /// Puts a waiter at the front of the queue, regardless of the bound, where none overtakes it. Returns the number to [`leave`](Self::leave) with.
    pub(super) fn join_front(&mut self, key: &str, waiter: W) -> i64 {
        self.front_number -= 1;
        let number = self.front_number;
        match self.waiters.get_mut(key) {
            Some(line) => line.waiters.push_front((number, None, waiter)),
            None => _ = self.waiters.insert(key.to_owned(), KeyLine::of((number, None, waiter))),
        }
        self.key_rotation.retain(|other| other != key);
        // The key takes its next turn now instead of at its place in the rotation.
        self.key_rotation.push_front(key.to_owned());
        self.waiting += 1;
        number
    }

    /// Removes a waiter. Returns false if it is no longer in the queue, because it was granted a slot or refused.
    pub(super) fn leave(&mut self, key: &str, number: i64) -> bool {
        let Some(KeyLine { waiters: queue, .. }) = self.waiters.get_mut(key) else { return false };
        // Numbers ascend within a key: they count down at the front and up at the end.
        let Ok(index) = queue.binary_search_by_key(&number, |(number, ..)| *number) else { return false };
        queue.remove(index);
        if queue.is_empty() {
            self.waiters.remove(key);
            self.key_rotation.retain(|other| other != key);
        }
        self.waiting -= 1;
        true
    }

    /// Releases a slot.
    pub(super) fn release_slot(&mut self) {
        self.active -= 1;
    }

    /// Grants one of `slots` slots to the next waiter and returns it, if a slot is free and a request waits.
    pub(super) fn grant_next(&mut self, slots: usize) -> Option<W> {
        if self.active >= slots {
            return None;
        }
        let waiter = self.pop()?;
        self.active += 1;
        Some(waiter)
    }

    /// Removes all waiters and returns them in their order.
    pub(super) fn take_all(&mut self) -> Vec<W> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Removes all waiters and returns them with their keys: key by key in the order of their turns, each key's in order.
    /// Joined at the front of another queue in the reverse order, they are served there in the order that they had here.
    pub(super) fn take_by_key(&mut self) -> Vec<(String, W)> {
        let mut taken = Vec::with_capacity(self.waiting);
        for key in std::mem::take(&mut self.key_rotation) {
            let waiters = self.waiters.remove(&key).map(|line| line.waiters).unwrap_or_default();
            taken.extend(waiters.into_iter().map(|(.., waiter)| (key.clone(), waiter)));
        }
        self.waiting = 0;
        taken
    }

    /// Removes the next waiter, and moves its key to the end of the rotation.
    fn pop(&mut self) -> Option<W> {
        let key = self.key_rotation.pop_front()?;
        let line = self.waiters.get_mut(&key)?;
        let (batch, waiter) = line.pop(self.last)?;
        self.last = batch.or(self.last);
        if line.waiters.is_empty() {
            self.waiters.remove(&key);
        } else {
            self.key_rotation.push_back(key);
        }
        self.waiting -= 1;
        Some(waiter)
    }
}

#[cfg(test)]
#[path = "fair_queue_tests.rs"]
mod tests;
