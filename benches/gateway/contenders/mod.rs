//! The contenders: the mock, the proxies in front of it, and how the driver is sent through each.
//!
//! - `gateways.rs`: the gateway, with its features on or off
//! - `peers.rs`: nginx and HAProxy
//! - `running.rs`: a running contender

pub(crate) mod gateways;
pub(crate) mod peers;
mod running;

pub(crate) use running::{AGAIN, Running};
