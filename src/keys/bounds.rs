//! Bounds of the key file.

/// Largest key file that is read, in bytes.
pub const MAX_KEY_FILE_SIZE: u64 = 16 * 1024 * 1024;

/// Longest line, in bytes. A longer one is refused.
pub const MAX_LINE: usize = 8 * 1024;

/// Longest key_id, in bytes.
pub const MAX_KEY_ID: usize = 64;
