//! The decoder of one coding, within a bound on what comes out and on the memory that it takes.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{DParameter, Decoder};
use zstd::stream::zio;

use super::codings::Coding;
use super::error::UnpackError;
use super::inflater::Inflater;
use super::unpacked::Unpacked;

/// Largest window of a zstd frame, as a power of two: 8 MiB, which is what RFC 9659 allows for this coding.
pub(super) const ZSTD_WINDOW_LOG: u32 = 23;

/// The decoder of one coding.
pub(super) enum Stage {
    Gzip(Box<MultiGzDecoder<Unpacked>>),
    Deflate(Box<Inflater>, Unpacked),
    Zstd(Box<zio::Writer<Unpacked, Decoder<'static>>>),
}

impl Stage {
    /// Creates the decoder, which gives at most `total` bytes.
    pub(super) fn new(coding: Coding, total: usize) -> Result<Self, UnpackError> {
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
    pub(super) fn step(&mut self, packed: &[u8]) -> Result<(usize, Vec<u8>), UnpackError> {
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
    pub(super) fn push(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let mut bytes = Vec::new();
        while !packed.is_empty() {
            let (read, unpacked) = self.step(packed)?;
            packed = packed.get(read..).unwrap_or_default();
            bytes.extend(unpacked);
        }
        Ok(bytes)
    }

    /// Checks that the packed bytes are complete, and returns the last bytes to which they unpack.
    pub(super) fn finish(&mut self) -> Result<Vec<u8>, UnpackError> {
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
