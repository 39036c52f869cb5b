//! The pieces of an answer in flight, and how far each of its readers has come.
//!
//! While the answer may be kept, so are all its pieces. Of a larger one those that every reader has read are dropped, and
//! the fastest reader is at most [`SHARED_LEAD`] ahead of the slowest.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::gateway::bounds::{MOST_READERS, SHARED_LEAD};

/// The pieces that have come so far.
pub(super) struct SharedPieces {
    pieces: VecDeque<Bytes>,
    /// How many pieces were dropped before the first of them.
    dropped: usize,
    /// The bytes of `pieces`.
    held: usize,
    /// Most bytes of an answer that is kept.
    largest: usize,
    /// Whether the answer may still be kept.
    is_whole: bool,
    /// The number of the next piece of each reader; `None` for one that has left.
    seats: Vec<Option<usize>>,
}

/// A reader's place in `seats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat(usize);

impl SharedPieces {
    /// Begins without a piece, for an answer that is kept if it has at most this number of bytes.
    pub(super) fn new(largest: usize) -> Self {
        Self { pieces: VecDeque::new(), dropped: 0, held: 0, largest, is_whole: true, seats: Vec::new() }
    }

    /// Adds a reader, which begins with the first piece. `None` if that has been dropped, or if there are
    /// [`MOST_READERS`].
    pub(super) fn join(&mut self) -> Option<Seat> {
        if !self.is_whole || self.seats.len() >= MOST_READERS {
            return None;
        }
        self.seats.push(Some(0));
        Some(Seat(self.seats.len() - 1))
    }

    /// Removes a reader.
    pub(super) fn leave(&mut self, seat: Seat) {
        self.set(seat, None);
    }

    /// Adds a piece to the end.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.held += piece.len();
        self.pieces.push_back(piece);
        self.is_whole &= self.held <= self.largest;
        self.drop_read();
    }

    /// Returns the next piece of a reader, if it has come.
    pub(super) fn next(&mut self, seat: Seat) -> Option<Bytes> {
        let at = self.at(seat);
        let piece = self.pieces.get(at.checked_sub(self.dropped)?)?.clone();
        self.set(seat, Some(at + 1));
        Some(piece)
    }

    /// Returns whether a reader has read all pieces that have come.
    pub(super) fn has_read_all(&self, seat: Seat) -> bool {
        self.at(seat) >= self.dropped + self.pieces.len()
    }

    /// Returns whether the slowest reader has to read before another piece may come.
    pub(super) fn is_full(&self) -> bool {
        !self.is_whole && self.held > SHARED_LEAD
    }

    /// Returns all pieces, if none was dropped and they may be kept.
    pub(super) fn whole(&self) -> Option<impl Iterator<Item = &Bytes>> {
        self.is_whole.then(|| self.pieces.iter())
    }

    fn at(&self, seat: Seat) -> usize {
        self.seats.get(seat.0).copied().flatten().unwrap_or(usize::MAX)
    }

    fn set(&mut self, seat: Seat, at: Option<usize>) {
        if let Some(known) = self.seats.get_mut(seat.0) {
            *known = at;
        }
        self.drop_read();
    }

    /// Drops the pieces that every reader has read, unless the answer may be kept.
    fn drop_read(&mut self) {
        if self.is_whole {
            return;
        }
        let slowest = self.seats.iter().flatten().copied().min().unwrap_or(usize::MAX);
        while self.dropped < slowest
            && let Some(piece) = self.pieces.pop_front()
        {
            self.dropped += 1;
            self.held -= piece.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(number: usize, length: usize) -> Bytes {
        Bytes::from(vec![number as u8; length])
    }

    #[test]
    fn only_an_answer_that_is_too_large_to_be_kept_waits_for_its_slowest_reader() {
        let mut shared = SharedPieces::new(2 * SHARED_LEAD);
        let (fast, slow) = (shared.join().unwrap(), shared.join().unwrap());
        for number in 0..2 {
            shared.push(piece(number, SHARED_LEAD));
            assert!(shared.next(fast).is_some() && !shared.is_full());
        }
        assert_eq!(shared.whole().unwrap().count(), 2);
        shared.push(piece(2, SHARED_LEAD));
        assert!(shared.whole().is_none() && shared.is_full() && shared.join().is_none());
        assert_eq!(shared.next(slow), Some(piece(0, SHARED_LEAD)));
        assert!(shared.is_full());
        assert_eq!(shared.next(slow), Some(piece(1, SHARED_LEAD)));
        assert!(!shared.is_full(), "{} bytes are held", shared.held);
        shared.push(piece(3, 1));
        assert!(shared.is_full());
        shared.leave(slow);
        assert!(shared.is_full(), "the other one has not read it yet");
        assert!(shared.next(fast).is_some() && !shared.is_full());
    }

    proptest! {
        /// Each reader that stays reads the whole answer in its order, whatever the others do.
        #[test]
        fn each_reader_reads_everything(
            steps in prop::collection::vec((0_usize..5, 0_usize..3), 1..200),
            largest in 0_usize..100,
        ) {
            let mut shared = SharedPieces::new(largest);
            let mut readers: Vec<(Option<Seat>, usize)> = (0..3).map(|_| (shared.join(), 0)).collect();
            let mut pushed = 0;
            for (step, reader) in steps {
                let (seat, read) = &mut readers[reader];
                match (step, *seat) {
                    (0, Some(left)) => {
                        shared.leave(left);
                        *seat = None;
                    }
                    (1 | 2, _) => {
                        shared.push(piece(pushed, 10));
                        pushed += 1;
                    }
                    (_, Some(seat)) => match shared.next(seat) {
                        Some(found) => {
                            prop_assert_eq!(found, piece(*read, 10));
                            *read += 1;
                        }
                        None => prop_assert_eq!(*read, pushed),
                    },
                    _ => {}
                }
                prop_assert_eq!(shared.whole().is_some(), pushed * 10 <= largest);
            }
            for (seat, mut read) in readers.into_iter().filter_map(|(seat, read)| Some((seat?, read))) {
                while let Some(found) = shared.next(seat) {
                    prop_assert_eq!(found, piece(read, 10));
                    read += 1;
                }
                prop_assert!(read == pushed && shared.has_read_all(seat));
            }
        }
    }
}
