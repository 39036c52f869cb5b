//! A request's journey. [`pipeline`] is the place to start reading: it shows every stage in order.
//!
//! Owns what happens between a client's socket and llama-server's. Asks the fleet for a worker and knows nothing of how
//! workers are kept.

mod auth;
mod body;
#[cfg_attr(
    not(any(test, feature = "test-support")),
    expect(dead_code, reason = "the pipeline does not ask for it yet")
)]
pub(crate) mod cors;
mod forward;
#[cfg_attr(not(test), expect(dead_code, reason = "the pipeline does not ask for it yet"))]
mod guesses;
mod headers;
mod limits;
pub mod listen;
pub mod pipeline;
mod queue;
#[cfg_attr(not(test), expect(dead_code, reason = "the pipeline does not ask for it yet"))]
mod rate;
mod record;
mod route;
mod sse;
#[cfg_attr(not(test), expect(dead_code, reason = "the pipeline does not ask for it yet"))]
mod standing;
mod ticks;

pub use auth::Gatekeeper;
pub use pipeline::{Gateway, LocalAnswer};
pub use queue::Queue;
pub use record::Books;
pub use route::Local;
