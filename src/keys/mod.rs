//! API keys: who may call, what for, and how the file that says so is read and edited.
//!
//! The gateway sees two things: [`Store`], which turns a presented secret into a [`Key`], and the [`Key`] itself. The
//! `keyctl` program uses the other half: the grammar, the verbs and the replacement of the file. Counting requests
//! against a key's limits happens elsewhere.
//!
//! Secrets live here only as SHA-256 digests once a file is loaded, and no `Debug` or `Display` in this module shows
//! a secret, a digest or the text of a line.
//!
//! - `bounds.rs`: longest line, longest id, largest file
//! - `edit.rs`: keyctl's verbs, as functions on a parsed file
//! - `error.rs`: what is wrong with the file, or with a line of it
//! - `expiry.rs`: when a key ends
//! - `file.rs`: the file on disk, as a reader sees it
//! - `key.rs`: a key without its secret, and its scopes
//! - `list.rs`: the keys as a table or as JSON
//! - `parse.rs`: the grammar of the file
//! - `secret.rs`: secrets and the digests that stand for them
//! - `store.rs`: the keys in memory, looked up and reloaded
//! - `write.rs`: the locked, atomic replacement of the file

mod bounds;
pub mod edit;
mod error;
pub mod expiry;
mod file;
mod key;
pub mod list;
pub mod parse;
pub mod secret;
mod store;
pub mod write;

pub use bounds::{MAX_KEY_FILE_SIZE, MAX_KEY_ID, MAX_LINE};
pub use error::{KeyFileError, KeyLineProblem};
pub use file::read;
pub use key::{Key, Scope, Scopes, UnknownScope};
pub use store::{CHANGE_SEEN_WITHIN, Denied, Store, WATCH_INTERVAL};
