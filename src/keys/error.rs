//! What can go wrong: with the file as a whole ([`KeyFileError`], each case with a hint) and with one line of it
//! ([`Problem`]). A bad line never stops the good ones.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::bounds::{MAX_KEY_FILE_SIZE, MAX_KEY_ID, MAX_LINE};

/// Why the key file could not be read, used or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("the key file {} does not exist", path.display())]
    Missing {
        /// The file that was asked for.
        path: PathBuf,
    },
    /// A directory, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file that was asked for.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("the key file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than [`MAX_KEY_FILE_SIZE`].
    #[error("the key file {} is larger than {} MiB", path.display(), MAX_KEY_FILE_SIZE >> 20)]
    TooLarge {
        /// The file that was asked for.
        path: PathBuf,
    },
    /// The file was read and holds no key that anybody could use.
    #[error("the key file {} holds no usable key ({bad_lines} bad and {expired} expired lines)", path.display())]
    NoUsableKey {
        /// The file that was read.
        path: PathBuf,
        /// Lines that are neither keys nor comments.
        bad_lines: usize,
        /// Keys whose end has come.
        expired: usize,
    },
    /// An edit would have to rewrite bytes that are not text.
    #[error("line {line} of the key file {} is not UTF-8 text", path.display())]
    NotText {
        /// The file that was read.
        path: PathBuf,
        /// The first line with such bytes.
        line: usize,
    },
    /// Another edit holds the lock and does not let go.
    #[error("the key file {} stayed locked by another program for {} s", path.display(), waited.as_secs())]
    Locked {
        /// The file that was to be edited.
        path: PathBuf,
        /// How long this program waited.
        waited: Duration,
    },
    /// The new text could not be stored; the old one stays.
    #[error("the key file {} cannot be written: {source}", path.display())]
    Unwritable {
        /// The file that was to be edited.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl KeyFileError {
    /// One sentence on what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { path } | Self::NoUsableKey { path, .. } => {
                format!("make a key with: keyctl --file {} generate --name my-app", path.display())
            }
            Self::NotAFile { .. } => "name a text file with one key a line".into(),
            Self::Unreadable { .. } => "check the owner and mode of the file and of its directory".into(),
            Self::TooLarge { .. } => "check that the path names a key file; `keyctl prune` drops expired lines".into(),
            Self::NotText { .. } => "save the file as UTF-8 in an editor, then try again".into(),
            Self::Locked { .. } => "look for a keyctl that hangs, end it, then try again".into(),
            Self::Unwritable { .. } => {
                "check that the disk is not full and that neither file nor directory is read-only".into()
            }
        }
    }
}

/// What is wrong with a line. Says so without quoting any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyLineProblem {
    /// Longer than [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes")]
    LineTooLong,
    /// No second field.
    #[error("there is no `:` between a key_id and a secret")]
    NoSecret,
    /// The first field.
    #[error("the key_id is not 1 to {MAX_KEY_ID} of A-Z a-z 0-9 _ -")]
    KeyId,
    /// The second field, when it does not start with `sha256=`.
    #[error("the secret is not 16 to 128 of A-Z a-z 0-9 _ -")]
    Secret,
    /// The second field, when it starts with `sha256=`.
    #[error("`sha256=` is not followed by 64 hex digits")]
    Hash,
    /// The third field.
    #[error("the rate limit is not a whole number from 1 to {}", u32::MAX)]
    RateLimit,
    /// The third field holds what belongs into the fourth.
    #[error("the rate limit is a date; an expiration without a rate limit needs two colons: key_id:secret::date")]
    DateAsRateLimit,
    /// The fourth field.
    #[error("the expiration is not a date such as 2027-01-01 or 2027-01-01T12:00:00Z")]
    Expiration,
    /// A `#` after the key.
    #[error("a comment needs a line of its own")]
    InlineComment,
    /// A word without `=` after the first attribute.
    #[error("an attribute is not of the form name=value; values hold no spaces")]
    NotAnAttribute,
    /// A name outside scope, models, tokens_per_minute and max_concurrent.
    #[error("an attribute is none of scope, models, tokens_per_minute, max_concurrent")]
    UnknownAttribute,
    /// One name twice.
    #[error("an attribute is given twice")]
    DuplicateAttribute,
    /// `scope=`.
    #[error("scope is not a comma list of inference, admin, metrics")]
    Scope,
    /// `models=`.
    #[error("models is not a comma list of model names (no patterns; leave it out to allow all)")]
    Models,
    /// `tokens_per_minute=`.
    #[error("tokens_per_minute is not a whole number above 0")]
    TokensPerMinute,
    /// `max_concurrent=`.
    #[error("max_concurrent is not a whole number above 0")]
    MaxConcurrent,
    /// The secret of an earlier line, be it as text or as hash.
    #[error("the secret is the same as in line {first}")]
    SecretUsedTwice {
        /// The line that keeps it, counted from 1.
        first: usize,
    },
}
