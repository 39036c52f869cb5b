//! Which pieces of a file have arrived, and which comes next: pure.
//!
//! A file is fetched in ranges by several connections, and each range is a run of pieces. What has arrived is kept in
//! the part's file (`part_file.rs`), so that another process can go on.

use std::ops::Range;

use crate::download::bounds::{FEWEST_PIECES_AT_ONCE, MOST_PIECES_AT_ONCE, PIECE};

/// The pieces of one file: all are [`PIECE`] bytes long, but for the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    size: u64,
    /// A bit for each piece: whether it is in the file.
    arrived: Bits,
    /// A bit for each piece: whether it is in the file, or a connection fetches it.
    claimed: Bits,
    /// How many pieces are not claimed.
    free: usize,
    /// No piece before this one is free.
    first_free: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bits(Vec<u8>);

impl Bits {
    fn has(&self, at: usize) -> bool {
        self.0.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
    }

    fn set(&mut self, at: usize, is_set: bool) {
        let Some(byte) = self.0.get_mut(at / 8) else { return };
        let bit = 1 << (at % 8);
        if is_set { *byte |= bit } else { *byte &= !bit }
    }
}

/// Returns how many pieces a file of this size has.
pub(in crate::download) fn count(size: u64) -> usize {
    usize::try_from(size.div_ceil(PIECE)).unwrap_or(usize::MAX)
}

impl Pieces {
    /// Returns the pieces of a file of `size` bytes of which nothing has arrived.
    #[must_use]
    pub fn none_of(size: u64) -> Self {
        let none = Bits(vec![0; count(size).div_ceil(8)]);
        Self { size, arrived: none.clone(), claimed: none, free: count(size), first_free: 0 }
    }

    /// Returns the pieces of a file of `size` bytes whose first `length` bytes have arrived.
    #[must_use]
    pub fn first_bytes(size: u64, length: u64) -> Self {
        let mut pieces = Self::none_of(size);
        let whole = if length >= size { count(size) } else { count(length.saturating_sub(PIECE - 1)) };
        (0..whole).for_each(|piece| pieces.add(piece));
        pieces
    }

    /// Returns the pieces whose bits are set, as [`Pieces::bits`] gave them. Bits beyond the file are dropped; `None` if
    /// these are the bits of a file of another size.
    #[must_use]
    pub fn from_bits(size: u64, bits: &[u8]) -> Option<Self> {
        let mut pieces = Self::none_of(size);
        if bits.len() != pieces.arrived.0.len() {
            return None;
        }
        let given = Bits(bits.to_owned());
        (0..count(size)).filter(|piece| given.has(*piece)).for_each(|piece| pieces.add(piece));
        Some(pieces)
    }

    /// Returns a bit for each piece, the first in the lowest bit of the first byte: whether it has arrived.
    #[must_use]
    pub fn bits(&self) -> &[u8] {
        &self.arrived.0
    }

    /// Returns the bytes of [`Pieces::bits`] that have the bits of these pieces, and the place of the first.
    pub(in crate::download) fn bits_of(&self, pieces: &Range<usize>) -> (usize, &[u8]) {
        let bytes = pieces.start / 8..pieces.end.div_ceil(8);
        (bytes.start, self.arrived.0.get(bytes).unwrap_or_default())
    }

    /// Returns the pieces that end in this run of bytes, which begins within its first piece or at its start.
    pub(in crate::download) fn ending_in(&self, bytes: &Range<u64>) -> Range<usize> {
        let at = |byte: u64| usize::try_from(byte / PIECE).unwrap_or(usize::MAX);
        let end = if bytes.end == self.size { count(self.size) } else { at(bytes.end) };
        at(bytes.start).min(end)..end
    }

    /// Returns which bytes of the file a run of pieces is.
    #[must_use]
    pub fn bytes_of(&self, run: &Range<usize>) -> Range<u64> {
        let at = |piece: usize| (piece as u64 * PIECE).min(self.size);
        at(run.start)..at(run.end)
    }

    /// Notes that a piece is in the file.
    pub fn add(&mut self, piece: usize) {
        if piece < count(self.size) {
            self.arrived.set(piece, true);
            self.claim_piece(piece);
        }
    }

    /// Returns the next run of pieces that no connection fetches, and notes that one does; `None` if there is none.
    /// Runs get shorter towards the end, so that `connections` connections end at the same time.
    pub fn claim(&mut self, connections: usize) -> Option<Range<usize>> {
        let count = count(self.size);
        let is_free = |piece: &usize| !self.claimed.has(*piece);
        let start = (self.first_free..count).find(is_free)?;
        let share = self.free.div_ceil(2 * connections.max(1));
        let most = share.clamp(FEWEST_PIECES_AT_ONCE, MOST_PIECES_AT_ONCE);
        let end = (start..count).take(most).take_while(is_free).last()? + 1;
        (start..end).for_each(|piece| self.claim_piece(piece));
        self.first_free = end;
        Some(start..end)
    }

    fn claim_piece(&mut self, piece: usize) {
        if !self.claimed.has(piece) {
            self.claimed.set(piece, true);
            self.free -= 1;
        }
    }

    /// Gives back what has not arrived of a claimed run.
    pub fn release(&mut self, run: Range<usize>) {
        for piece in run.filter(|piece| *piece < count(self.size)) {
            if !self.arrived.has(piece) && self.claimed.has(piece) {
                self.claimed.set(piece, false);
                self.free += 1;
                self.first_free = self.first_free.min(piece);
            }
        }
    }

    /// Returns whether a piece is in the file.
    #[must_use]
    pub fn has(&self, piece: usize) -> bool {
        self.arrived.has(piece)
    }

    /// Returns whether all of the file has arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.arrived_bytes() == self.size
    }

    /// Returns how many bytes of the file have arrived.
    #[must_use]
    pub fn arrived_bytes(&self) -> u64 {
        let pieces: u64 = self.arrived.0.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let last = count(self.size).checked_sub(1);
        let missing_of_last =
            last.filter(|last| self.has(*last)).map_or(0, |last| (last as u64 + 1) * PIECE - self.size);
        pieces * PIECE - missing_of_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_prefix_counts_as_the_pieces_that_are_whole() {
        let arrived = |size, length| Pieces::first_bytes(size, length).arrived_bytes();
        assert_eq!(arrived(10 * MIB, 0), 0);
        assert_eq!(arrived(10 * MIB, PIECE - 1), 0);
        assert_eq!(arrived(10 * MIB, 3 * MIB + 5), 3 * MIB);
        assert_eq!(arrived(3 * MIB + 5, 3 * MIB + 5), 3 * MIB + 5, "the last piece is whole although it is short");
        assert_eq!(arrived(3 * MIB + 5, 3 * MIB + 4), 3 * MIB);
        assert!(Pieces::first_bytes(0, 0).is_complete());
    }

    #[test]
    fn runs_get_shorter_towards_the_end() {
        let mut pieces = Pieces::none_of(400 * MIB);
        let lengths: Vec<usize> = std::iter::from_fn(|| pieces.claim(4)).map(|run| run.len()).collect();
        assert_eq!(lengths[0], 400 * 16 / 8);
        assert!(lengths.iter().rev().skip(1).all(|length| *length >= FEWEST_PIECES_AT_ONCE));
        assert_eq!(lengths.iter().sum::<usize>(), 400 * 16);
    }

    #[test]
    fn a_run_of_bytes_ends_the_pieces_whose_last_byte_it_has() {
        let pieces = Pieces::none_of(3 * PIECE + 5);
        assert_eq!(pieces.ending_in(&(0..PIECE - 1)), 0..0);
        assert_eq!(pieces.ending_in(&(7..PIECE)), 0..1);
        assert_eq!(pieces.ending_in(&(PIECE..3 * PIECE + 4)), 1..3);
        assert_eq!(pieces.ending_in(&(3 * PIECE + 1..3 * PIECE + 5)), 3..4);
        assert_eq!(pieces.ending_in(&(5..5)), 0..0);
    }

    proptest! {
        /// Any order of claims, breaks and arrivals: each byte is fetched, and none by two connections at a time.
        #[test]
        fn every_byte_is_fetched_and_none_twice_at_once(
            size in 0..200 * MIB,
            steps in prop::collection::vec((1..9_usize, any::<bool>(), 0..600_usize, any::<prop::sample::Index>()), 0..200),
        ) {
            let mut pieces = Pieces::none_of(size);
            let mut open: Vec<Range<usize>> = Vec::new();
            for (connections, breaks, fetched, which) in steps {
                if let Some(run) = pieces.claim(connections) {
                    prop_assert!(!run.is_empty() && run.len() <= MOST_PIECES_AT_ONCE);
                    prop_assert!(open.iter().all(|other| other.end <= run.start || run.end <= other.start));
                    prop_assert!(run.clone().all(|piece| !pieces.has(piece)));
                    open.push(run);
                } else {
                    let claimed: usize = open.iter().map(Range::len).sum();
                    prop_assert_eq!((0..count(size)).filter(|piece| !pieces.has(*piece)).count(), claimed);
                }
                if breaks && !open.is_empty() {
                    let run = open.remove(which.index(open.len()));
                    run.clone().take(fetched).for_each(|piece| pieces.add(piece));
                    pieces.release(run);
                }
                let again = Pieces::from_bits(size, pieces.bits()).unwrap();
                prop_assert_eq!(again.arrived_bytes(), pieces.arrived_bytes());
            }
            open.into_iter().for_each(|run| pieces.release(run));
            while let Some(run) = pieces.claim(3) {
                let bytes = pieces.bytes_of(&run);
                prop_assert!(bytes.end <= size && bytes.start < bytes.end);
                prop_assert_eq!(pieces.ending_in(&bytes), run.clone());
                run.for_each(|piece| pieces.add(piece));
            }
            prop_assert!(pieces.is_complete());
        }

        #[test]
        fn bits_of_any_kind_give_no_more_than_the_file(size in 0..50 * MIB, bits in prop::collection::vec(any::<u8>(), 0..10)) {
            if let Some(pieces) = Pieces::from_bits(size, &bits) {
                prop_assert!(pieces.arrived_bytes() <= size);
            }
        }
    }
}
