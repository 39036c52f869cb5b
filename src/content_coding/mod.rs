//! Content codings (RFC 9110, section 8.4.1): which ones a message names, and unpacking them piece by piece.
//!
//! Packed bytes are not trusted: what they unpack to is bounded, and so is the memory that a decoder may ask for. Knows
//! neither requests nor responses.
//!
//! - `codings.rs`: the codings that a message names
//! - `unpacker.rs`: unpacks a message with any number of codings
//! - `stage.rs`: the decoder of one coding
//! - `inflater.rs`: the decoder of `deflate`, which means two formats
//! - `unpacked.rs`: what a decoder has unpacked, within its bound
//! - `error.rs`: why a message could not be unpacked

mod codings;
mod error;
mod inflater;
mod stage;
#[cfg(test)]
mod tests;
mod unpacked;
mod unpacker;

pub use codings::{ACCEPTED_CODINGS, ContentCodings, UnsupportedCoding};
pub use error::UnpackError;
pub use unpacker::{LARGEST_STEP, Unpacker};
