//! API keys: the key file, its grammar and its edits, and the lookup of a secret.
//!
//! The gateway uses [`Store`], which finds the [`Key`] of a presented secret. The `keyctl` program uses the grammar,
//! the edits and the replacement of the file. Counting requests against a key's limits happens in the gateway.
//!
//! A loaded file keeps secrets only as SHA-256 digests, and no `Debug` or `Display` in this module shows a secret, a
//! digest or the text of a line.
//!
//! - `attribute.rs`: the table of attributes
//! - `bounds.rs`: longest line, longest id, largest file
//! - `changes/`: members of a key by their names, and their new values
//! - `digest_memo.rs`: the digests of secrets that were presented before
//! - `edit.rs`: keyctl's edits, as functions on a parsed file
//! - `error.rs`: errors of the file and of single lines
//! - `expiry.rs`: dates and time spans until which a key is valid
//! - `file.rs`: reading the file from disk
//! - `key.rs`: a key without its secret, and its scopes
//! - `list.rs`: the keys as a table or as JSON
//! - `parse.rs`: the grammar of the file
//! - `priority.rs`: whose waiting requests get more turns
//! - `secret.rs`: secrets and their digests
//! - `store.rs`: the keys in memory, looked up and reloaded
//! - `write.rs`: locking and atomically replacing the file

mod attribute;
mod bounds;
pub mod changes;
mod digest_memo;
pub mod edit;
mod error;
pub mod expiry;
mod file;
mod key;
pub mod list;
pub mod parse;
mod priority;
pub mod secret;
mod store;
pub mod write;

pub use attribute::is_model_name;
pub use bounds::{MAX_KEY_FILE_SIZE, MAX_KEY_ID, MAX_LINE};
pub use error::{KeyFileError, KeyLineProblem, SharedWithEnvironment};
pub use file::{read, read_with_mode};
pub use key::{Budget, Key, Scope, Scopes, UnknownScope};
pub use priority::{Priority, UnknownPriority};
pub use store::{CHANGE_SEEN_WITHIN, Denied, FoundKey, SERVICE_KEY_ID, Store, WATCH_INTERVAL};
