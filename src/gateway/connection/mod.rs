//! A client's connection: sockets, and the heads and bodies of requests as bytes.
//!
//! - `listen.rs`: accepts connections and serves them
//! - `wire/`: what lies between a client's socket and hyper
//! - `head/`: the grammar and the limits of a request's head
//! - `discard.rs`: the body of a request that is answered without it

pub(super) mod discard;
pub(crate) mod head;
pub mod listen;
pub(super) mod wire;
