//! A request's journey. [`pipeline`] is the place to start reading: it shows every stage in order.
//!
//! Owns what happens between a client's socket and llama-server's. Asks the fleet for a worker and knows nothing of how
//! workers are kept.

mod activity;
mod asking;
mod attempts;
mod auth;
mod body;
pub mod bounds;
mod catalogue;
pub(crate) mod cors;
mod envelope;
mod farewell;
mod form;
mod forward;
mod guesses;
pub(crate) mod head;
mod headers;
mod heartbeat;
mod holdings;
mod lanes;
mod limits;
pub mod listen;
pub mod pipeline;
mod queue;
mod rate;
mod record;
pub(crate) mod rename;
pub(crate) mod rewrite;
mod room;
mod route;
mod sse;
mod sse_framer;
#[cfg(test)]
mod stage;
mod standing;
mod ticks;
mod unread;
mod usage;
mod verdict;
mod walk;
mod wire;

pub use auth::Gatekeeper;
pub use body::Answer;
pub use head::HeadLimits;
pub use lanes::{Lane, Lanes};
pub use pipeline::{Gateway, LocalAnswer};
pub use queue::{Patience, Queue};
pub use record::Books;
pub use route::Local;
pub use wire::{Refuse, WireTerms};
