//! Content codings (RFC 9110, section 8.4.1): which ones a message names, and unpacking them piece by piece.
//!
//! Packed bytes are not trusted: what they unpack to is bounded, and so is the memory that a decoder may ask for. Knows
//! neither requests nor responses.

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zstd::stream::raw::{DParameter, Decoder};
use zstd::stream::zio;

/// The codings that are unpacked, as `Accept-Encoding` names them.
pub const ACCEPTED_CODINGS: &str = "gzip, deflate, zstd, identity";

/// Most codings of one message, one around the other. More than one is legal, and rare.
const MOST_CODINGS: usize = 3;

/// Largest window of a zstd frame, as a power of two: 8 MiB, which is what RFC 9659 allows for this coding.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How many more bytes than the whole message what lies between two codings may have: packing makes some bytes more.
const PACKED_EXCESS: usize = 64 * 1024;

/// Most bytes that one step of [`Unpacker::step`] gives. The decoders hold back a block at most, and zstd's are the
/// largest: 128 KiB (RFC 8878, section 3.1.1.2.4).
pub const LARGEST_STEP: usize = 256 * 1024;

/// Bytes that a deflate stream is unpacked to at once.
const INFLATED_AT_ONCE: usize = 16 * 1024;

/// One coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// The codings of a message, in the order in which they were applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentCodings(Vec<Coding>);

/// A message has a coding that is not unpacked, or too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedCoding(pub String);

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

/// Unpacks a message whose bytes arrive in pieces.
///
/// A packed piece may become many thousand times as large. Where no total is set, take what comes out step by step; each
/// step is small. [`Unpacker::push`] takes all steps at once.
pub struct Unpacker {
    /// The coding that was applied last comes first.
    stages: Vec<Stage>,
    /// What waits for each stage, and at the end what all of them have unpacked.
    waiting: Vec<Bytes>,
    has_input: bool,
}

impl Unpacker {
    /// Creates an unpacker that gives at most `total` bytes.
    ///
    /// # Errors
    /// [`UnpackError::Malformed`] if a decoder cannot be created.
    pub fn new(codings: &ContentCodings, total: usize) -> Result<Self, UnpackError> {
        // The coding that was applied first is unpacked last, and gives the message itself.
        let limit = |at: usize| if at == 0 { total } else { total.saturating_add(PACKED_EXCESS) };
        let stages = codings.0.iter().enumerate().rev().map(|(at, coding)| Stage::new(*coding, limit(at)));
        let stages = stages.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { waiting: vec![Bytes::new(); stages.len() + 1], stages, has_input: false })
    }

    /// Takes the next packed bytes, after [`Unpacker::step`] has returned `None` for those before.
    pub fn feed(&mut self, packed: Bytes) {
        self.has_input |= !packed.is_empty();
        if let Some(first) = self.waiting.first_mut() {
            *first = packed;
        }
    }

    /// Unpacks a part of what was fed, and returns what came out: at most [`LARGEST_STEP`] bytes, perhaps none. Returns
    /// `None` once everything that was fed has been unpacked.
    ///
    /// # Errors
    /// Why the message cannot be unpacked. Nothing may be called after an error.
    pub fn step(&mut self) -> Option<Result<Bytes, UnpackError>> {
        // What is nearest to the end goes first, so that no stage has more waiting than one step gives.
        let at = self.waiting.iter().rposition(|bytes| !bytes.is_empty())?;
        let mut packed = std::mem::take(self.waiting.get_mut(at)?);
        let Some(stage) = self.stages.get_mut(at) else { return Some(Ok(packed)) };
        match stage.step(&packed) {
            Ok((read, unpacked)) => {
                _ = packed.split_to(read);
                *self.waiting.get_mut(at)? = packed;
                *self.waiting.get_mut(at + 1)? = unpacked.into();
                Some(Ok(Bytes::new()))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Returns all bytes to which the message unpacks so far, since the last call.
    ///
    /// # Errors
    /// Why the message cannot be unpacked. Nothing may be pushed after an error.
    pub fn push(&mut self, packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
        self.feed(Bytes::copy_from_slice(packed));
        let mut bytes = Vec::new();
        while let Some(unpacked) = self.step() {
            bytes.extend_from_slice(&unpacked?);
        }
        Ok(bytes)
    }

    /// Checks that the message is complete, and returns its last bytes. An empty message is complete in every coding,
    /// because senders mark empty messages too.
    ///
    /// # Errors
    /// [`UnpackError::Malformed`] if the message was cut short; [`UnpackError::TooLarge`] as for [`Unpacker::push`].
    pub fn finish(self) -> Result<Vec<u8>, UnpackError> {
        let mut bytes = Vec::new();
        if !self.has_input {
            return Ok(bytes);
        }
        for mut stage in self.stages {
            let mut unpacked = stage.push(&bytes)?;
            unpacked.extend(stage.finish()?);
            bytes = unpacked;
        }
        Ok(bytes)
    }

    /// Returns whether anything has been fed.
    pub fn has_input(&self) -> bool {
        self.has_input
    }
}

/// The decoder of one coding.
enum Stage {
    Gzip(Box<MultiGzDecoder<Unpacked>>),
    Deflate(Box<Inflater>, Unpacked),
    Zstd(Box<zio::Writer<Unpacked, Decoder<'static>>>),
}

impl Stage {
    fn new(coding: Coding, total: usize) -> Result<Self, UnpackError> {
        let unpacked = Unpacked { bytes: Vec::new(), left: total, is_full: false };
        Ok(match coding {
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(unpacked))),
            Coding::Deflate => Self::Deflate(Box::default(), unpacked),
            Coding::Zstd => {
                let failed = |_| UnpackError::Malformed(coding.as_str());
                let mut decoder = Decoder::new().map_err(failed)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(failed)?;
                Self::Zstd(Box::new(zio::Writer::new(unpacked, decoder)))
            }
        })
    }

    /// Unpacks the beginning of `packed`. Returns how many bytes of it were read, at least one, and all to which the
    /// message unpacks up to there.
    fn step(&mut self, packed: &[u8]) -> Result<(usize, Vec<u8>), UnpackError> {
        let outcome = match self {
            Self::Gzip(decoder) => decoder.write(packed).and_then(|read| decoder.flush().map(|()| read)),
            Self::Deflate(inflater, unpacked) => inflater.step(packed, unpacked),
            Self::Zstd(decoder) => decoder.write(packed).and_then(|read| decoder.flush().map(|()| read)),
        };
        match outcome {
            Ok(0) => self.take(Err(io::ErrorKind::InvalidData.into())).map(|unpacked| (0, unpacked)),
            Ok(read) => self.take(Ok(())).map(|unpacked| (read, unpacked)),
            Err(error) => self.take(Err(error)).map(|unpacked| (0, unpacked)),
        }
    }

    /// Unpacks all of `packed`.
    fn push(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let mut bytes = Vec::new();
        while !packed.is_empty() {
            let (read, unpacked) = self.step(packed)?;
            packed = packed.get(read..).unwrap_or_default();
            bytes.extend(unpacked);
        }
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<Vec<u8>, UnpackError> {
        let outcome = match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(inflater, _) => inflater.check_end(),
            Self::Zstd(decoder) => decoder.finish(),
        };
        self.take(outcome)
    }

    fn take(&mut self, outcome: io::Result<()>) -> Result<Vec<u8>, UnpackError> {
        let (coding, unpacked) = match self {
            Self::Gzip(decoder) => (Coding::Gzip, decoder.get_mut()),
            Self::Deflate(_, unpacked) => (Coding::Deflate, unpacked),
            Self::Zstd(decoder) => (Coding::Zstd, decoder.writer_mut()),
        };
        match outcome {
            Ok(()) => Ok(std::mem::take(&mut unpacked.bytes)),
            Err(_) if unpacked.is_full => Err(UnpackError::TooLarge),
            Err(_) => Err(UnpackError::Malformed(coding.as_str())),
        }
    }
}

/// What a stage has unpacked and not given on, and how much more it may unpack.
struct Unpacked {
    bytes: Vec<u8>,
    left: usize,
    is_full: bool,
}

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => self.left = left,
            None => {
                self.is_full = true;
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks `deflate`: the zlib format (RFC 1950), or the bare stream that some senders mean by that name.
#[derive(Default)]
struct Inflater {
    /// `None` until the first two bytes are there, which tell the formats apart.
    stream: Option<Decompress>,
    first: Vec<u8>,
    has_ended: bool,
}

impl Inflater {
    /// Unpacks the beginning of `packed`, and returns how many bytes of it were read.
    fn step(&mut self, packed: &[u8], unpacked: &mut Unpacked) -> io::Result<usize> {
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

    fn check_end(&self) -> io::Result<()> {
        if self.has_ended { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bare_deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn codings(values: &[&'static str]) -> Result<ContentCodings, UnsupportedCoding> {
        let values = values.iter().map(|value| (CONTENT_ENCODING, http::HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value);
        }
        ContentCodings::of(&headers)
    }

    fn unpack_in_pieces(
        value: &'static str,
        packed: &[u8],
        piece: usize,
        total: usize,
    ) -> Result<Vec<u8>, UnpackError> {
        let mut unpacker = Unpacker::new(&codings(&[value]).unwrap(), total)?;
        let mut bytes = Vec::new();
        for piece in packed.chunks(piece) {
            bytes.extend(unpacker.push(piece)?);
        }
        bytes.extend(unpacker.finish()?);
        Ok(bytes)
    }

    #[test]
    fn codings_are_read_from_every_header_line_in_their_order() {
        let of = |values| codings(values).map(|codings| codings.0);
        assert_eq!(of(&[]), Ok(vec![]));
        assert_eq!(of(&["identity"]), Ok(vec![]));
        assert_eq!(of(&["", " , identity,"]), Ok(vec![]));
        assert_eq!(of(&["X-GZip"]), Ok(vec![Coding::Gzip]));
        assert_eq!(of(&["gzip, Zstd", "deflate"]), Ok(vec![Coding::Gzip, Coding::Zstd, Coding::Deflate]));
        assert_eq!(of(&["gzip, br"]), Err(UnsupportedCoding("br".to_owned())));
        assert_eq!(of(&["compress"]), Err(UnsupportedCoding("compress".to_owned())));
        assert!(of(&["gzip, gzip", "gzip, gzip"]).is_err());
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_whatever_the_pieces(
            bytes in proptest::collection::vec(0..4_u8, 0..5_000), piece in 1..600_usize,
        ) {
            for (value, packed) in [
                ("gzip", gzip(&bytes)),
                ("deflate", zlib(&bytes)),
                ("deflate", bare_deflate(&bytes)),
                ("zstd", zstandard(&bytes)),
                ("gzip, zstd", zstandard(&gzip(&bytes))),
                ("deflate, gzip", gzip(&zlib(&bytes))),
                ("gzip", [gzip(&bytes[..bytes.len() / 2]), gzip(&bytes[bytes.len() / 2..])].concat()),
                ("zstd", [zstandard(&bytes[..bytes.len() / 2]), zstandard(&bytes[bytes.len() / 2..])].concat()),
                ("identity", bytes.clone()),
            ] {
                prop_assert_eq!(unpack_in_pieces(value, &packed, piece, bytes.len()), Ok(bytes.clone()), "{}", value);
            }
        }

        #[test]
        fn garbage_ends_in_an_error_or_in_few_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for value in ["gzip", "deflate", "zstd", "zstd, gzip"] {
                if let Ok(bytes) = unpack_in_pieces(value, &bytes, 7, 1_000) {
                    prop_assert!(bytes.len() <= 1_000);
                }
            }
        }
    }

    #[test]
    fn a_message_that_is_cut_or_damaged_is_malformed() {
        let text = b"{\"input\":\"a text that is long enough to be worth packing, packing, packing\"}";
        for (value, packed) in
            [("gzip", gzip(text)), ("deflate", zlib(text)), ("deflate", bare_deflate(text)), ("zstd", zstandard(text))]
        {
            for cut in [1, 2, packed.len() / 2, packed.len() - 1] {
                let outcome = unpack_in_pieces(value, &packed[..cut], 5, 1_000);
                assert_eq!(outcome, Err(UnpackError::Malformed(value)), "{value} {cut}");
            }
            let more = [packed.as_slice(), b"more"].concat();
            assert_eq!(unpack_in_pieces(value, &more, 5, 1_000), Err(UnpackError::Malformed(value)), "{value}");
            assert_eq!(unpack_in_pieces(value, text, 5, 1_000), Err(UnpackError::Malformed(value)), "{value}");
            assert_eq!(unpack_in_pieces(value, b"", 5, 1_000), Ok(Vec::new()), "an empty message: {value}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 20_000_000];
        for (value, packed) in [
            ("gzip", gzip(&zeros)),
            ("deflate", zlib(&zeros)),
            ("zstd", zstandard(&zeros)),
            ("zstd, gzip", gzip(&zstandard(&zeros))),
        ] {
            assert_eq!(unpack_in_pieces(value, &packed, 1_024, 1_000_000), Err(UnpackError::TooLarge), "{value}");
        }
    }

    #[test]
    fn each_step_of_a_bomb_is_small_whatever_the_codings() {
        let zeros = vec![0; 20_000_000];
        for (value, packed) in [
            ("gzip", gzip(&zeros)),
            ("deflate", zlib(&zeros)),
            ("deflate", bare_deflate(&zeros)),
            ("zstd", zstandard(&zeros)),
            ("zstd, gzip", gzip(&zstandard(&zeros))),
            ("gzip, gzip, zstd", zstandard(&gzip(&gzip(&zeros)))),
        ] {
            let mut unpacker = Unpacker::new(&codings(&[value]).unwrap(), usize::MAX).unwrap();
            unpacker.feed(packed.into());
            let mut length = 0;
            while let Some(bytes) = unpacker.step() {
                let bytes = bytes.unwrap();
                assert!(bytes.len() <= LARGEST_STEP && bytes.iter().all(|byte| *byte == 0), "{value}: {}", bytes.len());
                assert!(unpacker.waiting.iter().skip(1).all(|bytes| bytes.len() <= LARGEST_STEP), "{value}");
                length += bytes.len();
            }
            length += unpacker.finish().unwrap().len();
            assert_eq!(length, zeros.len(), "{value}");
        }
    }

    #[test]
    fn what_was_flushed_comes_out_at_once() {
        let piece = b"data: {\"choices\":[]}\n\n";
        let mut encoders: Vec<(&str, Box<dyn Write>, _)> = Vec::new();
        for value in ["gzip", "deflate", "zstd"] {
            let sink = Sink::default();
            let encoder: Box<dyn Write> = match value {
                "gzip" => Box::new(GzEncoder::new(sink.clone(), Compression::fast())),
                "deflate" => Box::new(ZlibEncoder::new(sink.clone(), Compression::fast())),
                _ => Box::new(zstd::Encoder::new(sink.clone(), 1).unwrap()),
            };
            encoders.push((value, encoder, sink));
        }
        for (value, mut encoder, sink) in encoders {
            let mut unpacker = Unpacker::new(&codings(&[value]).unwrap(), usize::MAX).unwrap();
            for _ in 0..3 {
                encoder.write_all(piece).unwrap();
                encoder.flush().unwrap();
                let packed = std::mem::take(&mut *sink.0.lock().unwrap());
                assert_eq!(unpacker.push(&packed).unwrap(), piece, "{value}");
            }
        }
    }

    /// What an encoder has written.
    #[derive(Clone, Default)]
    struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_zstd_frame_that_asks_for_a_large_window_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(ZSTD_WINDOW_LOG + 4)).unwrap();
        encoder.write_all(&[1; 100]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(unpack_in_pieces("zstd", &packed, 100, 1_000), Err(UnpackError::Malformed("zstd")));
    }
}
