//! The contenders: the mock, the proxies in front of it, and how the driver is sent through each.
//!
//! - `gateways.rs`: the gateway, with its features on or off
//! - `peers.rs`: nginx and HAProxy
//! - `contender.rs`: a running contender

mod contender;
pub(crate) mod gateways;
pub(crate) mod peers;

pub(crate) use contender::{AGAIN, Running};
