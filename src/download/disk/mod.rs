//! What a download does on the disk: where its files lie, and what a part of one says of itself.
//!
//! All of it blocks, for as long as a network volume likes: callers are on threads where that is allowed.
//!
//! - `cache.rs`: where files lie in the hub's cache, and when they get their names
//! - `part_file.rs`: the file that a download grows in
//! - `pieces.rs`: which pieces of a file have arrived
//! - `room.rs`: room on the disk

pub(super) mod cache;
pub(super) mod part_file;
pub(super) mod pieces;
pub(super) mod room;
