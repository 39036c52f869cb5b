//! A worker's response on its way back to the client.
//!
//! - `body.rs`: every body that the gateway sends, as hyper sees it
//! - `in_progress.rs`: the state of a response in progress, and its next piece
//! - `stall_sweeper.rs`: ends responses that their clients do not read
//! - `heartbeat.rs`: comments for a client whose stream has not begun
//! - `piece_wait.rs`: what ends the wait for the next piece
//! - `shared.rs`: a body whose pieces come from an answer that others read too, or that was kept
//! - `stream/`: the events of a stream on their way through
//! - `error_cause.rs`: whose fault an error is, by its words
//! - `compute_failure.rs`: whether a response shows that its llama-server cannot compute
//! - `line_stream.rs`: a stream of events as lines of JSON, for Ollama's clients
//! - `local_answer.rs`: answers of the gateway itself, whole or as events
//! - `made.rs`: a body that the gateway makes piece by piece
//! - `served_by.rs`: what served a call
//! - `upstream_body.rs`: the body of a worker's response, unpacked; a part may have been read
//! - `mend/`: what llama-server's answers lack
//! - `rename.rs`: puts the client's name of the model into a response

pub(super) mod body;
mod compute_failure;
pub(super) mod error_cause;
pub(super) mod heartbeat;
pub(super) mod in_progress;
pub(super) mod line_stream;
pub(super) mod local_answer;
pub(super) mod made;
pub(super) mod mend;
mod piece_wait;
pub(crate) mod rename;
pub(super) mod served_by;
pub(super) mod shared;
pub(super) mod stall_sweeper;
mod stream;
pub(super) mod upstream_body;
