//! A short list of values that were looked up before: found again without a lock, and without a hash of the key.
//!
//! Owns how they are found. What they are, and where those beyond the bound are looked up, is up to the caller.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::telemetry::bounds::LISTED_SERIES;

/// The first [`LISTED_SERIES`] values that were asked for, in that order. It only grows.
#[derive(Debug)]
pub(super) struct SeriesList<K, V>(NextSeries<K, V>);

/// The place of an entry, which is empty at the end of the list.
type NextSeries<K, V> = OnceLock<Box<ListedSeries<K, V>>>;

#[derive(Debug)]
struct ListedSeries<K, V> {
    key: K,
    value: V,
    next: NextSeries<K, V>,
}

impl<K, V> Default for SeriesList<K, V> {
    fn default() -> Self {
        Self(NextSeries::new())
    }
}

impl<K: Clone + PartialEq, V: Clone> SeriesList<K, V> {
    /// Returns the value of this key. `make` looks it up: once, or each time for a key beyond the bound.
    pub(super) fn get(&self, key: &K, make: impl Fn() -> V) -> Cow<'_, V> {
        let mut link = &self.0;
        for _ in 0..LISTED_SERIES {
            let entry = link
                .get_or_init(|| Box::new(ListedSeries { key: key.clone(), value: make(), next: NextSeries::new() }));
            // Another thread may have put another key here in the meantime; then the next place is tried.
            if entry.key == *key {
                return Cow::Borrowed(&entry.value);
            }
            link = &entry.next;
        }
        Cow::Owned(make())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Barrier;

    /// How often the threads race.
    const ROUNDS: usize = 50;

    #[test]
    fn a_value_is_looked_up_once_unless_its_key_is_beyond_the_bound() {
        let (list, made) = (SeriesList::default(), Cell::new(0));
        let get = |key: usize| {
            let value = list.get(&key, || {
                made.set(made.get() + 1);
                key * 10
            });
            value.into_owned()
        };
        for _ in 0..2 {
            for key in 0..LISTED_SERIES {
                assert_eq!(get(key), key * 10);
            }
        }
        assert_eq!(made.get(), LISTED_SERIES);
        assert_eq!((get(LISTED_SERIES), get(LISTED_SERIES)), (LISTED_SERIES * 10, LISTED_SERIES * 10));
        assert_eq!((made.get(), get(0)), (LISTED_SERIES + 2, 0));
    }

    #[test]
    fn threads_that_ask_at_once_get_the_same_values() {
        const THREADS: usize = 4;
        for _ in 0..ROUNDS {
            let (list, start) = (SeriesList::default(), Barrier::new(THREADS));
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (list, start) = (&list, &start);
                    scope.spawn(move || {
                        start.wait();
                        // Half of the threads ask in reverse, so that two want one place for different keys.
                        let keys =
                            (0..LISTED_SERIES).map(|key| if thread % 2 == 0 { key } else { LISTED_SERIES - 1 - key });
                        keys.for_each(|key| assert_eq!(*list.get(&key, || key), key));
                    });
                }
            });
            (0..LISTED_SERIES).for_each(|key| assert_eq!(*list.get(&key, || LISTED_SERIES), key));
        }
    }
}
