//! The integration tests: one crate, one module for each thing that is promised.

#[path = "../support/mod.rs"]
mod support;

mod fake;
