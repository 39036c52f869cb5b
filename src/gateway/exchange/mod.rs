//! A request and its response over a connection to a worker, and the connections that are kept for the next requests.
//!
//! The task of a request drives the connection itself: no other task runs, and none is woken, between a request and the
//! last byte of its response. A connection belongs to the core that opened it. Decides nothing about retries, except that
//! a request of which no byte was written gets another connection if the worker had just closed an idle one
//! (`MOST_STALE_CONNECTIONS`).
//!
//! HTTP/1.1 is spoken here and not by hyper's client: that is a state machine of its own behind channels, which costs a
//! stream two buffers and a second poll for each of its frames. A connection that waits holds no buffer here, and chunks
//! that arrive together become one piece.
//!
//! - `body_reader.rs`: where a response ends, and which bytes are its body
//! - `idle_connections.rs`: the connections to one worker that no request uses, the newest first
//! - `known_head.rs`: recognises a head that differs from an earlier one in the length of the body only
//! - `request_writer.rs`: what is left to be written of a request
//! - `response_bytes.rs`: a response whose bytes are at hand, for tests
//! - `response_head.rs`: the head of a response
//! - `worker_body.rs`: the body of a response, which gives its connection back at its end
//! - `worker_connection.rs`: one connection, read and written by the task that polls it
//! - `worker_connections.rs`: sends a request to a worker, on an idle connection or a new one
//! - `worker_pool.rs`: keeps idle connections to one worker, closes them in time, and opens one ahead of need
//! - `worker_request.rs`: a request, whose head is written as bytes at once
//! - `worker_socket.rs`: the socket of a connection, with or without TLS

mod body_reader;
mod idle_connections;
mod known_head;
mod request_writer;
#[cfg(any(test, feature = "test-support"))]
mod response_bytes;
mod response_head;
#[cfg(test)]
mod tests;
mod worker_body;
mod worker_connection;
mod worker_connections;
mod worker_pool;
mod worker_request;
mod worker_socket;

#[cfg(any(test, feature = "test-support"))]
pub(crate) use response_bytes::read_response;
pub(super) use worker_body::WorkerBody;
pub(super) use worker_connection::BrokenConnection;
pub(super) use worker_connections::{ExchangeError, WorkerConnections};
pub(super) use worker_request::{RequestHead, WorkerRequest};
