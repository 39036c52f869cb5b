//! The data of the event of a stream that is being read, up to a bound.
//!
//! Owns how the lines of an event become one text (HTML standard, section 9.2.6): joined by line feeds. `sse_framer.rs`
//! finds the lines; what the data mean is decided by those who read them.

use super::sse_framer::{SseField, SseLine};

/// The data of the unfinished event.
#[derive(Debug)]
pub(crate) struct EventData {
    bytes: Vec<u8>,
    /// Most bytes that are kept.
    longest: usize,
    is_too_long: bool,
}

impl EventData {
    /// Returns the data of an event that has not begun; an event may have up to `longest` bytes of them.
    pub(crate) fn bounded(longest: usize) -> Self {
        Self { bytes: Vec::new(), longest, is_too_long: false }
    }

    /// Adds a line of the event, or a piece of one. Of lines with other fields nothing is kept.
    pub(crate) fn add(&mut self, line: &SseLine<'_>) {
        if line.field != SseField::Data || self.is_too_long {
            return;
        }
        let joins = line.begins && !self.bytes.is_empty();
        self.is_too_long = self.bytes.len() + usize::from(joins) + line.value.len() > self.longest;
        if self.is_too_long {
            return;
        }
        if joins {
            self.bytes.push(b'\n');
        }
        self.bytes.extend_from_slice(line.value);
    }

    /// Returns what has come of the data; `None` if they are longer than the bound.
    pub(crate) fn so_far(&self) -> Option<&[u8]> {
        (!self.is_too_long).then_some(&self.bytes)
    }

    /// Begins the next event. Keeps the memory for it.
    pub(crate) fn begin_event(&mut self) {
        self.bytes.clear();
        self.is_too_long = false;
    }

    /// Returns the number of bytes that are kept.
    #[cfg(test)]
    pub(crate) fn length(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sse_framer::{SseFramer, SseStep};
    use super::*;

    /// Returns the data of each event that ends in a stream in these pieces.
    fn events(pieces: &[&[u8]], longest: usize) -> Vec<Option<String>> {
        let (mut framer, mut data, mut events) = (SseFramer::new(), EventData::bounded(longest), Vec::new());
        for piece in pieces {
            let mut at = 0;
            while let Some(step) = framer.next(piece, &mut at) {
                match step {
                    SseStep::Line(line) => data.add(&line),
                    SseStep::EventEnd(_) => {
                        events.push(data.so_far().map(|data| String::from_utf8_lossy(data).into_owned()));
                        data.begin_event();
                    }
                    SseStep::LineFeed => {}
                }
                assert!(data.length() <= longest);
            }
        }
        events
    }

    #[test]
    fn lines_of_data_are_joined_and_others_are_left_out() {
        let stream = b"event: x\ndata: a\ndata: b\nid: 7\n\n: hi\n\ndata:\ndata: c\n\n";
        let expected = [Some("a\nb"), Some(""), Some("c")].map(|data| data.map(str::to_owned));
        assert_eq!(events(&[stream], 9), expected);
    }

    #[test]
    fn data_longer_than_the_bound_are_not_kept_and_the_next_event_is_read() {
        let stream = b"data: 12345\n\ndata: 1\ndata: 34\n\ndata: 1234\n\n";
        let expected = [None, Some("1\n34"), Some("1234")].map(|data| data.map(str::to_owned));
        assert_eq!(events(&[stream], 4), expected);
        assert_eq!(events(&[b"data: 1\ndata: 345\n\n"], 4), [None], "the line feed counts");
        // A later, shorter piece of an event that is too long is not kept either.
        assert_eq!(events(&[b"data: 12345", b"6\n\n"], 4), [None]);
    }

    proptest! {
        #[test]
        fn the_data_do_not_depend_on_the_pieces(
            lines in proptest::collection::vec(
                proptest::sample::select(vec!["data: a", "data:bcdef", "event: c", "", "", ": d", "data"]), 0..20
            ),
            longest in 0..9_usize,
            cuts in proptest::collection::vec(0..120_usize, 0..5),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
            prop_assert_eq!(events(&pieces, longest), events(&[text.as_bytes()], longest));
        }
    }
}
