//! Bounds of the key file.

/// The largest key file that is read, in bytes.
pub const MAX_KEY_FILE_SIZE: u64 = 16 * 1024 * 1024;

/// The longest line, in bytes. A longer one is refused.
pub const MAX_LINE: usize = 8 * 1024;

/// The longest key_id, in bytes.
pub const MAX_KEY_ID: usize = 64;
