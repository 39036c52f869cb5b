//! Locks of files that several programs, and several machines with one volume, may want to write.
//!
//! Owns how a lock is taken, kept and lost. Which files need one is decided where they are written.
//!
//! - `lock.rs`: who may write a file
//! - `owner_note.rs`: the note of a lock's owner, for file systems whose locks are not enough

mod lock;
mod owner_note;

pub use lock::{FileLock, LockTaker};
