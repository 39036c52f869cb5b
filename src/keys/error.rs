//! Errors of the key file as a whole ([`KeyFileError`], each with a hint) and of one line ([`KeyLineProblem`]). A bad
//! line never affects the good ones.

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
        /// The requested file.
        path: PathBuf,
    },
    /// A directory.
    #[error("{} is a folder, not a file", path.display())]
    Folder {
        /// The requested file.
        path: PathBuf,
    },
    /// A pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The requested file.
        path: PathBuf,
    },
    /// The file exists and cannot be read.
    #[error("the key file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The requested file.
        path: PathBuf,
        /// The error from the operating system.
        source: io::Error,
    },
    /// The file is larger than [`MAX_KEY_FILE_SIZE`].
    #[error("the key file {} is larger than {} MiB", path.display(), MAX_KEY_FILE_SIZE >> 20)]
    TooLarge {
        /// The requested file.
        path: PathBuf,
    },
    /// The file was read and holds no key that is valid now.
    #[error("the key file {} holds no usable key ({bad_lines} bad and {expired} expired lines)", path.display())]
    NoUsableKey {
        /// The file that was read.
        path: PathBuf,
        /// Lines that are neither keys nor comments.
        bad_lines: usize,
        /// Expired keys.
        expired: usize,
    },
    /// The file has a key that is also given by `LLAMAGATE_API_KEY`.
    #[error("line {line} of the key file {} has {}", path.display(), same.as_str())]
    AlsoInEnvironment {
        /// The file that was read.
        path: PathBuf,
        /// The first such line.
        line: usize,
        /// What both have in common.
        same: SharedWithEnvironment,
    },
    /// An edit would have to rewrite bytes that are not text.
    #[error("line {line} of the key file {} is not UTF-8 text", path.display())]
    NotText {
        /// The file that was read.
        path: PathBuf,
        /// The first line with such bytes.
        line: usize,
    },
    /// Another program holds the lock for too long.
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
        /// The error from the operating system.
        source: io::Error,
    },
}

impl KeyFileError {
    /// Returns the reason without the path, for clients that need not know it.
    pub fn reason(&self) -> String {
        match self {
            Self::Missing { .. } => "the key file does not exist".into(),
            Self::Folder { .. } => "the key file is a folder".into(),
            Self::NotAFile { .. } => "the key file is not a regular file".into(),
            Self::Unreadable { source, .. } => format!("the key file cannot be read: {source}"),
            Self::TooLarge { .. } => format!("the key file is larger than {} MiB", MAX_KEY_FILE_SIZE >> 20),
            Self::NoUsableKey { .. } => "the key file holds no usable key".into(),
            Self::AlsoInEnvironment { line, same, .. } => format!("line {line} of the key file has {}", same.as_str()),
            Self::NotText { line, .. } => format!("line {line} of the key file is not UTF-8 text"),
            Self::Locked { waited, .. } => {
                format!("the key file stayed locked by another program for {} s", waited.as_secs())
            }
            Self::Unwritable { source, .. } => format!("the key file cannot be written: {source}"),
        }
    }

    /// Returns one sentence on what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { path } | Self::NoUsableKey { path, .. } => {
                format!("make a key with: keyctl --file {} generate --name my-app", path.display())
            }
            Self::AlsoInEnvironment { same: SharedWithEnvironment::Id, .. } => {
                "give the key in the file another key_id, or leave LLAMAGATE_API_KEY out".into()
            }
            Self::AlsoInEnvironment { same: SharedWithEnvironment::Secret, .. } => {
                "remove the line, or leave LLAMAGATE_API_KEY out".into()
            }
            Self::Folder { .. } | Self::NotAFile { .. } => "name a text file with one key a line".into(),
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

/// What a key of the file and that of `LLAMAGATE_API_KEY` have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedWithEnvironment {
    /// The key_id.
    Id,
    /// The secret.
    Secret,
}

impl SharedWithEnvironment {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "the key_id env, which is that of LLAMAGATE_API_KEY",
            Self::Secret => "the secret of LLAMAGATE_API_KEY",
        }
    }
}

/// What is wrong with a line. The message never quotes the line, because half a secret must not reach a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyLineProblem {
    /// The line is longer than [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes")]
    LineTooLong,
    /// There is no second field.
    #[error("there is no `:` between a key_id and a secret")]
    NoSecret,
    /// The first field is not a key_id.
    #[error("the key_id is not 1 to {MAX_KEY_ID} of A-Z a-z 0-9 _ -")]
    KeyId,
    /// The second field is not a secret, and does not start with `sha256=`.
    #[error("the secret is not 16 to 128 of A-Z a-z 0-9 _ -")]
    Secret,
    /// The second field starts with `sha256=`, and is not a hash.
    #[error("`sha256=` is not followed by 64 hex digits")]
    Hash,
    /// The third field is not a rate limit.
    #[error("the rate limit is not a whole number from 1 to {}", u32::MAX)]
    RateLimit,
    /// The third field holds a date, which belongs in the fourth.
    #[error("the rate limit is a date; an expiration without a rate limit needs two colons: key_id:secret::date")]
    DateAsRateLimit,
    /// The fourth field is not a date.
    #[error("the expiration is not a date such as 2027-01-01 or 2027-01-01T12:00:00Z")]
    Expiration,
    /// There is a `#` after the key.
    #[error("a comment needs a line of its own")]
    InlineComment,
    /// There is a word without `=` after the first attribute.
    #[error("an attribute is not of the form name=value; values hold no spaces")]
    NotAnAttribute,
    /// An attribute has an unknown name.
    #[error(
        "an attribute is none of scope, models, tokens_per_minute, max_concurrent, requests_per_day, tokens_per_day, \
         tokens_per_month, cost_per_month, person_tokens_per_day, priority, trust_user_headers"
    )]
    UnknownAttribute,
    /// An attribute is given twice.
    #[error("an attribute is given twice")]
    DuplicateAttribute,
    /// The value of an attribute is bad.
    #[error("{name} is not {rule}")]
    AttributeValue {
        /// The name of the attribute.
        name: &'static str,
        /// What the value must be.
        rule: &'static str,
    },
    /// An earlier line has the same secret, as text or as a hash.
    #[error("the secret is the same as in line {first}")]
    SecretUsedTwice {
        /// The earlier line, counted from 1.
        first: usize,
    },
}
