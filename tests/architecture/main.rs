//! Rules for the source tree itself: who may use whom, no circles, folders that list their files, names that say what
//! they do, plain language. Reads sources as text and syntax; starts nothing.
//!
//! `cargo test --test architecture -- --nocapture` prints the figures as well.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod declarations;
mod folders;
mod language;
mod layers;
mod names;
mod paths;
mod sources;
