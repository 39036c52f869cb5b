//! Admission: authentication, authorization and rate limits of API keys, and CORS.
//!
//! - `auth/`: whose request it is, and what its key allows
//! - `auth_failures.rs`: limits the wrong keys that a client address may send
//! - `keyless.rs`: what protects a gateway without keys from web pages
//! - `limit_names.rs`: the limits of a key as refusals name them
//! - `local_hosts.rs`: the hosts that requests to a gateway without keys may name
//! - `budget/`: what keys and the people behind them may use in a day or a month
//! - `people.rs`: the people behind keys
//! - `rate.rs`: the limits and the usage of each key: requests and tokens a minute, requests in flight
//! - `rate_headers.rs`: the `x-ratelimit-*` headers
//! - `shared/`: the same limits as replicas share them
//! - `ticks.rs`: the clock of the limits
//! - `turn.rs`: the lines in which a request waits: priority, key and person
//! - `cors.rs`: which web pages may read responses

pub(super) mod auth;
mod auth_failures;
pub(super) mod budget;
pub(crate) mod cors;
mod keyless;
mod limit_names;
mod local_hosts;
pub(super) mod people;
pub(super) mod rate;
mod rate_headers;
pub(super) mod shared;
pub(super) mod ticks;
pub(super) mod turn;
