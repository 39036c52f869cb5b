//! Why a file cannot be used as a GGUF, with a hint for the operator.

use std::io;

/// Why a file cannot be used as a GGUF. Each message follows "the file ...".
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The operating system returned an error.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A folder.
    #[error("is a folder, not a file")]
    Folder,
    /// A pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// It does not begin with `GGUF`.
    #[error("is not a GGUF file: {}", describe_start(first))]
    NotGguf {
        /// The first bytes of the file, at most four.
        first: Vec<u8>,
    },
    /// A version that this reader does not know.
    #[error("has GGUF version {found}; versions 2 and 3 can be read")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// Written for a big-endian machine.
    #[error("is a big-endian GGUF; llama-server on this machine reads little-endian files")]
    BigEndian,
    /// It ends inside its header.
    #[error("is cut short: it ends inside its header, after {read} bytes")]
    TruncatedHeader {
        /// Bytes read before the end.
        read: u64,
    },
    /// The header is whole, but weights are missing.
    #[error("is cut short: its tensors need {needed} bytes, it has {actual}")]
    Truncated {
        /// Bytes that the tensor table asks for.
        needed: u64,
        /// Bytes that the file has.
        actual: u64,
    },
    /// A count or a length is beyond its bound.
    #[error("is damaged or hostile: {what} is {found}, at most {limit} is accepted")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The number in the file.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// A value that the format does not allow.
    #[error("is damaged: {0}")]
    Malformed(String),
}

impl GgufError {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "let the user that runs the service read it (chmod, chown, or the container's user)"
            }
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "check that the path is right, and that the disk or volume is mounted"
            }
            Self::Io(_) => "check that the disk or volume is mounted and readable",
            Self::Folder => {
                "name a .gguf file in it; to serve all that are in it, set MODELS_DIR to it and name no model"
            }
            Self::NotAFile => "name a .gguf file",
            Self::NotGguf { first } => match first.as_slice() {
                [] => "the download did not start or the disk was full; download it again",
                b"vers" => "it is a Git LFS pointer; fetch the real file with `git lfs pull`",
                [b'<', ..] => "it is a web page, not a model; use the direct download (resolve) link",
                [b'P', b'K', ..] => "it is a zip archive (perhaps a PyTorch file); download or convert to a .gguf",
                _ => "download a .gguf, or convert the model with llama.cpp's convert_hf_to_gguf.py",
            },
            Self::Version { found: 1 } => "convert the model again with a current llama.cpp",
            Self::Version { .. } => "update llama.cpp and this gateway, or use an older file of the model",
            Self::BigEndian => "download the usual file, or convert it with gguf_convert_endian.py",
            Self::TruncatedHeader { .. } | Self::Truncated { .. } => {
                "the download or copy did not finish; compare the size with the source and fetch it again"
            }
            Self::TooLarge { .. } | Self::Malformed(_) => {
                "compare the checksum with the source and fetch the file again"
            }
        }
    }
}

fn describe_start(first: &[u8]) -> String {
    if first.is_empty() {
        return "it is empty".to_owned();
    }
    let hex: Vec<String> = first.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("it begins with {} (\"{}\"), not with 47 47 55 46 (\"GGUF\")", hex.join(" "), first.escape_ascii())
}
