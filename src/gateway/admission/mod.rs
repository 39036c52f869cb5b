//! Who is calling, and how much they may ask for.
//!
//! - `auth.rs`: API keys and their scopes
//! - `auth_failures.rs`: client addresses that send wrong keys
//! - `rate.rs`: what each key may use and has used: requests and tokens a minute, requests in flight
//! - `rate_headers.rs`: the `x-ratelimit-*` headers
//! - `ticks.rs`: the clock of limits
//! - `cors.rs`: which web pages may read answers

pub(super) mod auth;
mod auth_failures;
pub(crate) mod cors;
pub(super) mod rate;
mod rate_headers;
mod ticks;
