//! Logs over HTTP: which there are, the end of one, and what is written to it from then on.
//!
//! Owns what is read of a log, and how. How many clients may read is decided in the folder above.
//!
//! - `follow.rs`: a log as server-sent events
//! - `list.rs`: which logs there are
//! - `tail.rs`: the end of a log, and what follows it

pub(super) mod follow;
pub(super) mod list;
pub(super) mod tail;
