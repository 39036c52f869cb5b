//! Why a file cannot be converted at all.

/// Why a file cannot be converted at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ImportError {
    /// The content is that of neither program.
    #[error(
        "this is neither a configuration of llama-swap (a mapping `models:` whose entries have `cmd`) nor a file of presets of llama-server (sections such as [NAME])"
    )]
    UnknownFormat,
    /// The text cannot be read as what it is, or was said to be. The message has line and column.
    #[error("this {format} cannot be read: {fault}")]
    Broken {
        /// The format, as a noun.
        format: &'static str,
        /// What is wrong, and where.
        fault: String,
    },
    /// There is nothing to convert.
    #[error("there is no model in this {format}")]
    NoModels {
        /// The format, as a noun.
        format: &'static str,
    },
    /// There are more models than a configuration may have.
    #[error("{found} models are more than a configuration may have ({most})")]
    TooManyModels {
        /// How many the file has.
        found: usize,
        /// How many are allowed.
        most: usize,
    },
}

impl ImportError {
    /// Returns what to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownFormat => Some("--from llama-swap or --from presets says what the file is"),
            Self::TooManyModels { .. } => Some("divide the file"),
            Self::Broken { .. } | Self::NoModels { .. } => None,
        }
    }
}
