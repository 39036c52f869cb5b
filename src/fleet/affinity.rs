//! Remembers which worker last served which prompt prefix.
//!
//! llama.cpp keeps the KV cache of the prompts that its slots have computed. A prompt that shares a prefix with one of
//! them is computed only from the first difference, if it reaches the same llama-server.
//!
//! Owns a bounded map from prefix hashes to workers. The choice itself is in `choice/`.

use std::collections::HashMap;

use crate::fleet::bounds::MOST_PREFIXES;

/// The last worker of each prompt prefix. When it is full, the older half is dropped, except for prefixes that were
/// served again since.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    young: HashMap<u64, usize>,
    old: HashMap<u64, usize>,
}

impl Affinity {
    /// Returns the worker that last served this prefix, if it is still remembered.
    pub(super) fn find(&self, prefix: u64) -> Option<usize> {
        self.young.get(&prefix).or_else(|| self.old.get(&prefix)).copied()
    }

    /// Records that `worker` serves these prefixes.
    pub(super) fn remember(&mut self, prefixes: &[u64], worker: usize) {
        for &prefix in prefixes {
            // Two generations: when the young one is full, it becomes the old one, and the previous old one is dropped.
            if self.young.len() >= MOST_PREFIXES / 2 && !self.young.contains_key(&prefix) {
                std::mem::swap(&mut self.young, &mut self.old);
                self.young.clear();
            }
            self.young.insert(prefix, worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_that_are_served_again_stay_and_others_are_dropped() {
        let mut affinity = Affinity::default();
        let used = u64::MAX;
        affinity.remember(&[1], 1);
        for prefix in 2..MOST_PREFIXES as u64 * 3 {
            affinity.remember(&[used], 7);
            affinity.remember(&[prefix], 2);
            assert!(affinity.young.len() + affinity.old.len() <= MOST_PREFIXES);
        }
        assert_eq!((affinity.find(1), affinity.find(used)), (None, Some(7)));
    }

    #[test]
    fn half_of_the_prefixes_are_kept_when_the_memory_is_full() {
        let mut affinity = Affinity::default();
        let all: Vec<u64> = (0..MOST_PREFIXES as u64).collect();
        affinity.remember(&all, 1);
        affinity.remember(&all[MOST_PREFIXES - 1..], 2);
        let worker = |prefix: usize| affinity.find(all[prefix]);
        assert_eq!((worker(0), worker(MOST_PREFIXES - 1)), (Some(1), Some(2)), "all of them fit");
        affinity.remember(&[u64::MAX], 3);
        let worker = |prefix: usize| affinity.find(all[prefix]);
        assert_eq!((worker(0), worker(MOST_PREFIXES / 2)), (None, Some(1)), "the older half was dropped");
    }

    proptest! {
        #[test]
        fn the_last_worker_is_found_while_the_memory_is_not_full(
            records in proptest::collection::vec((0..50_u64, 0..4_usize), 0..200),
        ) {
            let (mut affinity, mut model) = (Affinity::default(), HashMap::new());
            for (prefix, worker) in records {
                affinity.remember(&[prefix], worker);
                model.insert(prefix, worker);
            }
            for prefix in 0..50 {
                prop_assert_eq!(affinity.find(prefix), model.get(&prefix).copied());
            }
        }
    }
}
