//! Why a download did not come to its end, in one sentence each, and what to do about it.
//!
//! No message holds an address with a query, because signed addresses are secrets, and none holds a token.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bounds::DISK_RESERVE;
use crate::models::{NameError, human_size};

/// Why a model did not come.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// It is not the name of a model on the network.
    #[error("\"{name}\" names no model on the network: {source}")]
    Name {
        /// What was given.
        name: String,
        /// Why.
        source: NameError,
    },
    /// The hub has no such repository, or does not show it.
    #[error("{host} has no repository {repository}, or keeps it private")]
    NoRepository {
        /// The hub.
        host: String,
        /// The repository.
        repository: String,
    },
    /// The repository has no such revision.
    #[error("{repository} has no revision {revision}")]
    NoRevision {
        /// The repository.
        repository: String,
        /// What was asked for.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{repository} has no such model: {reason}")]
    NoFile {
        /// The repository.
        repository: String,
        /// What it has.
        reason: String,
    },
    /// Its owner lets only some users have it.
    #[error("{repository} is given only to those who have asked for it at {page}")]
    Gated {
        /// The repository.
        repository: String,
        /// The page where access is asked for.
        page: String,
    },
    /// The token is not valid.
    #[error("{host} rejects the token")]
    BadToken {
        /// The hub.
        host: String,
    },
    /// `HF_HUB_OFFLINE` forbids to ask.
    #[error("{name} is not in the cache, and HF_HUB_OFFLINE forbids to ask the hub")]
    Offline {
        /// The name.
        name: String,
    },
    /// The hub, or the host that it redirects to, says something that cannot be right.
    #[error("{host} {fault}")]
    BadAnswer {
        /// The host.
        host: String,
        /// What is wrong, as the rest of the sentence.
        fault: String,
    },
    /// The bytes are not those that the hub has named.
    #[error("{file} arrived with the SHA-256 {found} in place of {expected}")]
    WrongHash {
        /// The file.
        file: String,
        /// What the hub has named.
        expected: String,
        /// What has arrived.
        found: String,
    },
    /// The bytes are those that were named, and no model.
    #[error("{file} is no GGUF file that can be read here, although it is named so")]
    NotGguf {
        /// The file.
        file: String,
    },
    /// Not enough room on the disk.
    #[error(
        "{} has {} free, and {} are needed, of which {} stay free",
        folder.display(), human_size(*free), human_size(*needed), human_size(DISK_RESERVE)
    )]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed, with [`DISK_RESERVE`].
        needed: u64,
    },
    /// The disk or the folder does not do what it should.
    #[error("{} cannot be {what}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a participle.
        what: &'static str,
        /// The error from the operating system.
        source: io::Error,
    },
    /// The hub gives no answer now.
    #[error("{reason}")]
    Unanswered {
        /// What is wrong.
        reason: String,
    },
    /// No progress in all tries.
    #[error("{host} gave nothing in {tries} tries: {reason}")]
    GivenUp {
        /// The host.
        host: String,
        /// How often it was asked.
        tries: u32,
        /// Why the last try failed.
        reason: String,
    },
    /// The caller has stopped it.
    #[error("stopped; what has arrived is kept, and the next download goes on from there")]
    Stopped,
}

impl DownloadError {
    /// Returns the error of something that was tried on the disk, which `what` names as a participle.
    pub(super) fn disk(path: impl AsRef<Path>, what: &'static str, source: io::Error) -> Self {
        Self::Disk { path: path.as_ref().to_owned(), what, source }
    }

    /// Returns what to do about it, if something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Name { source: NameError::NoHash, .. } => "the page of the file shows its SHA-256",
            Self::Name { .. } | Self::NoRevision { .. } => "name it as in Qwen/Qwen3-4B-GGUF:Q4_K_M",
            Self::NoRepository { .. } => "check the name; for a private repository set HF_TOKEN",
            Self::NoFile { .. } => {
                "use ORG/NAME:QUANT, where QUANT is a whole word of a file's name, such as Q4_K_M, or ORG/NAME/FILE.gguf"
            }
            Self::Gated { .. } => "ask for access on that page, then set HF_TOKEN to a token of that account",
            Self::BadToken { .. } => "set HF_TOKEN to a token that may read, or unset it for public models",
            Self::Offline { .. } => "unset HF_HUB_OFFLINE, or put the file into MODELS_DIR",
            Self::WrongHash { .. } => {
                "it was removed; try again, and if the hash is wrong again, use another mirror (HF_ENDPOINT)"
            }
            Self::NotGguf { .. } => {
                "it was removed, and its bytes are those that were named, so the same would come again: name another file; a newer llamagate may read a newer form"
            }
            Self::NoRoom { .. } => "free some room, choose a smaller quantisation, or set HF_HUB_CACHE to another disk",
            Self::GivenUp { .. } => "what has arrived is kept; try again when the network is better",
            Self::BadAnswer { .. } => "check HF_ENDPOINT and the proxy",
            Self::Unanswered { .. } => "try again; if it stays so, check the network, HF_ENDPOINT and the proxy",
            Self::Disk { .. } | Self::Stopped => return None,
        })
    }
}

impl DownloadError {
    /// Returns whether the name or a setting is wrong, so that the same would happen at every start.
    #[must_use]
    pub fn is_of_settings(&self) -> bool {
        match self {
            Self::Name { .. }
            | Self::NoRepository { .. }
            | Self::NoRevision { .. }
            | Self::NoFile { .. }
            | Self::Gated { .. }
            | Self::BadToken { .. }
            | Self::NotGguf { .. }
            | Self::Offline { .. } => true,
            Self::BadAnswer { .. }
            | Self::WrongHash { .. }
            | Self::NoRoom { .. }
            | Self::Disk { .. }
            | Self::GivenUp { .. }
            | Self::Unanswered { .. }
            | Self::Stopped => false,
        }
    }
}

/// Why one try failed.
#[derive(Debug)]
pub(super) enum TryError {
    /// Another try may do better, after this time if the host has named one.
    Again { reason: String, wait: Option<Duration> },
    /// It would end in the same way again.
    Final(DownloadError),
}

impl From<DownloadError> for TryError {
    fn from(error: DownloadError) -> Self {
        Self::Final(error)
    }
}
