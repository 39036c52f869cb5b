//! A stream of events, put together to pieces that are posted one at a time. Pure; `run.rs` has the clock.
//!
//! A piece ends where an event does, unless one event is larger than a piece may be; then where a character does.

use crate::runpod::bounds::{CHUNK_BUFFER, CHUNK_ENOUGH, CHUNK_MOST};
use bytes::{Buf, BytesMut};

/// What has come of a stream and has not been posted.
#[derive(Default)]
pub(super) struct StreamCoalescer {
    held: BytesMut,
    /// Where the last event in it ends.
    events_end: usize,
    has_begun: bool,
    is_over: bool,
}

impl StreamCoalescer {
    /// Takes what came.
    pub(super) fn push(&mut self, piece: &[u8]) {
        // An end may be half in what came before.
        let from = self.held.len().saturating_sub(2);
        self.held.extend_from_slice(piece);
        if let Some(end) = last_end(&self.held[from..]) {
            self.events_end = from + end;
        }
    }

    /// Nothing more will come.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        self.held.len() < CHUNK_BUFFER
    }

    /// Whether there is a piece to post.
    pub(super) fn has_piece(&self) -> bool {
        self.events_end > 0 || !self.has_room() || (self.is_over && !self.held.is_empty())
    }

    /// Whether it is to be posted without waiting for more to join it.
    pub(super) fn is_urgent(&self) -> bool {
        !self.has_begun || self.is_over || self.held.len() >= CHUNK_ENOUGH
    }

    /// The next piece, if there is one.
    pub(super) fn next(&mut self) -> Option<String> {
        if !self.has_piece() {
            return None;
        }
        self.has_begun = true;
        let fitting = fitting(&self.held);
        let cut = if fitting == self.held.len() && self.is_over {
            fitting
        } else {
            match last_end(&self.held[..fitting]) {
                Some(end) => end,
                None => whole_characters(&self.held, fitting),
            }
        };
        let piece = String::from_utf8_lossy(&self.held[..cut]).into_owned();
        self.held.advance(cut);
        self.events_end = self.events_end.saturating_sub(cut);
        Some(piece)
    }
}

/// How much of it may be posted at once, by its size as a JSON text.
fn fitting(bytes: &[u8]) -> usize {
    let mut left = CHUNK_MOST;
    let does_not_fit = |byte: &u8| {
        let size = match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..0x20 => 6,
            // Where it is no character, three bytes stand in its place.
            0x80.. => 3,
            _ => 1,
        };
        left.checked_sub(size).map(|rest| left = rest).is_none()
    };
    bytes.iter().position(does_not_fit).unwrap_or(bytes.len())
}

/// The greatest cut up to this one that leaves no character incomplete.
fn whole_characters(bytes: &[u8], most: usize) -> usize {
    for back in 1..=most.min(3) {
        let length = match bytes[most - back] {
            0x80..0xc0 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0.. => 4,
            _ => 1,
        };
        return if length > back && most > back { most - back } else { most };
    }
    most
}

/// The place behind the last end of an event: an empty line, with or without a carriage return.
fn last_end(bytes: &[u8]) -> Option<usize> {
    memchr::memrchr_iter(b'\n', bytes)
        .find(|&at| matches!(bytes[..at], [.., b'\n'] | [.., b'\n', b'\r']))
        .map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(stream: &[&str]) -> Vec<String> {
        let mut coalescer = StreamCoalescer::default();
        stream.iter().for_each(|piece| coalescer.push(piece.as_bytes()));
        coalescer.end();
        std::iter::from_fn(|| coalescer.next()).collect()
    }

    /// What is posted of a piece.
    fn posted(piece: &str) -> usize {
        serde_json::to_string(piece).unwrap().len() - 2
    }

    #[test]
    fn the_first_event_is_urgent_and_those_after_it_are_not_until_there_is_enough() {
        let mut coalescer = StreamCoalescer::default();
        coalescer.push(b"data: 1");
        assert!(!coalescer.has_piece());
        coalescer.push(b"\n\ndata: 2");
        assert!(coalescer.has_piece() && coalescer.is_urgent());
        assert_eq!(coalescer.next().unwrap(), "data: 1\n\n");
        assert!(!coalescer.has_piece(), "half an event stays");
        coalescer.push(b"\n\n");
        assert!(coalescer.has_piece() && !coalescer.is_urgent());
        coalescer.push(format!("data: {}\n\n", "x".repeat(CHUNK_ENOUGH)).as_bytes());
        assert!(coalescer.is_urgent());
        let piece = coalescer.next().unwrap();
        assert!(piece.starts_with("data: 2\n\ndata: xxx") && piece.ends_with("x\n\n"), "both at once");
        coalescer.push(b"data: [DONE]\n\n");
        coalescer.end();
        assert!(coalescer.is_urgent(), "nothing can join it");
        assert_eq!(coalescer.next().unwrap(), "data: [DONE]\n\n");
        assert_eq!(coalescer.next(), None);
    }

    #[test]
    fn an_end_is_found_however_it_comes() {
        for stream in [&["data: 1\n", "\ndata"][..], &["data: 1\r\n", "\r\ndata"], &["data: 1\r\n\r", "\ndata"]] {
            let mut coalescer = StreamCoalescer::default();
            stream.iter().for_each(|piece| coalescer.push(piece.as_bytes()));
            assert_eq!(coalescer.next().unwrap().trim_end(), "data: 1", "{stream:?}");
            assert_eq!(coalescer.next(), None, "{stream:?}");
        }
    }

    #[test]
    fn what_ends_without_the_end_of_an_event_is_posted_too() {
        assert_eq!(pieces(&["data: 1\n\nrest"]), ["data: 1\n\nrest"]);
        assert_eq!(pieces(&[]), [""; 0]);
    }

    #[test]
    fn many_events_are_cut_between_two_of_them() {
        let event = format!("data: {}\n\n", "\"".repeat(100_000));
        let found = pieces(&[event.as_str(); 9]);
        assert!(found.len() > 1 && found.iter().all(|piece| piece.starts_with("data: ") && piece.ends_with("\n\n")));
        assert!(found.iter().all(|piece| posted(piece) <= CHUNK_MOST));
        assert_eq!(found.concat(), event.repeat(9));
    }

    #[test]
    fn an_event_larger_than_a_piece_is_cut_between_two_characters() {
        for character in ["x", "é", "€", "🦙", "\u{1}", "\""] {
            for shift in ["", "ab"] {
                let event = format!("data: {shift}{}\n\n", character.repeat(2 * CHUNK_MOST / character.len()));
                let found = pieces(&[&event]);
                assert!(found.iter().all(|piece| posted(piece) <= CHUNK_MOST), "{character:?}");
                assert!(found.concat() == event, "{character:?} {shift}");
            }
        }
    }

    #[test]
    fn an_event_that_fills_the_buffer_before_it_ends_makes_room() {
        let mut coalescer = StreamCoalescer::default();
        let piece = "é".repeat(CHUNK_BUFFER / 2);
        coalescer.push(&piece.as_bytes()[..1]);
        coalescer.push(&piece.as_bytes()[1..]);
        assert!(!coalescer.has_room() && coalescer.has_piece());
        assert!(coalescer.next().unwrap().chars().all(|character| character == 'é'));
        assert!(coalescer.has_room());
    }

    #[test]
    fn what_is_no_text_becomes_one() {
        let mut coalescer = StreamCoalescer::default();
        coalescer.push(b"data: \xff\xf0\x9f\n\n");
        assert_eq!(coalescer.next().unwrap(), "data: \u{fffd}\u{fffd}\n\n");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_changed(stream in "([a-zé🦙\"]{0,5}\r?\n){0,30}", cuts in proptest::collection::vec(0..200_usize, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let (mut coalescer, mut at, mut found) = (StreamCoalescer::default(), 0, String::new());
            for cut in cuts.into_iter().chain([stream.len()]) {
                coalescer.push(&stream.as_bytes()[at..cut]);
                at = cut;
                while let Some(piece) = coalescer.next() {
                    prop_assert!(piece.ends_with("\n\n") || piece.ends_with("\n\r\n"));
                    found.push_str(&piece);
                }
            }
            coalescer.end();
            found.extend(std::iter::from_fn(|| coalescer.next()));
            prop_assert_eq!(found, stream);
        }
    }
}
