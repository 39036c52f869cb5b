//! The codings that a message names, in the order in which they were applied.

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// The codings that are unpacked, as `Accept-Encoding` names them.
pub const ACCEPTED_CODINGS: &str = "gzip, deflate, zstd, identity";

/// Most codings of one message, one around the other. More than one is legal, and rare.
const MOST_CODINGS: usize = 3;

/// One coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    /// Returns the name as headers have it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// The codings of a message, in the order in which they were applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentCodings(pub(super) Vec<Coding>);

/// A message has a coding that is not unpacked, or too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedCoding(pub String);

impl ContentCodings {
    /// Reads the codings from the headers of a message. `identity` is none.
    ///
    /// # Errors
    /// [`UnsupportedCoding`] with the name of the first coding that is not unpacked, or with a note that there are too
    /// many.
    pub fn of(headers: &HeaderMap) -> Result<Self, UnsupportedCoding> {
        let mut codings = Vec::new();
        for value in headers.get_all(CONTENT_ENCODING) {
            let text = String::from_utf8_lossy(value.as_bytes());
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                codings.extend(match name.to_ascii_lowercase().as_str() {
                    "identity" => None,
                    "gzip" | "x-gzip" => Some(Coding::Gzip),
                    "deflate" => Some(Coding::Deflate),
                    "zstd" => Some(Coding::Zstd),
                    _ => return Err(UnsupportedCoding(name.to_owned())),
                });
                if codings.len() > MOST_CODINGS {
                    return Err(UnsupportedCoding(format!("more than {MOST_CODINGS} codings")));
                }
            }
        }
        Ok(Self(codings))
    }

    /// Returns whether the message is not packed.
    pub fn is_identity(&self) -> bool {
        self.0.is_empty()
    }
}
