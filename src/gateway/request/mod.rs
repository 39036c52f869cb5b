//! A request before it is sent: its body, what it asks for, and how each worker wants to be asked.
//!
//! - `body.rs`: reads a body within its limits
//! - `body_view.rs`: where the members of a body stand, and the bytes between two places
//! - `envelope.rs`: what a body says of its model, its stream and its prompt
//! - `multipart.rs`: finds the parts of a multipart form
//! - `rewrite.rs`: changes members of a body
//! - `proxied_request.rs`: the request as it is sent to one worker after the other

pub(super) mod body;
mod body_view;
pub(super) mod envelope;
mod multipart;
pub(super) mod proxied_request;
pub(crate) mod rewrite;
