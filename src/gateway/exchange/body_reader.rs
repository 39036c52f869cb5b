//! Where a worker's response ends, and which of the bytes on the connection are its body (RFC 9112, section 6.3).

use bytes::{Buf, Bytes, BytesMut};

use crate::gateway::scan::chunked_body::{ChunkedBody, MalformedChunk};

/// The rest of the body of one response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyReader {
    /// Bytes that have not arrived.
    Length(u64),
    Chunked(ChunkedBody),
    /// It ends with the connection.
    UntilClose,
}

impl BodyReader {
    pub(super) fn chunked() -> Self {
        Self::Chunked(ChunkedBody::of_response())
    }

    /// Returns whether nothing follows.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_complete(),
            Self::UntilClose => false,
        }
    }

    /// Returns the number of bytes that follow, if it is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(chunks) => chunks.is_complete().then_some(0),
            Self::UntilClose => None,
        }
    }

    /// Takes bytes that have arrived. Returns what of them is the body, in one piece, and how many of them were read: what
    /// is left comes after the end of the response.
    ///
    /// # Errors
    /// [`MalformedChunk`].
    pub(super) fn take(&mut self, arrived: &[u8]) -> Result<(Bytes, usize), MalformedChunk> {
        match self {
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(arrived.len());
                *left -= count as u64;
                Ok((Bytes::copy_from_slice(&arrived[..count]), count))
            }
            Self::UntilClose => Ok((Bytes::copy_from_slice(arrived), arrived.len())),
            Self::Chunked(chunks) => {
                let (mut at, mut piece) = (0, BytesMut::new());
                while let Some(data) = chunks.next_data(arrived, &mut at)? {
                    if piece.is_empty() {
                        // So that the piece is allocated once, and nearly always as long as it is.
                        let is_last = arrived.len() - data.end <= b"\r\n".len();
                        piece.reserve(if is_last { data.len() } else { arrived.len() - data.start });
                    }
                    piece.extend_from_slice(&arrived[data]);
                }
                Ok((piece.freeze(), at))
            }
        }
    }

    /// Takes what is the body out of bytes that have arrived, without a copy where it is not in chunks. What is left comes
    /// after the end of the response.
    ///
    /// # Errors
    /// [`MalformedChunk`].
    pub(super) fn take_shared(&mut self, arrived: &mut Bytes) -> Result<Bytes, MalformedChunk> {
        let count = match self {
            Self::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(arrived.len()),
            Self::UntilClose => arrived.len(),
            Self::Chunked(_) => {
                let (piece, used) = self.take(arrived)?;
                arrived.advance(used);
                return Ok(piece);
            }
        };
        self.pass(count);
        Ok(arrived.split_to(count))
    }

    /// Notes that this many bytes of the body have been read elsewhere.
    pub(super) fn pass(&mut self, count: usize) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(count as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the body, and what follows it, of a response whose bytes arrive in pieces of this size.
    fn read(mut reader: BodyReader, bytes: &[u8], size: usize) -> Result<(Vec<u8>, Vec<u8>), MalformedChunk> {
        let (mut body, mut after) = (Vec::new(), Vec::new());
        for arrived in bytes.chunks(size) {
            let (piece, used) = reader.take(arrived)?;
            body.extend_from_slice(&piece);
            after.extend_from_slice(&arrived[used..]);
        }
        Ok((body, after))
    }

    #[test]
    fn bytes_after_the_end_are_none_of_the_body() {
        for size in 1..40 {
            let both = |reader, bytes: &str| read(reader, bytes.as_bytes(), size).unwrap();
            assert_eq!(both(BodyReader::Length(2), "hi!"), (b"hi".to_vec(), b"!".to_vec()));
            assert_eq!(both(BodyReader::UntilClose, "hi!"), (b"hi!".to_vec(), vec![]));
            let chunked = "1;a=b\r\nh\r\n1 \r\ni\r\n0\r\nx: y\r\n\r\n!";
            assert_eq!(both(BodyReader::chunked(), chunked), (b"hi".to_vec(), b"!".to_vec()));
        }
        assert!(read(BodyReader::chunked(), b"2\r\nhi3\r\n", 100).is_err());
    }

    proptest! {
        /// Chunks that arrive together become one piece.
        #[test]
        fn what_arrives_at_once_is_one_piece(chunks in proptest::collection::vec("[a-z]{1,20}", 1..8)) {
            let framed: String = chunks.iter().map(|data| format!("{:x}\r\n{data}\r\n", data.len())).collect();
            let mut reader = BodyReader::chunked();
            let (piece, used) = reader.take(framed.as_bytes()).unwrap();
            prop_assert_eq!((piece, used), (Bytes::from(chunks.concat()), framed.len()));
            prop_assert!(!reader.is_complete());
            prop_assert_eq!(reader.take(b"0\r\n\r\n").unwrap(), (Bytes::new(), 5));
            prop_assert!(reader.is_complete());
        }
    }
}
