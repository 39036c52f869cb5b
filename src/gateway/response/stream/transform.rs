//! Changes the events of a stream on their way to the client, one event at a time.
//!
//! Stands between `watcher.rs`, which releases whole events, and the client. Owns the cutting into events, what is held of an
//! unfinished one, and its bound. What becomes of an event is decided by an [`EventTransform`]; `mend/` has those for
//! llama-server's own streams.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::gateway::bounds::TRANSFORMED_EVENT;
use crate::gateway::scan::event_data::EventData;
use crate::gateway::scan::sse_framer::{SseField, SseFramer, SseStep};

/// One event of a stream, or a comment between two events.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway::response) struct StreamEvent<'a> {
    /// The value of `event:`; `None` if the event has none.
    pub(in crate::gateway::response) name: Option<&'a str>,
    /// The value of `data:`, its lines joined by line feeds. Empty for a comment.
    pub(in crate::gateway::response) data: &'a [u8],
    /// The whole event as it arrived, with the blank line that ends it.
    pub(in crate::gateway::response) raw: &'a [u8],
}

/// Decides what the client gets for each event of one stream.
pub(in crate::gateway::response) trait EventTransform: Send {
    /// Writes to `out` what the client gets for this event.
    fn event(&mut self, event: StreamEvent<'_>, out: &mut Vec<u8>);

    /// Writes to `out` what follows the last event, at the regular end of the stream.
    fn end(&mut self, _out: &mut Vec<u8>) {}

    /// Returns whether all that follows is passed on as it is.
    fn is_done(&self) -> bool {
        false
    }
}

/// A stream whose events are changed.
pub(in crate::gateway::response) struct TransformedStream {
    transform: Box<dyn EventTransform>,
    /// Most bytes of one event that are held. A longer one is passed on as it is.
    longest_event: usize,
    framer: SseFramer,
    /// The unfinished event.
    held: Vec<u8>,
    name: Option<String>,
    data: EventData,
    /// Whether the unfinished event is too long to be changed, and is passed on as it arrives.
    is_too_long: bool,
}

impl TransformedStream {
    /// Changes events of up to [`TRANSFORMED_EVENT`] bytes.
    pub(in crate::gateway::response) fn new(transform: Box<dyn EventTransform>) -> Self {
        Self::bounded(transform, TRANSFORMED_EVENT)
    }

    /// Changes events of up to `longest_event` bytes.
    pub(in crate::gateway::response) fn bounded(transform: Box<dyn EventTransform>, longest_event: usize) -> Self {
        Self {
            transform,
            longest_event,
            framer: SseFramer::new(),
            held: Vec::new(),
            name: None,
            data: EventData::bounded(longest_event),
            is_too_long: false,
        }
    }

    /// Replaces the pieces in `ready` by what the client gets for them.
    pub(in crate::gateway::response) fn take(&mut self, ready: &mut VecDeque<Bytes>) {
        for piece in std::mem::take(ready) {
            self.take_piece(&piece, ready);
        }
    }

    /// Handles the regular end of the stream: an event without a blank line after it is passed on as it is.
    pub(in crate::gateway::response) fn end(&mut self, ready: &mut VecDeque<Bytes>) {
        let mut out = std::mem::take(&mut self.held);
        if out.is_empty() {
            self.transform.end(&mut out);
        }
        push(out, ready);
    }

    /// Returns whether all that follows is passed on as it is.
    pub(in crate::gateway::response) fn is_done(&self) -> bool {
        self.transform.is_done() && self.held.is_empty() && !self.is_too_long
    }

    fn take_piece(&mut self, piece: &Bytes, ready: &mut VecDeque<Bytes>) {
        let (mut at, mut begin, mut out) = (0, 0, Vec::new());
        let begins_whole = self.held.is_empty() && !self.is_too_long;
        while !self.is_done()
            && let Some(step) = self.framer.next(piece, &mut at)
        {
            match step {
                SseStep::Line(line) if line.field == SseField::Event => {
                    if line.ends {
                        self.name = str::from_utf8(line.head).ok().map(str::to_owned);
                    }
                }
                SseStep::Line(line) => self.data.add(&line),
                SseStep::EventEnd(end) => {
                    self.end_event(&piece[begin..end], &mut out);
                    begin = end;
                }
                SseStep::LineFeed => {
                    // It ends the blank line whose carriage return has been passed on.
                    out.extend_from_slice(&piece[begin..at]);
                    begin = at;
                }
            }
        }
        if self.is_done() {
            if begins_whole && out == piece[..begin] {
                return ready.push_back(piece.clone());
            }
            push(out, ready);
            let rest = piece.slice(begin..);
            if !rest.is_empty() {
                ready.push_back(rest);
            }
            return;
        }
        self.hold(&piece[begin..], &mut out);
        push(out, ready);
    }

    /// Keeps a part of the unfinished event. Passes it on if the event has become too long.
    fn hold(&mut self, part: &[u8], out: &mut Vec<u8>) {
        if self.is_too_long || self.held.len() + part.len() > self.longest_event {
            self.is_too_long = true;
            out.append(&mut self.held);
            out.extend_from_slice(part);
        } else {
            self.held.extend_from_slice(part);
        }
    }

    /// Ends the event whose last part this is.
    fn end_event(&mut self, last: &[u8], out: &mut Vec<u8>) {
        self.hold(last, out);
        if !std::mem::take(&mut self.is_too_long) {
            // The data are a part of the event, which is not too long.
            let data = self.data.so_far().unwrap_or_default();
            self.transform.event(StreamEvent { name: self.name.as_deref(), data, raw: &self.held }, out);
        }
        self.held.clear();
        self.data.begin_event();
        self.name = None;
    }
}

fn push(out: Vec<u8>, ready: &mut VecDeque<Bytes>) {
    if !out.is_empty() {
        ready.push_back(out.into());
    }
}

/// Returns the stream in these pieces after the transform, for tests.
#[cfg(test)]
pub(in crate::gateway::response) fn transform_pieces(pieces: &[&[u8]], transform: Box<dyn EventTransform>) -> Vec<u8> {
    let (mut stream, mut out) = (TransformedStream::new(transform), Vec::new());
    for piece in pieces {
        let mut ready = VecDeque::from([Bytes::copy_from_slice(piece)]);
        stream.take(&mut ready);
        out.extend(ready.into_iter().flatten());
        assert!(stream.held.len() <= TRANSFORMED_EVENT && stream.data.length() <= TRANSFORMED_EVENT);
    }
    let mut ready = VecDeque::new();
    stream.end(&mut ready);
    out.extend(ready.into_iter().flatten());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes each event with its number, and is done after a number of events.
    struct Numbered {
        count: usize,
        until: usize,
    }

    impl EventTransform for Numbered {
        fn event(&mut self, event: StreamEvent<'_>, out: &mut Vec<u8>) {
            self.count += 1;
            let data = String::from_utf8_lossy(event.data);
            out.extend_from_slice(format!("{}/{}/{data};", self.count, event.name.unwrap_or("-")).as_bytes());
        }

        fn end(&mut self, out: &mut Vec<u8>) {
            out.extend_from_slice(b"end");
        }

        fn is_done(&self) -> bool {
            self.count >= self.until
        }
    }

    fn through(pieces: &[&[u8]], until: usize) -> String {
        String::from_utf8(transform_pieces(pieces, Box::new(Numbered { count: 0, until }))).unwrap()
    }

    #[test]
    fn events_are_changed_one_by_one_and_the_rest_is_passed_on() {
        let stream = b": hi\n\nevent: a\ndata: 1\ndata: 2\n\ndata: 3\r\n\r\ndata: 4\n\ndata: 5";
        assert_eq!(through(&[stream], 9), "1/-/;2/a/1\n2;3/-/3;4/-/4;data: 5");
        assert_eq!(through(&[stream], 2), "1/-/;2/a/1\n2;data: 3\r\n\r\ndata: 4\n\ndata: 5end");
        assert_eq!(through(&[b"data: 1\n\n"], 9), "1/-/1;end");
    }

    #[test]
    fn an_event_longer_than_the_bound_is_passed_on_as_it_is() {
        let long = format!("data: {}\n\n", "x".repeat(TRANSFORMED_EVENT));
        for size in [1000, TRANSFORMED_EVENT / 2, long.len()] {
            let pieces: Vec<&[u8]> = long.as_bytes().chunks(size).chain([&b"data: 2\n\n"[..]]).collect();
            assert!(through(&pieces, 9) == format!("{long}1/-/2;end"), "{size}");
        }
    }

    proptest! {
        #[test]
        fn a_stream_that_is_cut_anywhere_gives_the_same_events(
            lines in proptest::collection::vec(
                proptest::sample::select(vec!["data: a", "data:b", "event: c", "", "", ": d", "id: 7"]), 0..20
            ),
            ends in proptest::sample::select(vec!["\n", "\r\n"]),
            cuts in proptest::collection::vec(0..120_usize, 0..5),
            until in 1..6_usize,
        ) {
            let text: String = lines.iter().map(|line| format!("{line}{ends}")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
            let without_feeds = |text: String| text.replace('\n', "");
            prop_assert_eq!(without_feeds(through(&pieces, until)), without_feeds(through(&[text.as_bytes()], until)));
        }
    }
}
