//! Where a chunked body ends (RFC 9112, section 7.1), read strictly.
//!
//! Decodes nothing: the bytes go to hyper as they are, once it is certain that they can be read in one way only.

use crate::gateway::bounds::{CHUNK_LINE_SIZE, TRAILERS_SIZE};

/// How far a chunked body has been followed.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    place: Place,
    /// Bytes of the chunk's data that are still to come; the size, while it is being read.
    left: u64,
    /// Bytes of the chunk's first line, or of all trailers, so far.
    line: usize,
}

/// A body that nobody should try to understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first digit of a size.
    #[default]
    Begin,
    Size,
    /// In the white space that may stand before an extension, and nowhere else.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// Where a trailer line or the last, empty line begins.
    TrailerBegin,
    Trailer,
    TrailerLf,
    LastLf,
    Over,
}

impl Chunks {
    /// Follows the body through `bytes`; returns how many of them belong to it.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.place != Place::Over {
            if self.place == Place::Data {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += step;
                self.left -= step as u64;
                if self.left == 0 {
                    self.place = Place::DataCr;
                }
                continue;
            }
            self.place = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// Whether the body is complete.
    pub(super) fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    fn step(&mut self, byte: u8) -> Result<Place, Malformed> {
        match (self.place, byte) {
            (Place::Begin | Place::Size, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                self.left =
                    self.left.checked_mul(16).and_then(|size| size.checked_add(digit.into())).ok_or(Malformed)?;
                self.lengthen(CHUNK_LINE_SIZE, Place::Size)
            }
            (Place::Size | Place::Blank, b' ' | b'\t') => self.lengthen(CHUNK_LINE_SIZE, Place::Blank),
            (Place::Size | Place::Blank, b';') => self.lengthen(CHUNK_LINE_SIZE, Place::Extension),
            (Place::Size | Place::Extension, b'\r') => Ok(Place::SizeLf),
            (Place::Extension, _) if is_text(byte) => self.lengthen(CHUNK_LINE_SIZE, Place::Extension),
            (Place::SizeLf, b'\n') => {
                self.line = 0;
                Ok(if self.left == 0 { Place::TrailerBegin } else { Place::Data })
            }
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => Ok(Place::Begin),
            (Place::TrailerBegin, b'\r') => Ok(Place::LastLf),
            (Place::TrailerBegin | Place::Trailer, _) if is_text(byte) => self.lengthen(TRAILERS_SIZE, Place::Trailer),
            (Place::Trailer, b'\r') => Ok(Place::TrailerLf),
            (Place::TrailerLf, b'\n') => Ok(Place::TrailerBegin),
            (Place::LastLf, b'\n') => Ok(Place::Over),
            _ => Err(Malformed),
        }
    }

    fn lengthen(&mut self, most: usize, place: Place) -> Result<Place, Malformed> {
        self.line += 1;
        if self.line > most { Err(Malformed) } else { Ok(place) }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many bytes the body takes, if it is complete in `bytes`.
    fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut chunks = Chunks::default();
        let taken = chunks.follow(bytes)?;
        Ok(chunks.is_over().then_some(taken))
    }

    #[test]
    fn a_body_ends_after_its_last_line() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n00\r\n\r\n",
            "5;name=value;other=\"x y\"\r\nhello\r\n0\r\n\r\n",
            "5 \t;name\r\nhello\r\n0;x\r\n\r\n",
            "0\r\nTrailer: x\r\nOther: y\r\n\r\n",
        ] {
            let followed = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(length(followed.as_bytes()), Ok(Some(body.len())), "{body:?}");
            assert_eq!(length(&body.as_bytes()[..body.len() - 1]), Ok(None), "{body:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_malformed() {
        for body in [
            "\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello6\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5_0\r\n",
            "g\r\n",
            "5;a\nb\r\nhello",
            "5;a\rb\r\nhello",
            "5;\0\r\nhello",
            "10000000000000000\r\n",
            "0\r\nTrailer: x\n\r\n",
            "0\r\nTrailer: x\ry\r\n",
            "0\r\n\rx",
        ] {
            assert_eq!(length(body.as_bytes()), Err(Malformed), "{body:?}");
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let extension = |length: usize| format!("5;{}", "x".repeat(length - 2));
        assert_eq!(length(extension(CHUNK_LINE_SIZE).as_bytes()), Ok(None));
        assert_eq!(length(extension(CHUNK_LINE_SIZE + 1).as_bytes()), Err(Malformed));
        assert_eq!(length("0".repeat(CHUNK_LINE_SIZE + 1).as_bytes()), Err(Malformed));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(TRAILERS_SIZE));
        assert_eq!(length(trailers.as_bytes()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in "[0-9a-f;x\r\n ]{0,40}(0\r\n\r\n)?.{0,5}", cuts: Vec<u8>) {
            let whole = length(body.as_bytes());
            let mut chunks = Chunks::default();
            let (mut rest, mut taken, mut outcome) = (body.as_bytes(), 0, Ok(()));
            for cut in cuts.into_iter().map(usize::from).chain([usize::MAX]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                match chunks.follow(piece) {
                    Ok(length) => taken += length,
                    Err(malformed) => {
                        outcome = Err(malformed);
                        break;
                    }
                }
            }
            prop_assert_eq!(outcome.map(|()| chunks.is_over().then_some(taken)), whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = length(&bytes);
        }
    }
}
