//! A request's journey. [`pipeline`] is the place to start reading: it shows every stage in order.
//!
//! Owns what happens between a client's socket and llama-server's. Asks the fleet for a worker and knows nothing of how
//! workers are kept.
//!
//! - `pipeline.rs`: every stage of a request, in order
//! - `route.rs`: the route table
//! - `connection/`: sockets, and the heads and bodies of requests as bytes
//! - `admission/`: who is calling, and how much they may ask for
//! - `accounting/`: the access log, metrics and token counts of each request
//! - `queue/`: the wait for a slot and a worker, one queue for each model
//! - `request/`: a request's body, what it asks for, and its form for each worker
//! - `scan/`: JSON members and event lines, found in bytes that arrive in pieces
//! - `response/`: a worker's answer on its way back
//! - `upstream/`: sends a request to a worker, and decides about retries
//! - `models_api.rs`: the routes on models themselves
//! - `malformed_request.rs`: the answer to a head that never became a request
//! - `headers.rs`: which headers cross, and request ids
//! - `content_kind.rs`: the kind of body that an answer has
//! - `bounds.rs`: waits, queues and buffers whose size no user needs to choose
//! - `testing.rs`: what tests of answers need

mod accounting;
pub(crate) mod admission;
pub mod bounds;
pub(crate) mod connection;
mod content_kind;
mod headers;
mod malformed_request;
mod models_api;
pub mod pipeline;
mod queue;
pub(crate) mod request;
pub(crate) mod response;
mod route;
pub(crate) mod scan;
#[cfg(test)]
mod testing;
mod upstream;

pub use accounting::record::Accounting;
pub use admission::auth::Authenticator;
pub use connection::head::HeadLimits;
pub use connection::listen;
pub use connection::wire::{RefusalWriter, WireLimits};
pub use pipeline::{Gateway, LocalResponder};
pub use queue::model_queues::{ModelQueue, ModelQueues};
pub use queue::{Queue, QueueTimeouts};
pub use response::body::ResponseBody;
pub use route::{LocalRoute, reserved_paths};
