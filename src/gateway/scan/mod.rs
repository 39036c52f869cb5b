//! Scanners of bytes that arrive in pieces of any size. They build no values, and copy no more than one event.
//!
//! - `chunked_body.rs`: finds the data and the end of a chunked body
//! - `event_data.rs`: the data of one server-sent event, up to a bound
//! - `json_scanner.rs`: finds the members of JSON objects
//! - `mark_block.rs`: brackets and quotes of many bytes at once
//! - `sse_framer.rs`: finds the lines and the ends of server-sent events

pub(crate) mod chunked_body;
pub(crate) mod event_data;
pub(crate) mod json_scanner;
mod mark_block;
pub(crate) mod sse_framer;
