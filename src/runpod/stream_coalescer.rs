//! Merges the events of a stream into chunks that are posted one at a time. Pure; `job_runner.rs` has the clock.
//!
//! A chunk ends at the end of an event, unless one event is larger than a chunk may be; then it ends at the end of a
//! character.

use bytes::{Buf, BytesMut};

use crate::runpod::bounds::{CHUNK_BUFFER_SIZE, CHUNK_MAX_SIZE, CHUNK_TARGET_SIZE};

/// The part of a stream that was read and not posted yet.
#[derive(Default)]
pub(super) struct StreamCoalescer {
    buffer: BytesMut,
    /// Position after the last complete event.
    events_end: usize,
    has_begun: bool,
    is_over: bool,
}

impl StreamCoalescer {
    /// Adds bytes of the stream.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        // The end of an event may be split between two reads.
        let from = self.buffer.len().saturating_sub(2);
        self.buffer.extend_from_slice(chunk);
        if let Some(end) = last_event_end(&self.buffer[from..]) {
            self.events_end = from + end;
        }
    }

    /// Marks the end of the stream.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        self.buffer.len() < CHUNK_BUFFER_SIZE
    }

    /// Whether there is a chunk to post.
    pub(super) fn has_chunk(&self) -> bool {
        self.events_end > 0 || !self.has_room() || (self.is_over && !self.buffer.is_empty())
    }

    /// Whether it is posted at once, without waiting for more events.
    pub(super) fn is_urgent(&self) -> bool {
        // The first event is sent at once, for a short time to first token.
        !self.has_begun || self.is_over || self.buffer.len() >= CHUNK_TARGET_SIZE
    }

    /// Returns the next chunk, if there is one.
    pub(super) fn next(&mut self) -> Option<String> {
        if !self.has_chunk() {
            return None;
        }
        self.has_begun = true;
        let fitting_length = fitting_length(&self.buffer);
        let cut = if fitting_length == self.buffer.len() && self.is_over {
            fitting_length
        } else {
            match last_event_end(&self.buffer[..fitting_length]) {
                Some(end) => end,
                None => character_boundary(&self.buffer, fitting_length),
            }
        };
        let chunk = String::from_utf8_lossy(&self.buffer[..cut]).into_owned();
        self.buffer.advance(cut);
        self.events_end = self.events_end.saturating_sub(cut);
        Some(chunk)
    }
}

/// Returns how many of the bytes fit into one chunk, by their size as a JSON string.
fn fitting_length(bytes: &[u8]) -> usize {
    let mut left = CHUNK_MAX_SIZE;
    let exceeds = |byte: &u8| {
        let size = match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..0x20 => 6,
            // Three bytes, because an invalid one is replaced by U+FFFD.
            0x80.. => 3,
            _ => 1,
        };
        left.checked_sub(size).map(|rest| left = rest).is_none()
    };
    bytes.iter().position(exceeds).unwrap_or(bytes.len())
}

/// Returns the greatest position up to `most` that splits no character.
fn character_boundary(bytes: &[u8], most: usize) -> usize {
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

/// Returns the position after the last end of an event: an empty line, with or without a carriage return.
fn last_event_end(bytes: &[u8]) -> Option<usize> {
    memchr::memrchr_iter(b'\n', bytes)
        .find(|&at| matches!(bytes[..at], [.., b'\n'] | [.., b'\n', b'\r']))
        .map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunks(stream: &[&str]) -> Vec<String> {
        let mut coalescer = StreamCoalescer::default();
        stream.iter().for_each(|chunk| coalescer.push(chunk.as_bytes()));
        coalescer.end();
        std::iter::from_fn(|| coalescer.next()).collect()
    }

    /// The size of a chunk as it is posted, in bytes.
    fn posted_size(chunk: &str) -> usize {
        serde_json::to_string(chunk).unwrap().len() - 2
    }

    #[test]
    fn the_first_event_is_urgent_and_later_ones_only_when_there_is_enough() {
        let mut coalescer = StreamCoalescer::default();
        coalescer.push(b"data: 1");
        assert!(!coalescer.has_chunk());
        coalescer.push(b"\n\ndata: 2");
        assert!(coalescer.has_chunk() && coalescer.is_urgent());
        assert_eq!(coalescer.next().unwrap(), "data: 1\n\n");
        assert!(!coalescer.has_chunk(), "an incomplete event stays");
        coalescer.push(b"\n\n");
        assert!(coalescer.has_chunk() && !coalescer.is_urgent());
        coalescer.push(format!("data: {}\n\n", "x".repeat(CHUNK_TARGET_SIZE)).as_bytes());
        assert!(coalescer.is_urgent());
        let chunk = coalescer.next().unwrap();
        assert!(chunk.starts_with("data: 2\n\ndata: xxx") && chunk.ends_with("x\n\n"), "both events are in one chunk");
        coalescer.push(b"data: [DONE]\n\n");
        coalescer.end();
        assert!(coalescer.is_urgent(), "no further event can join it");
        assert_eq!(coalescer.next().unwrap(), "data: [DONE]\n\n");
        assert_eq!(coalescer.next(), None);
    }

    #[test]
    fn the_end_of_an_event_is_found_however_it_is_split() {
        for stream in [&["data: 1\n", "\ndata"][..], &["data: 1\r\n", "\r\ndata"], &["data: 1\r\n\r", "\ndata"]] {
            let mut coalescer = StreamCoalescer::default();
            stream.iter().for_each(|chunk| coalescer.push(chunk.as_bytes()));
            assert_eq!(coalescer.next().unwrap().trim_end(), "data: 1", "{stream:?}");
            assert_eq!(coalescer.next(), None, "{stream:?}");
        }
    }

    #[test]
    fn a_stream_that_ends_inside_an_event_is_posted_completely() {
        assert_eq!(chunks(&["data: 1\n\nrest"]), ["data: 1\n\nrest"]);
        assert_eq!(chunks(&[]), [""; 0]);
    }

    #[test]
    fn many_events_are_split_between_events() {
        let event = format!("data: {}\n\n", "\"".repeat(100_000));
        let found = chunks(&[event.as_str(); 9]);
        assert!(found.len() > 1 && found.iter().all(|chunk| chunk.starts_with("data: ") && chunk.ends_with("\n\n")));
        assert!(found.iter().all(|chunk| posted_size(chunk) <= CHUNK_MAX_SIZE));
        assert_eq!(found.concat(), event.repeat(9));
    }

    #[test]
    fn an_event_larger_than_a_chunk_is_split_between_characters() {
        for character in ["x", "é", "€", "🦙", "\u{1}", "\""] {
            for shift in ["", "ab"] {
                let event = format!("data: {shift}{}\n\n", character.repeat(2 * CHUNK_MAX_SIZE / character.len()));
                let found = chunks(&[&event]);
                assert!(found.iter().all(|chunk| posted_size(chunk) <= CHUNK_MAX_SIZE), "{character:?}");
                assert!(found.concat() == event, "{character:?} {shift}");
            }
        }
    }

    #[test]
    fn an_event_that_fills_the_buffer_is_posted_before_its_end() {
        let mut coalescer = StreamCoalescer::default();
        let chunk = "é".repeat(CHUNK_BUFFER_SIZE / 2);
        coalescer.push(&chunk.as_bytes()[..1]);
        coalescer.push(&chunk.as_bytes()[1..]);
        assert!(!coalescer.has_room() && coalescer.has_chunk());
        assert!(coalescer.next().unwrap().chars().all(|character| character == 'é'));
        assert!(coalescer.has_room());
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let mut coalescer = StreamCoalescer::default();
        coalescer.push(b"data: \xff\xf0\x9f\n\n");
        assert_eq!(coalescer.next().unwrap(), "data: \u{fffd}\u{fffd}\n\n");
    }

    proptest! {
        #[test]
        fn no_part_of_a_stream_is_lost_or_changed(stream in "([a-zé🦙\"]{0,5}\r?\n){0,30}", cuts in proptest::collection::vec(0..200_usize, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let (mut coalescer, mut at, mut found) = (StreamCoalescer::default(), 0, String::new());
            for cut in cuts.into_iter().chain([stream.len()]) {
                coalescer.push(&stream.as_bytes()[at..cut]);
                at = cut;
                while let Some(chunk) = coalescer.next() {
                    prop_assert!(chunk.ends_with("\n\n") || chunk.ends_with("\n\r\n"));
                    found.push_str(&chunk);
                }
            }
            coalescer.end();
            found.extend(std::iter::from_fn(|| coalescer.next()));
            prop_assert_eq!(found, stream);
        }
    }
}
