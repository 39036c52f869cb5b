//! Answers that are server-sent events, as the HTML standard describes them (section 9.2).

use std::collections::VecDeque;
use std::time::Duration;

use super::error::CallError;
use crate::http_client::Response;
use crate::pause_clock::ActiveInstant;

/// Longest silence of a stream. A service sends a comment from time to time; other servers may compute for long.
const LONGEST_SILENCE: Duration = Duration::from_secs(60 * 60);
/// Bytes that one event may have.
const LARGEST_EVENT: usize = 16 * 1024 * 1024;

/// A stream of events. Dropping it ends the request.
#[derive(Debug)]
pub(in crate::cli) struct EventStream {
    response: Response,
    host: String,
    decoder: EventDecoder,
}

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct StreamedEvent {
    /// `event:`; empty if there is none.
    pub(in crate::cli) name: String,
    /// `id:`, if the event has one.
    pub(in crate::cli) id: Option<String>,
    /// `data:`, its lines joined.
    pub(in crate::cli) data: String,
}

impl EventStream {
    pub(super) fn new(response: Response, host: String) -> Self {
        Self { response, host, decoder: EventDecoder::default() }
    }

    /// Waits for the next event. Returns `None` at the end of the stream; an event that broke off is none.
    ///
    /// # Errors
    /// [`CallError::Broken`] if the connection breaks, or the stream is silent for [`LONGEST_SILENCE`].
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<StreamedEvent>, CallError> {
        loop {
            if let Some(event) = self.decoder.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = self.response.next_chunk(ActiveInstant::now() + LONGEST_SILENCE).await;
            match chunk.map_err(|error| CallError::Broken(error.explain(&self.host)))? {
                Some(bytes) => self.decoder.push(&bytes)?,
                None => return Ok(None),
            }
        }
    }
}

/// Makes events of bytes that arrive in pieces.
#[derive(Debug, Default)]
struct EventDecoder {
    /// The line that has not ended yet.
    line: Vec<u8>,
    event: StreamedEvent,
    has_data: bool,
    /// Whether the last byte was a carriage return, after which a line feed ends no further line.
    after_return: bool,
    ready: VecDeque<StreamedEvent>,
}

impl EventDecoder {
    fn push(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => self.end_line(),
                other => self.line.push(*other),
            }
            self.after_return = *byte == b'\r';
            if self.line.len() + self.event.data.len() > LARGEST_EVENT {
                return Err(CallError::Broken(format!("an event of the stream has more than {LARGEST_EVENT} bytes")));
            }
        }
        Ok(())
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment, or a field that means nothing here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = ": hello\r\nevent: state\r\nid: 7\r\ndata: {\"a\":1}\r\ndata:more\r\n\r\n\rdata: é\n\ndata: cut";

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<StreamedEvent> {
        let mut decoder = EventDecoder::default();
        pieces.into_iter().for_each(|piece| decoder.push(piece).unwrap());
        decoder.ready.into()
    }

    #[test]
    fn events_have_names_ids_and_joined_lines_and_one_that_broke_off_is_none() {
        let event = |name: &str, id: Option<&str>, data: &str| StreamedEvent {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        assert_eq!(decode([TEXT.as_bytes()]), [event("state", Some("7"), "{\"a\":1}\nmore"), event("", None, "é")]);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_events(size in 1_usize..40) {
            prop_assert_eq!(decode(TEXT.as_bytes().chunks(size)), decode([TEXT.as_bytes()]));
        }
    }
}
