//! A stream of events as Ollama's clients read it: lines of JSON.
//!
//! Stands between `stream/watcher.rs`, which releases whole events, and the client. Owns the cutting into events and the bound on an
//! unfinished one. What a line says is decided in `dialect/ollama/`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;

use crate::dialect::ollama::{AnswerWriter, Moment, OllamaForm};
use crate::gateway::bounds::LINE_EVENT;
use crate::gateway::scan::event_data::EventData;
use crate::gateway::scan::sse_framer::{SseFramer, SseStep};

/// How the lines of a response are written.
#[derive(Clone)]
pub(crate) struct LineForm {
    /// Which of Ollama's answers the client reads.
    pub(crate) form: OllamaForm,
    /// The model as the client names it.
    pub(crate) model: Arc<str>,
    /// When the request arrived.
    pub(crate) started: Instant,
    /// Dropped once the response has ended.
    pub(crate) end_guard: Option<Arc<dyn Send + Sync>>,
}

impl LineForm {
    /// Returns the writer of one answer.
    pub(crate) fn writer(&self) -> AnswerWriter {
        AnswerWriter::new(self.form, &*self.model)
    }
}

/// Returns this moment, for a request that arrived at `started`.
pub(crate) fn moment_since(started: Instant) -> Moment {
    Moment { at: Timestamp::now(), elapsed: started.elapsed() }
}

/// A stream that becomes lines.
pub(super) struct LineStream {
    writer: AnswerWriter,
    started: Instant,
    framer: SseFramer,
    /// The data of the unfinished event, up to [`LINE_EVENT`].
    data: EventData,
    _end_guard: Option<Arc<dyn Send + Sync>>,
}

impl LineStream {
    pub(super) fn new(lines: LineForm) -> Self {
        Self {
            writer: lines.writer(),
            started: lines.started,
            framer: SseFramer::new(),
            data: EventData::bounded(LINE_EVENT),
            _end_guard: lines.end_guard,
        }
    }

    /// Replaces the pieces in `ready` by the lines for the events that end in them.
    pub(super) fn take(&mut self, ready: &mut VecDeque<Bytes>) {
        let mut out = Vec::new();
        for piece in ready.drain(..) {
            self.take_piece(&piece, &mut out);
        }
        if !out.is_empty() {
            ready.push_back(out.into());
        }
    }

    /// Handles the regular end of the stream, at which every answer is whole.
    pub(super) fn end(&mut self, ready: &mut VecDeque<Bytes>) {
        let mut out = Vec::new();
        self.end_event(&mut out);
        self.writer.write_end(moment_since(self.started), &mut out);
        if !out.is_empty() {
            ready.push_back(out.into());
        }
    }

    fn take_piece(&mut self, piece: &Bytes, out: &mut Vec<u8>) {
        let mut at = 0;
        while let Some(step) = self.framer.next(piece, &mut at) {
            match step {
                SseStep::Line(line) => self.data.add(&line),
                SseStep::LineFeed => {}
                SseStep::EventEnd(_) => self.end_event(out),
            }
        }
    }

    fn end_event(&mut self, out: &mut Vec<u8>) {
        match self.data.so_far() {
            Some(data) => self.writer.write_event(data, moment_since(self.started), out),
            None => {
                let message =
                    format!("The backend's answer cannot be used: an event is longer than {LINE_EVENT} bytes");
                self.writer.fail(&message, out);
            }
        }
        self.data.begin_event();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(pieces: &[&[u8]]) -> Vec<serde_json::Value> {
        let lines = LineForm { form: OllamaForm::Chat, model: "m".into(), started: Instant::now(), end_guard: None };
        let (mut stream, mut out) = (LineStream::new(lines), Vec::new());
        for piece in pieces {
            let mut ready = VecDeque::from([Bytes::copy_from_slice(piece)]);
            stream.take(&mut ready);
            out.extend(ready.into_iter().flatten());
            assert!(stream.data.length() <= LINE_EVENT);
        }
        let mut ready = VecDeque::new();
        stream.end(&mut ready);
        out.extend(ready.into_iter().flatten());
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines = lines.map(|line| {
            let mut line: serde_json::Value = serde_json::from_slice(line).unwrap();
            for measured in ["created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
                line.as_object_mut().unwrap().remove(measured);
            }
            line
        });
        let lines: Vec<_> = lines.collect();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), lines.len(), "no line is empty");
        lines
    }

    const STREAM: &str = concat!(
        ": a comment\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"llo\"}}]}\n\n",
        "event: x\ndata: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn a_stream_that_is_cut_at_any_byte_gives_the_same_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = STREAM.replace('\n', end);
            let whole = through(&[stream.as_bytes()]);
            assert_eq!((whole.len(), &whole[0]["message"]["content"]), (4, &"Hé".into()));
            for cut in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(cut);
                assert_eq!(through(&[first, second]), whole, "{cut}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(through(&bytes), whole);
            // The blank line after the last event may be missing.
            assert_eq!(through(&[stream.trim_end().as_bytes()]), whole);
        }
    }

    #[test]
    fn an_event_longer_than_the_bound_is_an_error() {
        let long = format!("data: \"{}\"\n\ndata: [DONE]\n\n", "x".repeat(LINE_EVENT));
        for size in [1000, LINE_EVENT / 2, long.len()] {
            let pieces: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
            let lines = through(&pieces);
            assert!(lines.len() == 1 && lines[0]["error"].is_string(), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().chain([0, STREAM.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &STREAM.as_bytes()[ends[0]..ends[1]]).collect();
            prop_assert_eq!(through(&pieces), through(&[STREAM.as_bytes()]));
        }
    }
}
