//! A value of its own for each core.

use std::cell::Cell;
use std::sync::OnceLock;

use super::bounds::MOST_CORES;

thread_local! {
    /// The place of this thread's values: 0 if it is no serving thread, else the number of its core, counted from 1.
    static PLACE: Cell<usize> = const { Cell::new(0) };
}

/// Makes this thread the one that serves the core of this number, counted from 0 and below [`MOST_CORES`].
pub(super) fn enter(number: usize) {
    PLACE.set(number + 1);
}

/// A value for each core, made when the core first asks for it. All threads that are no cores share one more.
///
/// A thread that serves no connections may share its value with others, so a value must be `Sync`; a lock in it is free
/// wherever a core takes it.
pub struct PerCore<T> {
    make: Box<dyn Fn() -> T + Send + Sync>,
    /// Boxed, so that the values of two cores do not share a cache line.
    values: [OnceLock<Box<T>>; MOST_CORES + 1],
}

impl<T> PerCore<T> {
    /// Creates a value that `make` makes for each core.
    pub fn new(make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), values: [const { OnceLock::new() }; MOST_CORES + 1] }
    }

    /// Returns the value of the core that calls.
    pub fn get(&self) -> &T {
        self.values[PLACE.get()].get_or_init(|| Box::new((self.make)()))
    }

    /// Returns the values that have been made, of all cores.
    pub fn made(&self) -> impl Iterator<Item = &T> {
        self.values.iter().filter_map(|value| value.get().map(|value| &**value))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Numbers the values in the order in which they are made.
    fn numbered() -> PerCore<usize> {
        let made = AtomicUsize::new(0);
        PerCore::new(move || made.fetch_add(1, Ordering::Relaxed))
    }

    #[test]
    fn each_core_has_its_own_value_and_keeps_it() {
        let values = numbered();
        for core in 0..MOST_CORES {
            let on_core = || {
                enter(core);
                (*values.get(), *values.get())
            };
            let seen = thread::scope(|scope| scope.spawn(on_core).join().unwrap());
            assert_eq!(seen, (core, core));
        }
        assert_eq!(values.made().count(), MOST_CORES);
    }

    #[test]
    fn threads_that_are_no_cores_share_one_value() {
        let values = numbered();
        let here = *values.get();
        thread::scope(|scope| {
            assert_eq!(scope.spawn(|| *values.get()).join().unwrap(), here);
        });
        assert_eq!(values.made().collect::<Vec<_>>(), [&here]);
    }

    #[test]
    fn a_value_that_no_core_has_asked_for_is_not_made() {
        assert_eq!(numbered().made().count(), 0);
    }
}
