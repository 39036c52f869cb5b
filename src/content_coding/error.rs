//! Why a packed message could not be unpacked.

use std::fmt;

/// Why a packed message could not be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnpackError {
    /// It unpacks to more bytes than allowed.
    TooLarge,
    /// It is damaged, cut short, or packed in another way than it says; with the name of the coding.
    Malformed(&'static str),
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("it unpacks to more bytes than allowed"),
            Self::Malformed(coding) => write!(f, "it is damaged, or not packed with {coding}"),
        }
    }
}
