//! The contenders: the mock and the proxies in front of it.
//!
//! - `gateways.rs`: the gateway, with its features on or off
//! - `peers.rs`: nginx and HAProxy
//! - `contender.rs`: a running contender

mod contender;
pub(crate) mod gateways;
pub(crate) mod peers;

pub(crate) use contender::{Contender, SECOND_DIRECT};
