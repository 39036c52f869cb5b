//! A request before it is sent: its body, what it asks for, and its form for each worker.
//!
//! - `adapters.rs`: requests for an adapter of a model
//! - `answer_facts.rs`: what a request says about its answer
//! - `body/`: a body within its limits, and how it is read
//! - `body_view.rs`: the positions of a body's members, and the bytes in a range
//! - `envelope.rs`: the model, the stream flag and the prompt prefixes of a body
//! - `estimate.rs`: the tokens that a request may take
//! - `multipart.rs`: finds the parts of a multipart form
//! - `parameters.rs`: checks the members whose values an API limits
//! - `person.rs`: the person that a request names
//! - `response_format.rs`: the format of a response, as llama-server is told it
//! - `rewrite.rs`: changes members of a body
//! - `session.rs`: the session that a request names
//! - `proxied_request.rs`: a whole request, and its form for the worker of each attempt
//! - `worker_call.rs`: a call that is written for the worker that gets it

mod adapters;
pub(super) mod answer_facts;
pub(super) mod body;
mod body_view;
pub(super) mod envelope;
pub(super) mod estimate;
mod multipart;
pub(super) mod parameters;
pub(super) mod person;
pub(super) mod proxied_request;
mod response_format;
pub(crate) mod rewrite;
mod session;
pub(super) mod worker_call;
