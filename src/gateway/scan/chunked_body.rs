//! Finds the data and the end of a chunked body (RFC 9112, section 7.1), by a strict grammar.
//!
//! Copies nothing. Of a client's body only the end is looked for: its bytes go to hyper as they are, once it is certain
//! that they can be read in one way only.

use std::ops::Range;

use crate::gateway::bounds::{CHUNK_LINE_SIZE, TRAILERS_SIZE};

/// Most digits of a size that is read at once: a number of so few digits cannot overflow.
const USUAL_DIGITS: usize = 8;

/// A resumable scanner of one chunked body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ChunkedBody {
    state: ChunkState,
    /// Whether white space may stand between a size and the end of its line.
    allows_padding: bool,
    /// Bytes of the chunk's data that have not arrived; while the size is being read, its value so far.
    remaining: u64,
    /// Bytes so far of the chunk's size line, or of all trailers.
    line_length: usize,
}

/// A violation of the chunked grammar, after which the end of the body is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MalformedChunk;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size,
    /// In white space after the size, which only an extension may follow (RFC 9112, section 7.1.1), or padding.
    Blank,
    Extension,
    /// After the CR of the size line.
    SizeLf,
    Data,
    /// After the data.
    DataCr,
    DataLf,
    /// Before a trailer line, or the empty line that ends the body.
    TrailerBegin,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

impl ChunkedBody {
    /// Reads the body of a worker's response: some servers pad the sizes with spaces.
    pub(crate) fn of_response() -> Self {
        Self { allows_padding: true, ..Self::default() }
    }

    /// Continues with `bytes`; returns how many of them belong to the body.
    ///
    /// # Errors
    /// As [`Self::next_data`].
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, MalformedChunk> {
        let mut at = 0;
        while self.next_data(bytes, &mut at)?.is_some() {}
        Ok(at)
    }

    /// Continues in `bytes` from the offset `at`, which is moved past what is read. Returns where the next data are, or
    /// `None` if there are no more in these bytes; `at` is then their end, or that of the body.
    ///
    /// # Errors
    /// Returns [`MalformedChunk`] at the first byte that breaks the grammar, or if a line or the trailers are too long.
    pub(crate) fn next_data(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Range<usize>>, MalformedChunk> {
        while *at < bytes.len() && self.state != ChunkState::Done {
            if self.state == ChunkState::Data {
                let begin = *at;
                let count = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len() - begin);
                *at += count;
                self.remaining -= count as u64;
                if self.remaining == 0 {
                    self.state = ChunkState::DataCr;
                }
                return Ok(Some(begin..*at));
            }
            match self.read_usual_line(&bytes[*at..]) {
                Some(length) => *at += length,
                None => {
                    self.state = self.step(bytes[*at])?;
                    *at += 1;
                }
            }
        }
        Ok(None)
    }

    /// Reads at once what nearly all writers put between the data of two chunks: the end of a line, and a size without an
    /// extension. Returns its length; `None`, with nothing read, if it is not there as a whole. A byte at a time it takes
    /// three times as long, and a stream has it in each frame.
    fn read_usual_line(&mut self, bytes: &[u8]) -> Option<usize> {
        match (self.state, bytes) {
            (ChunkState::DataCr, [b'\r', b'\n', ..]) => {
                self.state = ChunkState::Start;
                Some(b"\r\n".len())
            }
            (ChunkState::Start, _) => {
                let (size, length) = usual_size(bytes)?;
                self.begin_chunk(size);
                Some(length)
            }
            _ => None,
        }
    }

    /// Begins a chunk of this size, whose line has ended, or the end of the body.
    fn begin_chunk(&mut self, size: u64) {
        (self.remaining, self.line_length) = (size, 0);
        self.state = if size == 0 { ChunkState::TrailerBegin } else { ChunkState::Data };
    }

    /// Whether the body is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Returns the state after one byte outside of a chunk's data.
    fn step(&mut self, byte: u8) -> Result<ChunkState, MalformedChunk> {
        match (self.state, byte) {
            (ChunkState::Start | ChunkState::Size, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).ok_or(MalformedChunk)?;
                // A size that overflows is the usual way to make two parsers disagree on the length.
                self.remaining = self
                    .remaining
                    .checked_mul(16)
                    .and_then(|size| size.checked_add(digit.into()))
                    .ok_or(MalformedChunk)?;
                self.extend_line(CHUNK_LINE_SIZE, ChunkState::Size)
            }
            (ChunkState::Size | ChunkState::Blank, b' ' | b'\t') => {
                self.extend_line(CHUNK_LINE_SIZE, ChunkState::Blank)
            }
            (ChunkState::Size | ChunkState::Blank, b';') => self.extend_line(CHUNK_LINE_SIZE, ChunkState::Extension),
            // Not after `Blank`: RFC 9112, section 7.1 has no white space between the size and the CRLF.
            (ChunkState::Size | ChunkState::Extension, b'\r') => Ok(ChunkState::SizeLf),
            (ChunkState::Blank, b'\r') if self.allows_padding => Ok(ChunkState::SizeLf),
            (ChunkState::Extension, _) if is_text(byte) => self.extend_line(CHUNK_LINE_SIZE, ChunkState::Extension),
            (ChunkState::SizeLf, b'\n') => {
                self.begin_chunk(self.remaining);
                Ok(self.state)
            }
            (ChunkState::DataCr, b'\r') => Ok(ChunkState::DataLf),
            (ChunkState::DataLf, b'\n') => Ok(ChunkState::Start),
            (ChunkState::TrailerBegin, b'\r') => Ok(ChunkState::LastLf),
            (ChunkState::TrailerBegin | ChunkState::Trailer, _) if is_text(byte) => {
                self.extend_line(TRAILERS_SIZE, ChunkState::Trailer)
            }
            (ChunkState::Trailer, b'\r') => Ok(ChunkState::TrailerLf),
            (ChunkState::TrailerLf, b'\n') => Ok(ChunkState::TrailerBegin),
            (ChunkState::LastLf, b'\n') => Ok(ChunkState::Done),
            _ => Err(MalformedChunk),
        }
    }

    /// Counts one more byte of a line that may have `limit` bytes; returns `next` if it fits.
    fn extend_line(&mut self, limit: usize, next: ChunkState) -> Result<ChunkState, MalformedChunk> {
        self.line_length += 1;
        if self.line_length > limit { Err(MalformedChunk) } else { Ok(next) }
    }
}

/// Returns the size in a whole line without an extension, and the length of the line in bytes.
fn usual_size(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0;
    for (at, byte) in bytes.iter().enumerate().take(USUAL_DIGITS + 1) {
        let Some(digit) = char::from(*byte).to_digit(16) else {
            let is_line = at > 0 && bytes[at..].starts_with(b"\r\n");
            return is_line.then_some((size, at + b"\r\n".len()));
        };
        size = size * 16 + u64::from(digit);
    }
    None
}

/// Whether a byte may occur in an extension or a trailer. CR and LF may not.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the length of the body, if it is complete in `bytes`.
    fn length(bytes: &[u8]) -> Result<Option<usize>, MalformedChunk> {
        let mut chunks = ChunkedBody::default();
        let count = chunks.advance(bytes)?;
        Ok(chunks.is_complete().then_some(count))
    }

    #[test]
    fn a_body_ends_after_its_empty_line() {
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
    fn a_body_that_can_be_read_in_two_ways_is_malformed() {
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
            assert_eq!(length(body.as_bytes()), Err(MalformedChunk), "{body:?}");
        }
    }

    #[test]
    fn a_worker_may_pad_its_sizes_and_nothing_else() {
        let of_response = |body: &[u8]| ChunkedBody::of_response().advance(body);
        assert_eq!(of_response(b"5  \r\nhello\r\n0 \r\n\r\n"), Ok(18));
        for body in [&b" 5\r\nhello\r\n"[..], b"5\nhello\n", b"5 6\r\nhello", b"5\r\nhello \r\n"] {
            assert_eq!(of_response(body), Err(MalformedChunk), "{body:?}");
        }
    }

    #[test]
    fn size_lines_and_trailers_are_bounded() {
        let extension = |length: usize| format!("5;{}", "x".repeat(length - 2));
        assert_eq!(length(extension(CHUNK_LINE_SIZE).as_bytes()), Ok(None));
        assert_eq!(length(extension(CHUNK_LINE_SIZE + 1).as_bytes()), Err(MalformedChunk));
        assert_eq!(length("0".repeat(CHUNK_LINE_SIZE + 1).as_bytes()), Err(MalformedChunk));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(TRAILERS_SIZE));
        assert_eq!(length(trailers.as_bytes()), Err(MalformedChunk));
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_how_the_body_is_cut(
            body in "[0-9a-f;x\r\n ]{0,40}(0\r\n\r\n)?.{0,5}",
            cuts: Vec<u8>,
        ) {
            let whole = length(body.as_bytes());
            let mut chunks = ChunkedBody::default();
            let (mut rest, mut count, mut outcome) = (body.as_bytes(), 0, Ok(()));
            for cut in cuts.into_iter().map(usize::from).chain([usize::MAX]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                match chunks.advance(piece) {
                    Ok(length) => count += length,
                    Err(malformed) => {
                        outcome = Err(malformed);
                        break;
                    }
                }
            }
            prop_assert_eq!(outcome.map(|()| chunks.is_complete().then_some(count)), whole);
        }

        #[test]
        fn the_data_of_all_chunks_are_found_wherever_the_body_is_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..30), 0..8),
            cut in 1..40_usize,
        ) {
            let framed: Vec<Vec<u8>> =
                chunks.iter().map(|data| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()).collect();
            let body = [framed.concat(), b"0\r\n\r\n".to_vec()].concat();
            let (mut reader, mut found) = (ChunkedBody::default(), Vec::new());
            for piece in body.chunks(cut) {
                let mut at = 0;
                while let Some(data) = reader.next_data(piece, &mut at).unwrap() {
                    found.extend_from_slice(&piece[data]);
                }
            }
            prop_assert!(reader.is_complete());
            prop_assert_eq!(found, chunks.concat());
        }

        #[test]
        fn arbitrary_bytes_do_not_make_the_scanner_panic(bytes: Vec<u8>) {
            let _ = length(&bytes);
        }
    }
}
