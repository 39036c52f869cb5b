//! A request's journey. [`pipeline`] is the place to start reading: it shows every stage in order.
//!
//! Owns what happens between a client's socket and llama-server's. Asks the fleet for a worker and knows nothing of how
//! workers are kept.

mod auth;
mod body;
mod forward;
mod headers;
mod limits;
pub mod listen;
pub mod pipeline;
mod queue;
mod record;
mod route;
mod sse;
mod usage;

pub use auth::Gatekeeper;
pub use pipeline::{Gateway, LocalAnswer};
pub use queue::{Patience, Queue};
pub use record::Books;
pub use route::Local;
