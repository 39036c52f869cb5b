//! A request's journey. [`pipeline`] is the place to start reading: it shows every stage in order.
//!
//! Owns what happens between a client's socket and llama-server's. Asks the fleet for a worker and knows nothing of how
//! workers are kept.

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
#[cfg(test)]
mod testing;
mod upstream;

pub use accounting::record::Books;
pub use admission::auth::Gatekeeper;
pub use connection::head::HeadLimits;
pub use connection::listen;
pub use connection::wire::{Refuse, WireTerms};
pub use pipeline::{Gateway, LocalAnswer};
pub use queue::model_queues::{Lane, Lanes};
pub use queue::{Patience, Queue};
pub use response::body::Answer;
pub use route::Local;
