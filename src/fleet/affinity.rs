//! Which worker has served which beginning of a prompt last.
//!
//! llama.cpp keeps the state of the prompts that its slots have computed. A prompt that begins like one of them is
//! computed only from where it differs, if it comes to the same llama-server.
//!
//! Owns the marks of beginnings and a bounded memory for them. Does not choose: `choice.rs` asks it.

use crate::settings::bounds::{MOST_PREFIXES, PREFIX_LENGTHS};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The beginnings of one prompt, each as a number, the longest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prefixes {
    marks: [u64; PREFIX_LENGTHS.len()],
    count: usize,
}

/// Makes [`Prefixes`]. No two of them agree on anything, so that nobody outside can choose which prompts look alike.
#[derive(Debug, Clone, Default)]
pub struct Marker(RandomState);

/// Remembers workers by beginnings of prompts. The older half is forgotten whenever it is full, but for what has been
/// served again meanwhile.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    young: HashMap<u64, usize>,
    old: HashMap<u64, usize>,
}

impl Prefixes {
    /// As numbers, the longest last.
    pub fn as_slice(&self) -> &[u64] {
        &self.marks[..self.count]
    }
}

impl Marker {
    /// The beginnings of a prompt that comes with the key of this id: those of [`PREFIX_LENGTHS`] that it is long enough
    /// for. The prompts of two keys never look alike.
    pub fn mark(&self, key: &str, prompt: &[u8]) -> Prefixes {
        let mut hasher = self.0.build_hasher();
        hasher.write_usize(key.len());
        hasher.write(key.as_bytes());
        let mut prefixes = Prefixes::default();
        let mut start = 0;
        for (mark, end) in prefixes.marks.iter_mut().zip(PREFIX_LENGTHS) {
            let Some(piece) = prompt.get(start..end) else { break };
            hasher.write(piece);
            *mark = hasher.finish();
            prefixes.count += 1;
            start = end;
        }
        prefixes
    }
}

impl Affinity {
    /// The worker that has served this beginning last, as far as it is remembered.
    pub(super) fn find(&self, mark: u64) -> Option<usize> {
        self.young.get(&mark).or_else(|| self.old.get(&mark)).copied()
    }

    /// This worker serves these beginnings.
    pub(super) fn note(&mut self, marks: &[u64], worker: usize) {
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
    fn a_prompt_has_the_marks_that_it_is_long_enough_for() {
        let marker = Marker::default();
        let prompt = vec![b'a'; 20_000];
        for (length, count) in [(0, 0), (255, 0), (256, 1), (1023, 1), (1024, 2), (4096, 3), (16_384, 4), (20_000, 4)] {
            let marks = marker.mark("k", &prompt[..length]);
            assert_eq!(marks.as_slice().len(), count, "{length}");
            assert_eq!(marks.as_slice(), &marker.mark("k", &prompt).as_slice()[..count], "{length}");
        }
    }

    #[test]
    fn marks_differ_from_where_prompts_do_and_between_keys() {
        let marker = Marker::default();
        let (one, mut other) = (vec![b'a'; 5000], vec![b'a'; 5000]);
        other[1024] = b'b';
        let (one, other) = (marker.mark("k", &one), marker.mark("k", &other));
        assert_eq!(one.as_slice()[..2], other.as_slice()[..2]);
        assert_ne!(one.as_slice()[2], other.as_slice()[2]);
        let distinct = |left: Prefixes, right: Prefixes| left.as_slice()[0] != right.as_slice()[0];
        assert!(distinct(one, marker.mark("K", &[b'a'; 5000])));
        let longer_key = marker.mark(&format!("k{}", "a".repeat(1024 - 256)), &[b'a'; 256]);
        assert_ne!(one.as_slice()[1], longer_key.as_slice()[0], "a key does not run into its prompt");
        assert!(distinct(one, Marker::default().mark("k", &[b'a'; 5000])), "nobody can foretell them");
    }

    #[test]
    fn what_is_served_again_stays_and_the_rest_is_forgotten() {
        let mut affinity = Affinity::default();
        let used = u64::MAX;
        affinity.note(&[1], 1);
        for mark in 2..MOST_PREFIXES as u64 * 3 {
            affinity.note(&[used], 7);
            affinity.note(&[mark], 2);
            assert!(affinity.young.len() + affinity.old.len() <= MOST_PREFIXES);
        }
        assert_eq!((affinity.find(1), affinity.find(used)), (None, Some(7)));
    }

    #[test]
    fn half_of_the_memory_is_kept_whatever_comes() {
        let mut affinity = Affinity::default();
        let all: Vec<u64> = (0..MOST_PREFIXES as u64).collect();
        affinity.note(&all, 1);
        affinity.note(&all[MOST_PREFIXES - 1..], 2);
        let worker = |mark: usize| affinity.find(all[mark]);
        assert_eq!((worker(0), worker(MOST_PREFIXES - 1)), (Some(1), Some(2)), "all of them found room");
        affinity.note(&[u64::MAX], 3);
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
                affinity.note(&[mark], worker);
                model.insert(mark, worker);
            }
            for mark in 0..50 {
                prop_assert_eq!(affinity.find(mark), model.get(&mark).copied());
            }
        }
    }
}
