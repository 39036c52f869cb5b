//! Server-sent events in transit: where an event ends, and whether the stream has reached its own end.
//!
//! Bytes are never changed here. The beginning of an event is held back until its end has arrived, so that a client
//! whose llama-server dies gets whole events and then an error, never half an event. `sse_framer.rs` finds the lines.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::compute_failure::ComputeFailure;
use super::stream_finish::{EventMeaning, FinishWatch};
use crate::gateway::bounds::MAX_BUFFERED_EVENT;
use crate::gateway::routes::route::StreamEnd;
use crate::gateway::scan::sse_framer::{SseField, SseFramer, SseLine, SseStep};

impl StreamEnd {
    /// Returns the field, and the beginnings of its value, that mark the last event of a stream.
    fn end_marks(self) -> (SseField, &'static [&'static [u8]]) {
        match self {
            Self::Done => (SseField::Data, &[b"[DONE]"]),
            Self::MessageStop => (SseField::Event, &[b"message_stop"]),
            Self::ResponseDone => {
                (SseField::Event, &[b"response.completed", b"response.failed", b"response.incomplete"])
            }
            Self::Unmarked => (SseField::Event, &[]),
        }
    }

    /// Returns the event that ends a stream, for a backend that has left it out.
    fn end_event(self) -> Option<Bytes> {
        match self {
            Self::Done => Some(Bytes::from_static(b"data: [DONE]\n\n")),
            Self::MessageStop => {
                Some(Bytes::from_static(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"))
            }
            Self::ResponseDone | Self::Unmarked => None,
        }
    }
}

/// Watches one stream for the ends of its events, and holds back unfinished events.
pub(super) struct StreamWatcher {
    framer: SseFramer,
    end: EndWatch,
    /// For a worker that may leave out the end mark: whether the stream has finished.
    finish: Option<FinishWatch>,
    /// Whether the event that only reports token counts is dropped.
    hides_usage: bool,
    /// Whether the last event has been dropped.
    is_dropped: bool,
    /// The unfinished event.
    buffered: VecDeque<Bytes>,
    /// Bytes in `buffered`.
    buffered_length: usize,
}

impl StreamWatcher {
    pub(super) fn new(ending: StreamEnd) -> Self {
        Self {
            framer: SseFramer::new(),
            end: EndWatch::new(ending),
            finish: None,
            hides_usage: false,
            is_dropped: false,
            buffered: VecDeque::new(),
            buffered_length: 0,
        }
    }

    /// Watches the stream of a worker that may leave out the end mark. `hides_usage` says whether to drop the event that
    /// only reports token counts.
    pub(super) fn lenient(ending: StreamEnd, hides_usage: bool) -> Self {
        let end = EndWatch { trusts_beginning: false, ..EndWatch::new(ending) };
        Self { end, finish: Some(FinishWatch::new(ending)), hides_usage, ..Self::new(ending) }
    }

    /// Returns the length of the generated text so far, if the stream is read for it.
    pub(super) fn text_bytes(&self) -> u64 {
        self.finish.as_ref().map_or(0, FinishWatch::text_bytes)
    }

    /// Takes a piece and pushes to `ready` what may be sent: everything up to the last end of an event. Shows each step
    /// of the stream to `on_step`, which may replace bytes.
    pub(super) fn take(
        &mut self,
        piece: &Bytes,
        ready: &mut VecDeque<Bytes>,
        mut on_step: impl FnMut(&SseStep<'_>, &mut PieceSplicer<'_>),
    ) {
        let already_held = self.buffered.len();
        let mut out = PieceSplicer::new(piece, &mut self.buffered);
        let mut at = 0;
        while let Some(step) = self.framer.next(piece, &mut at) {
            on_step(&step, &mut out);
            match step {
                SseStep::Line(line) => {
                    self.end.read_line(&line);
                    if let Some(finish) = &mut self.finish {
                        finish.read_line(&line);
                    }
                }
                SseStep::EventEnd(end) => {
                    let meaning = self.finish.as_mut().map(FinishWatch::end_event);
                    self.is_dropped = self.hides_usage && meaning == Some(EventMeaning::ReportsUsage);
                    if self.is_dropped {
                        out.drop_event(end);
                        self.end.begin_event();
                        continue;
                    }
                    out.end_event(end);
                    self.end.read_meaning(meaning.unwrap_or(EventMeaning::Goes));
                    self.end.release_event();
                    self.end.begin_event();
                }
                SseStep::LineFeed if self.is_dropped => out.drop_event(1),
                SseStep::LineFeed => out.end_event(1),
            }
        }
        out.pass_to(piece.len());
        let (complete, has_dropped) = (out.complete, out.has_dropped);
        let length = |pieces: std::collections::vec_deque::Iter<'_, Bytes>| pieces.map(Bytes::len).sum::<usize>();
        if complete > 0 || has_dropped {
            ready.extend(self.buffered.drain(..complete));
            self.buffered_length = length(self.buffered.iter());
        } else {
            self.buffered_length += length(self.buffered.range(already_held..));
        }
        if self.buffered_length > MAX_BUFFERED_EVENT {
            self.flush(ready);
        }
    }

    /// Handles the regular end of the body: releases the last event, even if no blank line follows it. Returns whether
    /// the stream is complete.
    pub(super) fn end(&mut self, ready: &mut VecDeque<Bytes>) -> StreamOutcome {
        if let Some(finish) = &mut self.finish {
            if !self.end.has_ended && finish.has_half_event() {
                // An event that is cut in the middle is no use to a client.
                self.buffered.clear();
                self.buffered_length = 0;
                return StreamOutcome::Cut;
            }
            let meaning = finish.end_event();
            if self.hides_usage && meaning == EventMeaning::ReportsUsage {
                self.buffered.clear();
            }
            self.end.read_meaning(meaning);
        }
        self.flush(ready);
        if self.end.has_ended || self.end.ending == StreamEnd::Unmarked {
            return StreamOutcome::Complete;
        }
        let mark = self.finish.as_ref().filter(|finish| finish.is_finished()).and_then(|_| self.end.ending.end_event());
        mark.map_or(StreamOutcome::Cut, StreamOutcome::LacksMark)
    }

    /// Returns whether the end mark has been released.
    pub(super) fn has_end_mark(&self) -> bool {
        self.end.has_ended
    }

    /// Returns what an error event shows about llama-server, if there was one.
    pub(super) fn error(&self) -> Option<ComputeFailure> {
        self.end.error
    }

    /// Releases the unfinished event, or the part of it that has arrived.
    pub(super) fn flush(&mut self, ready: &mut VecDeque<Bytes>) {
        self.end.release_event();
        self.buffered_length = 0;
        ready.extend(self.buffered.drain(..));
    }
}

/// What the end of its body says about a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamOutcome {
    /// The stream has sent its end mark, or its dialect has none.
    Complete,
    /// Everything has finished, but this event, which should end the stream, is missing.
    LacksMark(Bytes),
    /// The stream broke off.
    Cut,
}

/// Looks for the event that ends a stream: the end mark of its dialect, or an error of llama-server.
struct EndWatch {
    ending: StreamEnd,
    /// Whether the beginning of an event's data tells an error, as that of llama-server's own events does. Of other
    /// servers the whole event has to be read: some write `error` into each of them, without an error in it.
    trusts_beginning: bool,
    /// Whether the end has been released.
    has_ended: bool,
    /// What a released error event shows about llama-server.
    error: Option<ComputeFailure>,
    /// Whether the unfinished event is the end.
    is_end: bool,
    /// What the unfinished event shows about llama-server, if it is an error.
    held_error: Option<ComputeFailure>,
    /// What it shows if it turns out to be one.
    possible_error: Option<ComputeFailure>,
}

impl EndWatch {
    fn new(ending: StreamEnd) -> Self {
        Self {
            ending,
            trusts_beginning: true,
            has_ended: false,
            error: None,
            is_end: false,
            held_error: None,
            possible_error: None,
        }
    }

    /// Checks the beginning of a line's value. Anywhere else a mark would be text of the model.
    fn read_line(&mut self, line: &SseLine<'_>) {
        if self.has_ended || (self.is_end && self.held_error.is_none()) {
            return;
        }
        // Anthropic's errors have their own event name; in all other dialects the data of an error begins like this.
        let begins_error: &[u8] = match line.field {
            SseField::Event => b"error",
            SseField::Data => b"{\"error\"",
        };
        let (field, marks) = self.ending.end_marks();
        let is_error_event = line.head.starts_with(begins_error);
        if is_error_event && line.field == SseField::Data && !self.trusts_beginning {
            self.possible_error = Some(ComputeFailure::of_error(line.head));
        } else if is_error_event || (line.field == SseField::Data && self.held_error.is_some()) {
            self.is_end = true;
            if self.held_error != Some(ComputeFailure::Confirmed) {
                self.held_error = Some(ComputeFailure::of_error(line.head));
            }
        } else if line.field == field && marks.iter().any(|mark| line.head.starts_with(mark)) {
            self.is_end = true;
        }
    }

    /// Notes what the data of the unfinished event mean.
    fn read_meaning(&mut self, meaning: EventMeaning) {
        match meaning {
            EventMeaning::Goes | EventMeaning::ReportsUsage => {}
            EventMeaning::Ends => self.is_end = true,
            EventMeaning::Fails => {
                self.is_end = true;
                self.held_error = self.held_error.or(self.possible_error).or(Some(ComputeFailure::NotApplicable));
            }
        }
    }

    /// Records that the event, or the part of it that has arrived, is released.
    fn release_event(&mut self) {
        self.has_ended |= self.is_end;
        self.error = self.error.or(self.held_error);
    }

    fn begin_event(&mut self) {
        (self.is_end, self.held_error, self.possible_error) = (false, None, None);
    }
}

/// Passes one piece of a response on to a queue, and can replace some of its bytes.
pub(super) struct PieceSplicer<'a> {
    piece: &'a Bytes,
    queue: &'a mut VecDeque<Bytes>,
    /// The offset up to which the piece has been passed on or skipped.
    passed: usize,
    /// The end of the last event in the piece; 0 if no event has ended.
    event_end: usize,
    /// The number of pieces in the queue up to the end of the last event.
    complete: usize,
    /// Whether an event has been dropped.
    has_dropped: bool,
}

impl<'a> PieceSplicer<'a> {
    pub(super) fn new(piece: &'a Bytes, queue: &'a mut VecDeque<Bytes>) -> Self {
        Self { piece, queue, passed: 0, event_end: 0, complete: 0, has_dropped: false }
    }

    /// Returns the bytes of the piece in this range.
    pub(super) fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        &self.piece[range]
    }

    /// Passes on everything before this offset.
    pub(super) fn pass_to(&mut self, end: usize) {
        if self.event_end > self.passed {
            self.push_to(self.event_end);
            self.complete = self.queue.len();
        }
        if end > self.passed {
            self.push_to(end);
        }
    }

    /// Passes on everything before this offset, and then inserts these bytes.
    pub(super) fn insert(&mut self, at: usize, bytes: Bytes) {
        self.pass_to(at);
        self.queue.push_back(bytes);
    }

    /// Skips the bytes before this offset that have not been passed on.
    pub(super) fn skip_to(&mut self, end: usize) {
        self.passed = end;
    }

    fn end_event(&mut self, end: usize) {
        self.event_end = end;
    }

    /// Drops the event that ends at this offset, with what is in the queue of it.
    fn drop_event(&mut self, end: usize) {
        if self.event_end > self.passed {
            self.push_to(self.event_end);
            self.complete = self.queue.len();
        }
        self.queue.truncate(self.complete);
        (self.passed, self.event_end) = (end, end);
        self.has_dropped = true;
    }

    fn push_to(&mut self, end: usize) {
        self.queue.push_back(self.piece.slice(self.passed..end));
        self.passed = end;
    }
}

/// The last three bytes that were sent, which show whether they ended an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct SseTail([u8; 3]);

impl SseTail {
    /// The state before anything is sent.
    pub(super) fn new() -> Self {
        Self(*b"\n\n\n")
    }

    /// Records that these bytes were sent.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let new_bytes = &piece[piece.len().saturating_sub(3)..];
        self.0.rotate_left(new_bytes.len());
        self.0[3 - new_bytes.len()..].copy_from_slice(new_bytes);
    }

    /// Returns the event in a form that may follow: an unfinished event before it is ended first.
    pub(super) fn separated(self, event: Bytes) -> Bytes {
        match self.0 {
            [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n'] => event,
            _ => Bytes::from([b"\n\n", &event[..]].concat()),
        }
    }
}

/// Returns one event with this JSON value as its data, or `None` if it is not JSON.
pub(super) fn data_event(json: &[u8]) -> Option<Bytes> {
    serde_json::from_slice::<serde::de::IgnoredAny>(json).ok()?;
    // Between JSON tokens a line end equals a space, and within a token there is none.
    let line = json.trim_ascii().iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte });
    Some(b"data: ".iter().copied().chain(line).chain(*b"\n\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(pieces: &[&str], ending: StreamEnd) -> (Vec<String>, bool) {
        let mut watch = StreamWatcher::new(ending);
        let mut ready = VecDeque::new();
        for piece in pieces {
            watch.take(&Bytes::copy_from_slice(piece.as_bytes()), &mut ready, |_, _| {});
        }
        (ready.iter().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect(), watch.has_end_mark())
    }

    #[test]
    fn whole_events_are_passed_on_unchanged() {
        let (out, ended) = through(&["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"], StreamEnd::Done);
        assert_eq!(out, ["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"]);
        assert!(ended);
    }

    #[test]
    fn half_an_event_is_held_until_its_end_arrives() {
        assert_eq!(through(&["data: 1\n\ndata: {\"hal"], StreamEnd::Done).0, ["data: 1\n\n"]);
        assert_eq!(
            through(&["data: {\"hal", "f\"}\n", "\ndata: 2\n\n"], StreamEnd::Done).0.concat(),
            "data: {\"half\"}\n\ndata: 2\n\n"
        );
        assert_eq!(through(&["data: 1\n", "\n"], StreamEnd::Done).0.concat(), "data: 1\n\n");
        assert_eq!(through(&["data: 1\r\n", "\r\n"], StreamEnd::Done).0.concat(), "data: 1\r\n\r\n");
        assert_eq!(through(&["data: 1\r\n", "\r", "\n"], StreamEnd::Done).0.concat(), "data: 1\r\n\r\n");
    }

    #[test]
    fn an_error_event_of_llama_server_ends_a_stream_too() {
        assert!(through(&["data: {\"error\":{}}\n\n"], StreamEnd::Done).1);
        assert!(!through(&["data: {\"choices\":[]}\n\n"], StreamEnd::Done).1);
        assert!(
            !through(&["data: {\"content\":\"say data: [DONE] now\"}\n\n"], StreamEnd::Done).1,
            "the mark is text of the model"
        );
        assert!(through(&["data: {}\n\ndata: [DONE]\n\n"], StreamEnd::Done).1);
        assert!(through(&["event: message_stop\ndata: {}\n\n"], StreamEnd::MessageStop).1);
    }

    #[test]
    fn the_end_of_a_stream_is_found_in_any_pieces() {
        for (stream, ending, error) in [
            ("data: {}\n\ndata: [DONE]\n\n", StreamEnd::Done, None),
            ("data: {}\r\n\r\ndata: [DONE]\r\n\r\n", StreamEnd::Done, None),
            ("data: {}\n\nevent: message_stop\ndata: {}\n\n", StreamEnd::MessageStop, None),
            (
                "data: {}\n\ndata: {\"error\":{\"message\":\"Compute error.\"}}\n\n",
                StreamEnd::Unmarked,
                Some(ComputeFailure::Confirmed),
            ),
            (
                "data: {}\n\nevent: error\ndata: {\"message\":\"Compute error.\"}\n\n",
                StreamEnd::MessageStop,
                Some(ComputeFailure::Confirmed),
            ),
        ] {
            let stream = Bytes::from_static(stream.as_bytes());
            for first in 1..stream.len() {
                for second in first + 1..stream.len() {
                    let (mut watch, mut ready) = (StreamWatcher::new(ending), VecDeque::new());
                    for piece in [0..first, first..second, second..stream.len()] {
                        watch.take(&stream.slice(piece), &mut ready, |_, _| {});
                    }
                    watch.flush(&mut ready);
                    assert!(watch.has_end_mark(), "{stream:?} {first} {second}");
                    assert_eq!(watch.error(), error, "{stream:?} {first} {second}");
                }
            }
        }
    }

    #[test]
    fn text_of_the_model_ends_no_stream_wherever_its_event_is_cut() {
        let event = "data: {\"content\":\"data: [DONE]\"}\n\n";
        for cut in 1..event.len() {
            assert!(!through(&[&event[..cut], &event[cut..]], StreamEnd::Done).1, "{cut}");
        }
    }

    #[test]
    fn an_event_longer_than_the_bound_is_passed_on_in_pieces() {
        let long = "x".repeat(MAX_BUFFERED_EVENT + 1);
        assert_eq!(through(&[&long], StreamEnd::Done).0.concat(), long);
    }

    #[test]
    fn an_event_that_was_sent_in_part_is_ended_before_another() {
        let before = |pieces: &[&str]| {
            let mut tail = SseTail::new();
            pieces.iter().for_each(|piece| tail.push(piece.as_bytes()));
            String::from_utf8(tail.separated(Bytes::from_static(b"x")).to_vec()).unwrap()
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

    #[test]
    fn marks_are_recognised_as_the_standard_spells_them() {
        for (stream, ending, error) in [
            ("data:[DONE]\n\n", StreamEnd::Done, None),
            ("data: [DONE]\r\r", StreamEnd::Done, None),
            ("\u{feff}data: [DONE]\n\n", StreamEnd::Done, None),
            ("event:message_stop\ndata:{}\n\n", StreamEnd::MessageStop, None),
            ("event:response.completed\r\ndata:{}\r\n\r\n", StreamEnd::ResponseDone, None),
            ("event: response.incomplete\n\n", StreamEnd::ResponseDone, None),
            ("data:{\"error\":{}}\n\n", StreamEnd::Done, Some(ComputeFailure::NotApplicable)),
            (
                "event:error\ndata:{\"message\":\"Compute error.\"}\n\n",
                StreamEnd::Done,
                Some(ComputeFailure::Confirmed),
            ),
            ("event:error\n\ndata: [DONE]\n\n", StreamEnd::Done, Some(ComputeFailure::NotApplicable)),
        ] {
            for cut in 0..stream.len() {
                let (mut watch, mut ready) = (StreamWatcher::new(ending), VecDeque::new());
                for piece in [&stream.as_bytes()[..cut], &stream.as_bytes()[cut..]] {
                    watch.take(&Bytes::copy_from_slice(piece), &mut ready, |_, _| {});
                }
                assert_eq!((watch.has_end_mark(), watch.error()), (true, error), "{stream:?} {cut}");
                assert_eq!(ready.iter().map(Bytes::len).sum::<usize>(), stream.len(), "{stream:?} {cut}");
            }
        }
        for other in ["data:  [DONE]\n\n", "dat: [DONE]\n\n", ": [DONE]\n\n", "event: [DONE]\n\n", " data: [DONE]\n\n"]
        {
            assert!(!through(&[other], StreamEnd::Done).1, "{other:?}");
        }
    }

    #[test]
    fn an_event_that_only_reports_tokens_is_dropped_wherever_it_is_cut() {
        let (text, done) = ("data: {\"choices\":[{\"index\":0,\"delta\":{}}]}\n\n", "data: [DONE]\n\n");
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
        for (stream, expected) in [
            ([text, usage, done].concat(), [text, done].concat()),
            ([usage, text, usage, usage, done].concat(), [text, done].concat()),
            ([text, done, usage].concat(), [text, done].concat()),
            ([text, usage.trim_end()].concat(), text.to_owned()),
            ([text, usage.trim_end(), "\n"].concat(), text.to_owned()),
        ] {
            for line_end in ["\n", "\r\n", "\r"] {
                let (stream, expected) = (stream.replace('\n', line_end), expected.replace('\n', line_end));
                for first in 0..stream.len() {
                    let (mut watch, mut ready) = (StreamWatcher::lenient(StreamEnd::Done, true), VecDeque::new());
                    for piece in [&stream.as_bytes()[..first], &stream.as_bytes()[first..]] {
                        watch.take(&Bytes::copy_from_slice(piece), &mut ready, |_, _| {});
                    }
                    watch.end(&mut ready);
                    let out = String::from_utf8(ready.into_iter().flatten().collect()).unwrap();
                    assert_eq!(out, expected, "{stream:?} {first}");
                    assert_eq!(watch.buffered_length, 0, "{stream:?} {first}");
                }
            }
        }
    }

    #[test]
    fn the_end_mark_counts_once_its_event_is_released() {
        let (mut watch, mut ready) = (StreamWatcher::new(StreamEnd::Done), VecDeque::new());
        watch.take(&Bytes::from_static(b"data: 1\n\ndata: [DONE]\n"), &mut ready, |_, _| {});
        assert!(ready.len() == 1 && !watch.has_end_mark());
        watch.flush(&mut ready);
        assert!(ready.len() == 2 && watch.has_end_mark(), "the body has ended regularly");
        let (mut watch, mut ready) = (StreamWatcher::new(StreamEnd::Done), VecDeque::new());
        watch.take(&Bytes::from_static(b"data: [DO"), &mut ready, |_, _| {});
        watch.take(&Bytes::from_static(b"NE]"), &mut ready, |_, _| {});
        assert!(ready.is_empty() && !watch.has_end_mark());
        watch.flush(&mut ready);
        assert!(watch.has_end_mark());
    }

    /// Texts that are streams, or nearly.
    fn stream() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            2 => proptest::sample::select(vec!["\n", "\n\n", "\r\n", "\r", "x", " ", "data: ", "event:"]),
            1 => proptest::sample::select(vec!["[DONE]", "error", "{\"error\":", "\"message\":\"Compute error.\""]),
        ];
        proptest::collection::vec(token, 0..16).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn the_end_of_a_stream_does_not_depend_on_its_pieces(text in stream(), cuts in proptest::collection::vec(0..60_usize, 0..6)) {
            let seen = |cuts: &[usize]| {
                let (mut watch, mut ready) = (StreamWatcher::new(StreamEnd::Done), VecDeque::new());
                for ends in cuts.windows(2) {
                    watch.take(&Bytes::copy_from_slice(&text.as_bytes()[ends[0]..ends[1]]), &mut ready, |_, _| {});
                }
                let released: Vec<u8> = ready.drain(..).flatten().collect();
                let before_the_end = (watch.has_end_mark(), watch.error());
                watch.flush(&mut ready);
                (released, before_the_end, watch.has_end_mark(), watch.error())
            };
            let mut all: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            all.sort_unstable();
            prop_assert_eq!(seen(&all), seen(&[0, text.len()]));
        }

        #[test]
        fn no_byte_is_lost_or_changed(pieces in proptest::collection::vec("[a\n\r]{0,6}", 0..20)) {
            let mut watch = StreamWatcher::new(StreamEnd::Done);
            let mut ready = VecDeque::new();
            for piece in &pieces {
                watch.take(&Bytes::copy_from_slice(piece.as_bytes()), &mut ready, |_, _| {});
            }
            watch.flush(&mut ready);
            let out: Vec<u8> = ready.iter().flat_map(|piece| piece.to_vec()).collect();
            prop_assert_eq!(out, pieces.concat().into_bytes());
        }
    }
}
