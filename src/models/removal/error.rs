//! Why a model is not removed, in one sentence each, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::models::error::ModelError;

/// The hint for a name that means nothing.
const WHAT_IS_HERE: &str = "`llamagate list` shows what is here";

/// Why a model is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// No model, or more than one, has this name.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Several downloads have not ended, and only the hub knows which of them the name means.
    #[error("{repository} has {count} unfinished downloads, and their files do not say which model they are of")]
    WhichUnfinished {
        /// The repository.
        repository: String,
        /// How many files have not come as a whole.
        count: usize,
    },
    /// The file lies neither in `MODELS_DIR` nor in `HF_HUB_CACHE`.
    #[error("{} is neither below MODELS_DIR nor in HF_HUB_CACHE", path.display())]
    Outside {
        /// The file, with the links of its folders resolved.
        path: PathBuf,
    },
    /// The file is that of another program.
    #[error("{} lies in the store of another program", path.display())]
    ForeignStore {
        /// The file.
        path: PathBuf,
    },
    /// It is a folder, a device, or no GGUF file by its name.
    #[error("{} is not a model file", path.display())]
    NotAModel {
        /// What was named.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the lock.
    #[error("{} is being downloaded", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A process uses it.
    #[error("{} is in use by process {pid} ({program})", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The name of the program.
        program: String,
        /// The id of the process.
        pid: u32,
    },
    /// What is on the disk is no longer what the plan was made of.
    #[error("{} has changed since the removal was planned", path.display())]
    Changed {
        /// The file or the folder.
        path: PathBuf,
    },
    /// More entries than are looked through.
    #[error("{} holds more than {most} entries, which are not all looked through", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// The bound.
        most: usize,
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
}

impl RemovalError {
    /// Returns what to do about it, if something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            // The error's own hint says how to get the model.
            Self::Model(error) if error.is_missing() => WHAT_IS_HERE,
            Self::Model(error) => return Some(error.hint()),
            Self::WhichUnfinished { .. } => {
                "let `llamagate pull` end the one that is meant; without any whole model ORG/NAME removes all"
            }
            Self::Outside { .. } => "remove it by hand, or set MODELS_DIR to a folder above it",
            Self::ForeignStore { .. } => "remove the model with that program",
            Self::NotAModel { .. } => "name a .gguf file",
            Self::Absent { .. } => WHAT_IS_HERE,
            Self::Busy { .. } => "end the download first; what has arrived is kept and can be removed then",
            Self::InUse { .. } => "stop the service, or take the model out of its configuration",
            Self::Changed { .. } => "look at the plan again",
            Self::TooMany { .. } => "remove files of other kinds from the folder",
            Self::Disk { .. } => return None,
        })
    }

    /// Returns whether the name is wrong, so that the same happens at each try.
    #[must_use]
    pub fn is_of_name(&self) -> bool {
        match self {
            Self::Model(_)
            | Self::WhichUnfinished { .. }
            | Self::Outside { .. }
            | Self::ForeignStore { .. }
            | Self::NotAModel { .. }
            | Self::Absent { .. } => true,
            Self::Busy { .. }
            | Self::InUse { .. }
            | Self::Changed { .. }
            | Self::TooMany { .. }
            | Self::Disk { .. } => false,
        }
    }

    /// Returns whether there is no such model.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Model(error) => error.is_missing(),
            Self::Absent { .. } => true,
            _ => false,
        }
    }
}
