//! Scanners of bytes that arrive in pieces of any size. They build no value and copy no body.
//!
//! - `json_scanner.rs`: where the members of a JSON object stand
//! - `sse_framer.rs`: the lines and the ends of server-sent events

pub(crate) mod json_scanner;
pub(crate) mod sse_framer;
