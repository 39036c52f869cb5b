//! A request and its response over a connection to a worker, and the connections that are kept for the next requests.
//!
//! The task of a request drives the connection itself: no other task runs, and none is woken, between a request and the
//! last byte of its response. A connection belongs to the core that opened it. Decides nothing about retries, except that
//! a request of which no byte was written gets another connection if the worker had just closed an idle one
//! (`MOST_STALE_CONNECTIONS`).
//!
//! - `idle_connections.rs`: the connections to one worker that no request uses, the newest first
//! - `wakeups.rs`: which task a connection wakes, and when none
//! - `worker_body.rs`: the body of a response, which gives its connection back at its end
//! - `worker_connection.rs`: one connection, driven by the task that polls it
//! - `worker_connections.rs`: sends a request to a worker, on an idle connection or a new one
//! - `worker_pool.rs`: keeps idle connections to one worker, closes them in time, and opens one ahead of need

mod idle_connections;
#[cfg(test)]
mod tests;
mod wakeups;
mod worker_body;
mod worker_connection;
mod worker_connections;
mod worker_pool;

pub(super) use worker_body::WorkerBody;
pub(super) use worker_connections::{ExchangeError, WorkerConnections};
