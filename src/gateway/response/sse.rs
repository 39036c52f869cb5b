//! Server-sent events on their way through: where one ends, and whether the stream has come to its own end.
//!
//! Bytes are never changed. All that is done with them is to hold back the beginning of an event until its end has
//! arrived, so that a client whose llama-server dies gets whole events and then an error, never half a one.

use super::compute_failure::Verdict;
use crate::gateway::bounds::{EVENT_HEAD, HELD_EVENT};
use crate::gateway::route::StreamEnd as Ending;
use bytes::Bytes;
use memchr::{memchr, memchr_iter, memrchr_iter};
use std::collections::VecDeque;
use std::iter;

impl Ending {
    /// How the last event of a stream begins that has come to its end.
    fn marks(self) -> &'static [&'static [u8]] {
        match self {
            Self::Done => &[b"data: [DONE]"],
            Self::MessageStop => &[b"event: message_stop"],
            Self::ResponseDone => {
                &[b"event: response.completed", b"event: response.failed", b"event: response.incomplete"]
            }
            Self::Unmarked => &[],
        }
    }
}

/// How llama-server's error events begin, which are the last of their streams: Anthropic's, and all others.
const ERRORS: [&[u8]; 2] = [b"event: error", b"data: {\"error\""];

/// Watches one stream.
pub(super) struct Watch {
    ending: Ending,
    ended: bool,
    /// What its error event says of llama-server.
    error: Option<Verdict>,
    held: VecDeque<Bytes>,
    held_length: usize,
    /// Whether what is held ends with a line feed, so that one more would end the event.
    after_line_feed: bool,
}

impl Watch {
    pub(super) fn new(ending: Ending) -> Self {
        Self { ending, ended: false, error: None, held: VecDeque::new(), held_length: 0, after_line_feed: false }
    }

    /// Takes a piece as it came and pushes to `ready` what may go out: everything up to the last end of an event.
    pub(super) fn take(&mut self, piece: Bytes, ready: &mut VecDeque<Bytes>) {
        let end = match last_end(&piece) {
            // The second half of an end whose first half is held.
            None if self.after_line_feed && piece.starts_with(b"\n") => Some(1),
            None if self.after_line_feed && piece.starts_with(b"\r\n") => Some(2),
            end => end,
        };
        match end {
            None => self.hold(piece, ready),
            Some(end) => {
                self.look(&piece[..end]);
                self.release(ready);
                let rest = piece.slice(end..);
                ready.push_back(piece.slice(..end));
                self.after_line_feed = false;
                if !rest.is_empty() {
                    self.hold(rest, ready);
                }
            }
        }
    }

    /// Whether the stream said itself that it has ended, or has none to say.
    pub(super) fn has_ended(&self) -> bool {
        self.ended || self.ending == Ending::Unmarked
    }

    /// Whether the end mark has come.
    pub(super) fn has_end_mark(&self) -> bool {
        self.ended
    }

    /// What llama-server says of itself in an error event, if there was one.
    pub(super) fn error(&self) -> Option<Verdict> {
        self.error
    }

    /// What is held when the body ended in order; it belongs to the client.
    pub(super) fn rest(&mut self, ready: &mut VecDeque<Bytes>) {
        self.look(&[]);
        self.release(ready);
    }

    fn hold(&mut self, piece: Bytes, ready: &mut VecDeque<Bytes>) {
        self.after_line_feed = piece.last() == Some(&b'\n') || (self.after_line_feed && piece.as_ref() == b"\r");
        self.held_length += piece.len();
        self.held.push_back(piece);
        if self.held_length > HELD_EVENT {
            self.look(&[]);
            self.release(ready);
        }
    }

    fn release(&mut self, ready: &mut VecDeque<Bytes>) {
        self.held_length = 0;
        ready.extend(self.held.drain(..));
    }

    /// Looks for the end in what is about to go out: what is held, and this piece.
    fn look(&mut self, piece: &[u8]) {
        if self.ended {
            return;
        }
        if self.held.is_empty() {
            self.look_at_lines(piece);
        } else {
            // Of an event that did not come in one piece its beginning will do. Others may follow it in the piece.
            let head: Vec<u8> = self.held.iter().flatten().chain(piece).copied().take(EVENT_HEAD).collect();
            self.look_at_lines(&head);
            if let Some(end) = memchr(b'\n', piece).filter(|_| !self.ended) {
                self.look_at_lines(&piece[end + 1..]);
            }
        }
    }

    /// Looks for a line that begins with a mark. Elsewhere in a line it would be something that the model said: line
    /// feeds within JSON are escaped.
    fn look_at_lines(&mut self, lines: &[u8]) {
        let begins = |line: &[u8], marks: &[&[u8]]| marks.iter().any(|mark| line.starts_with(mark));
        for start in iter::once(0).chain(memchr_iter(b'\n', lines).map(|at| at + 1)) {
            let line = &lines[start..];
            if begins(line, &ERRORS) {
                (self.ended, self.error) = (true, Some(Verdict::of_error(line)));
                return;
            }
            if begins(line, self.ending.marks()) {
                self.ended = true;
                return;
            }
        }
    }
}

/// The last bytes that went out: whether they ended an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail([u8; 3]);

impl Tail {
    /// Nothing has gone out.
    pub(super) fn new() -> Self {
        Self(*b"\n\n\n")
    }

    /// These bytes went out.
    pub(super) fn follow(&mut self, piece: &[u8]) {
        let fresh = &piece[piece.len().saturating_sub(3)..];
        self.0.rotate_left(fresh.len());
        self.0[3 - fresh.len()..].copy_from_slice(fresh);
    }

    /// The event as it may follow: an event that has gone out in part is ended first.
    pub(super) fn before(self, event: Bytes) -> Bytes {
        match self.0 {
            [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n'] => event,
            _ => Bytes::from([b"\n\n", &event[..]].concat()),
        }
    }
}

/// One event with this JSON value as its data; none if it is no JSON.
pub(super) fn data_event(json: &[u8]) -> Option<Bytes> {
    serde_json::from_slice::<serde::de::IgnoredAny>(json).ok()?;
    // Between the tokens of JSON a line end is as good as a space, and within them there is none.
    let line = json.trim_ascii().iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte });
    Some(b"data: ".iter().copied().chain(line).chain(*b"\n\n").collect())
}

/// The place just behind the last end of an event: a line feed after a line feed, with or without a carriage return.
fn last_end(piece: &[u8]) -> Option<usize> {
    // From behind, for a piece mostly ends with an event.
    memrchr_iter(b'\n', piece).find(|&at| matches!(piece[..at], [.., b'\n'] | [.., b'\n', b'\r'])).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(pieces: &[&str], ending: Ending) -> (Vec<String>, bool) {
        let mut watch = Watch::new(ending);
        let mut ready = VecDeque::new();
        for piece in pieces {
            watch.take(Bytes::copy_from_slice(piece.as_bytes()), &mut ready);
        }
        (ready.iter().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect(), watch.has_ended())
    }

    #[test]
    fn whole_events_pass_as_they_came() {
        let (out, ended) = through(&["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"], Ending::Done);
        assert_eq!(out, ["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"]);
        assert!(ended);
    }

    #[test]
    fn half_an_event_is_held_until_its_end_arrives() {
        assert_eq!(through(&["data: 1\n\ndata: {\"hal"], Ending::Done).0, ["data: 1\n\n"]);
        assert_eq!(
            through(&["data: {\"hal", "f\"}\n", "\ndata: 2\n\n"], Ending::Done).0.concat(),
            "data: {\"half\"}\n\ndata: 2\n\n"
        );
        assert_eq!(through(&["data: 1\n", "\n"], Ending::Done).0.concat(), "data: 1\n\n");
        assert_eq!(through(&["data: 1\r\n", "\r\n"], Ending::Done).0.concat(), "data: 1\r\n\r\n");
        assert_eq!(through(&["data: 1\r\n", "\r", "\n"], Ending::Done).0.concat(), "data: 1\r\n\r\n");
    }

    #[test]
    fn an_error_event_of_llama_server_ends_a_stream_too() {
        assert!(through(&["data: {\"error\":{}}\n\n"], Ending::Done).1);
        assert!(!through(&["data: {\"choices\":[]}\n\n"], Ending::Done).1);
        assert!(
            !through(&["data: {\"content\":\"say data: [DONE] now\"}\n\n"], Ending::Done).1,
            "the model may say it"
        );
        assert!(through(&["data: {}\n\ndata: [DONE]\n\n"], Ending::Done).1);
        assert!(through(&["event: message_stop\ndata: {}\n\n"], Ending::MessageStop).1);
    }

    #[test]
    fn the_end_is_seen_in_whatever_pieces_it_comes() {
        for (stream, ending, error) in [
            ("data: {}\n\ndata: [DONE]\n\n", Ending::Done, None),
            ("data: {}\r\n\r\ndata: [DONE]\r\n\r\n", Ending::Done, None),
            ("data: {}\n\nevent: message_stop\ndata: {}\n\n", Ending::MessageStop, None),
            (
                "data: {}\n\ndata: {\"error\":{\"message\":\"Compute error.\"}}\n\n",
                Ending::Unmarked,
                Some(Verdict::CannotCompute),
            ),
            (
                "data: {}\n\nevent: error\ndata: {\"message\":\"Compute error.\"}\n\n",
                Ending::MessageStop,
                Some(Verdict::CannotCompute),
            ),
        ] {
            let stream = Bytes::from_static(stream.as_bytes());
            for first in 1..stream.len() {
                for second in first + 1..stream.len() {
                    let (mut watch, mut ready) = (Watch::new(ending), VecDeque::new());
                    for piece in [0..first, first..second, second..stream.len()] {
                        watch.take(stream.slice(piece), &mut ready);
                    }
                    watch.rest(&mut ready);
                    assert!(watch.has_end_mark(), "{stream:?} {first} {second}");
                    assert_eq!(watch.error(), error, "{stream:?} {first} {second}");
                }
            }
        }
    }

    #[test]
    fn what_the_model_says_ends_nothing_wherever_its_event_is_cut() {
        let event = "data: {\"content\":\"data: [DONE]\"}\n\n";
        for cut in 1..event.len() {
            assert!(!through(&[&event[..cut], &event[cut..]], Ending::Done).1, "{cut}");
        }
    }

    #[test]
    fn an_event_longer_than_the_bound_is_passed_on_in_pieces() {
        let long = "x".repeat(HELD_EVENT + 1);
        assert_eq!(through(&[&long], Ending::Done).0.concat(), long);
    }

    #[test]
    fn an_event_that_went_out_in_part_is_ended_before_another() {
        let before = |pieces: &[&str]| {
            let mut tail = Tail::new();
            pieces.iter().for_each(|piece| tail.follow(piece.as_bytes()));
            String::from_utf8(tail.before(Bytes::from_static(b"x")).to_vec()).unwrap()
        };
        for whole in [&[][..], &["data: 1\n\n"], &["data: 1\n", "\n"], &["data: 1\r\n\r\n"], &["a\r", "\n", "\r", "\n"]]
        {
            assert_eq!(before(whole), "x", "{whole:?}");
        }
        for part in [&["data: 1"][..], &["data: 1\n"], &["\n\n", "a"], &["\n", "a\n"]] {
            assert_eq!(before(part), "\n\nx", "{part:?}");
        }
    }

    #[test]
    fn a_json_value_becomes_one_line_of_one_event() {
        assert_eq!(data_event(b" {\"a\":\r\n \"b\\n\"}\n").unwrap(), "data: {\"a\":   \"b\\n\"}\n\n");
        assert_eq!(data_event(b"<html>"), None);
        assert_eq!(data_event(b""), None);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_changed(pieces in proptest::collection::vec("[a\n\r]{0,6}", 0..20)) {
            let mut watch = Watch::new(Ending::Done);
            let mut ready = VecDeque::new();
            for piece in &pieces {
                watch.take(Bytes::copy_from_slice(piece.as_bytes()), &mut ready);
            }
            watch.rest(&mut ready);
            let out: Vec<u8> = ready.iter().flat_map(|piece| piece.to_vec()).collect();
            prop_assert_eq!(out, pieces.concat().into_bytes());
        }
    }
}
