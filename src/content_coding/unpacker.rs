//! Unpacks a message with any number of codings, one around the other, piece by piece.

use bytes::Bytes;

use super::codings::ContentCodings;
use super::error::UnpackError;
use super::stage::Stage;

/// How many more bytes than the whole message what lies between two codings may have: packing makes some bytes more.
const PACKED_EXCESS: usize = 64 * 1024;

/// Most bytes that one step of [`Unpacker::step`] gives. The decoders hold back a block at most, and zstd's are the
/// largest: 128 KiB (RFC 8878, section 3.1.1.2.4).
pub const LARGEST_STEP: usize = 256 * 1024;

/// Unpacks a message whose bytes arrive in pieces.
///
/// A packed piece may become many thousand times as large. Where no total is set, take what comes out step by step; each
/// step is small. [`Unpacker::push`] takes all steps at once.
pub struct Unpacker {
    /// The coding that was applied last comes first.
    stages: Vec<Stage>,
    /// What waits for each stage, and at the end what all of them have unpacked.
    pub(super) waiting: Vec<Bytes>,
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
