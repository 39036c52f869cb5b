//! A client's connection: its socket, and the heads and bodies of its requests as bytes.
//!
//! What a request means, and who may send it, is decided by the pipeline.
//!
//! - `listen.rs`: accepts connections and serves them
//! - `whole_server.rs`: answers requests that have arrived whole, without hyper
//! - `response_sender.rs`: sends the responses to these
//! - `closing.rs`: tells connections that they get no further requests
//! - `wire/`: the stream between a client's socket and hyper; says why hyper alone is not enough
//! - `head/`: the grammar and the limits of a request head
//! - `builders.rs`: how hyper serves connections
//! - `handshake.rs`: TLS handshakes
//! - `client_stream.rs`: a client's socket, with or without TLS
//! - `discard.rs`: the unread body of a request that has been answered

mod builders;
mod client_stream;
mod closing;
pub(super) mod discard;
pub(super) mod handshake;
pub(crate) mod head;
pub mod listen;
mod response_sender;
mod whole_server;
pub(super) mod wire;

#[cfg(feature = "test-support")]
pub(crate) use wire::whole_requests::whole_request;
