//! A request before it is sent: its body, what it asks for, and its form for each worker.
//!
//! - `body.rs`: reads a body within its limits
//! - `body_view.rs`: the positions of a body's members, and the bytes in a range
//! - `envelope.rs`: the model, the stream flag and the prompt prefixes of a body
//! - `multipart.rs`: finds the parts of a multipart form
//! - `rewrite.rs`: changes members of a body
//! - `proxied_request.rs`: a whole request, and its form for the worker of each attempt

pub(super) mod body;
mod body_view;
pub(super) mod envelope;
mod multipart;
pub(super) mod proxied_request;
pub(crate) mod rewrite;
