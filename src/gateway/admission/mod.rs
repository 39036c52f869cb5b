//! Admission: authentication, authorization and rate limits of API keys, and CORS.
//!
//! - `auth.rs`: API keys and their scopes
//! - `auth_failures.rs`: limits the wrong keys that a client address may send
//! - `keyless.rs`: what protects a gateway without keys from web pages
//! - `rate.rs`: the limits and the usage of each key: requests and tokens a minute, requests in flight
//! - `rate_headers.rs`: the `x-ratelimit-*` headers
//! - `ticks.rs`: the clock of the limits
//! - `cors.rs`: which web pages may read responses

pub(super) mod auth;
mod auth_failures;
pub(crate) mod cors;
mod keyless;
pub(super) mod rate;
mod rate_headers;
mod ticks;
