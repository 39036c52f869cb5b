//! Which worker has served which beginning of a prompt last.
//!
//! llama.cpp keeps the state of the prompts that its slots have computed. A prompt that begins like one of them is
//! computed only from where it differs, if it comes to the same llama-server.
//!
//! Owns a bounded memory of beginnings, each known by a hash. Does not choose: `choice.rs` asks it.

use crate::fleet::bounds::MOST_PREFIXES;
use std::collections::HashMap;

/// Remembers workers by beginnings of prompts. The older half is forgotten whenever it is full, but for what has been
/// served again meanwhile.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    young: HashMap<u64, usize>,
    old: HashMap<u64, usize>,
}

impl Affinity {
    /// The worker that has served this beginning last, as far as it is remembered.
    pub(super) fn find(&self, mark: u64) -> Option<usize> {
        self.young.get(&mark).or_else(|| self.old.get(&mark)).copied()
    }

    /// This worker serves these beginnings.
    pub(super) fn remember(&mut self, marks: &[u64], worker: usize) {
        for &mark in marks {
            // A new one that finds no room makes the young the old.
            if self.young.len() >= MOST_PREFIXES / 2 && !self.young.contains_key(&mark) {
                std::mem::swap(&mut self.young, &mut self.old);
                self.young.clear();
            }
            self.young.insert(mark, worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_served_again_stays_and_the_rest_is_forgotten() {
        let mut affinity = Affinity::default();
        let used = u64::MAX;
        affinity.remember(&[1], 1);
        for mark in 2..MOST_PREFIXES as u64 * 3 {
            affinity.remember(&[used], 7);
            affinity.remember(&[mark], 2);
            assert!(affinity.young.len() + affinity.old.len() <= MOST_PREFIXES);
        }
        assert_eq!((affinity.find(1), affinity.find(used)), (None, Some(7)));
    }

    #[test]
    fn half_of_the_memory_is_kept_whatever_comes() {
        let mut affinity = Affinity::default();
        let all: Vec<u64> = (0..MOST_PREFIXES as u64).collect();
        affinity.remember(&all, 1);
        affinity.remember(&all[MOST_PREFIXES - 1..], 2);
        let worker = |mark: usize| affinity.find(all[mark]);
        assert_eq!((worker(0), worker(MOST_PREFIXES - 1)), (Some(1), Some(2)), "all of them found room");
        affinity.remember(&[u64::MAX], 3);
        let worker = |mark: usize| affinity.find(all[mark]);
        assert_eq!((worker(0), worker(MOST_PREFIXES / 2)), (None, Some(1)), "the older half has gone");
    }

    proptest! {
        #[test]
        fn the_last_worker_is_found_while_there_is_room(
            notes in proptest::collection::vec((0..50_u64, 0..4_usize), 0..200),
        ) {
            let (mut affinity, mut model) = (Affinity::default(), HashMap::new());
            for (mark, worker) in notes {
                affinity.remember(&[mark], worker);
                model.insert(mark, worker);
            }
            for mark in 0..50 {
                prop_assert_eq!(affinity.find(mark), model.get(&mark).copied());
            }
        }
    }
}
