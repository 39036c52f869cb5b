//! The events of a stream on their way through: found, read, changed.
//!
//! - `relay.rs`: one stream, from the pieces that arrive to those that may be sent
//! - `watcher.rs`: finds the ends of events and of streams, and holds back unfinished events
//! - `end_watch.rs`: the event that ends a stream
//! - `finish.rs`: whether a stream has finished, though its end mark is missing
//! - `piece_splicer.rs`: passes pieces on, with changes between their bytes
//! - `sse_tail.rs`: events that follow what has been sent
//! - `transform.rs`: changes the events of a stream, one at a time

mod end_watch;
mod finish;
pub(super) mod piece_splicer;
pub(super) mod relay;
pub(super) mod sse_tail;
pub(super) mod transform;
pub(super) mod watcher;
