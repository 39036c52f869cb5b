//! What is sent after the pieces of a stream: a last event, in a form that may follow what has been sent.

use bytes::Bytes;

/// The last three bytes that were sent, which show whether they ended an event.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway::response) struct SseTail([u8; 3]);

impl SseTail {
    /// The state before anything is sent.
    pub(in crate::gateway::response) fn new() -> Self {
        Self(*b"\n\n\n")
    }

    /// Records that these bytes were sent.
    pub(in crate::gateway::response) fn push(&mut self, piece: &[u8]) {
        match piece.last_chunk() {
            Some(last) => self.0 = *last,
            None => {
                self.0.rotate_left(piece.len());
                self.0[3 - piece.len()..].copy_from_slice(piece);
            }
        }
    }

    /// Returns the event in a form that may follow: an unfinished event before it is ended first.
    pub(in crate::gateway::response) fn separated(self, event: Bytes) -> Bytes {
        match self.0 {
            [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n'] => event,
            _ => Bytes::from([b"\n\n", &event[..]].concat()),
        }
    }
}

/// Returns one event with this JSON value as its data, or `None` if it is not JSON.
pub(in crate::gateway::response) fn data_event(json: &[u8]) -> Option<Bytes> {
    serde_json::from_slice::<serde::de::IgnoredAny>(json).ok()?;
    // Between JSON tokens a line end equals a space, and within a token there is none.
    let line = json.trim_ascii().iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte });
    Some(b"data: ".iter().copied().chain(line).chain(*b"\n\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
