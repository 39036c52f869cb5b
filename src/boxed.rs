//! Boxes whose contents are made where they stay.
//!
//! `Box::new` makes a value on the stack and copies it, and a future as a whole: most of one that has not begun is room for
//! later, which the copy would only pull into the CPU's caches. Where the allocation comes first, the compiler writes what
//! there is of the value, and nothing else, if it can see how the value is made: hence the inlining.

use std::future::Future;
use std::pin::Pin;

/// Returns a box with what `make` returns.
#[inline(always)]
pub(crate) fn boxed<T>(make: impl FnOnce() -> T) -> Box<T> {
    Box::write(Box::new_uninit(), make())
}

/// Returns a pinned box with the future that `make` returns.
#[inline(always)]
pub(crate) fn boxed_future<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(boxed(make))
}
