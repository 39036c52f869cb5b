//! The integration tests: one crate, one module for each thing that is promised.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod architecture;
mod clients;
mod configuration;
mod contract;
mod docs;
mod fake;
mod secrets;
mod streaming;
mod supervision;
