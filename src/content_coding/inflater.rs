//! The decoder of `deflate`, a name under which senders mean two formats.

use std::io::{self, Write};

use flate2::{Decompress, FlushDecompress, Status};

use super::unpacked::Unpacked;

/// Bytes that a deflate stream is unpacked to at once.
const INFLATED_AT_ONCE: usize = 16 * 1024;

/// Unpacks `deflate`: the zlib format (RFC 1950), or the bare stream that some senders mean by that name.
#[derive(Default)]
pub(super) struct Inflater {
    /// `None` until the first two bytes are there, which tell the formats apart.
    stream: Option<Decompress>,
    first: Vec<u8>,
    has_ended: bool,
}

impl Inflater {
    /// Unpacks the beginning of `packed`, and returns how many bytes of it were read.
    pub(super) fn step(&mut self, packed: &[u8], unpacked: &mut Unpacked) -> io::Result<usize> {
        if self.stream.is_some() {
            return self.inflate(packed, unpacked);
        }
        let read = packed.len().min(2 - self.first.len());
        self.first.extend_from_slice(packed.get(..read).unwrap_or_default());
        if let [first, second] = *self.first {
            // RFC 1950, section 2.2: the method is 8, and the two bytes are a multiple of 31.
            let is_zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]) % 31 == 0;
            self.stream = Some(Decompress::new(is_zlib));
            let mut held = &[first, second][..];
            while !held.is_empty() {
                let read = self.inflate(held, unpacked)?;
                held = held.get(read..).unwrap_or_default();
            }
        }
        Ok(read)
    }

    /// Unpacks until some of `packed` has been read, at least one byte, and nothing more comes out.
    fn inflate(&mut self, packed: &[u8], unpacked: &mut Unpacked) -> io::Result<usize> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let stream = self.stream.as_mut().ok_or_else(malformed)?;
        let mut buffer = vec![0; INFLATED_AT_ONCE];
        let mut all_read = 0;
        while !self.has_ended {
            // What has been unpacked already comes out before more is read.
            let rest = if all_read == 0 { packed } else { &[] };
            let (read, written) = (stream.total_in(), stream.total_out());
            let status = stream.decompress(rest, &mut buffer, FlushDecompress::None)?;
            // Both differ by at most the length of a slice.
            let (read, written) = ((stream.total_in() - read) as usize, (stream.total_out() - written) as usize);
            all_read += read;
            unpacked.write_all(buffer.get(..written).unwrap_or_default())?;
            self.has_ended = status == Status::StreamEnd;
            if read == 0 && written == 0 {
                break;
            }
        }
        if all_read > 0 { Ok(all_read) } else { Err(malformed()) }
    }

    /// Checks that the stream has ended.
    pub(super) fn check_end(&self) -> io::Result<()> {
        if self.has_ended { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
