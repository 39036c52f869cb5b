//! Answers that are server-sent events, as the HTML standard describes them (section 9.2).

use std::collections::VecDeque;
use std::time::Duration;

use super::error::CallError;
use crate::http_client::{HttpError, Response};
use crate::pause_clock::ActiveInstant;

/// Longest silence of a feed: the service sends a comment every 15 s, so three are missing. A link that has died without a
/// word is noticed by nothing else.
const LONGEST_SILENCE: Duration = Duration::from_secs(45);
/// Bytes that one event may have.
const LARGEST_EVENT: usize = 16 * 1024 * 1024;

/// A stream of events. Dropping it ends the request.
#[derive(Debug)]
pub(in crate::cli) struct EventStream {
    response: Response,
    host: String,
    decoder: EventDecoder,
    longest_silence: Duration,
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
        Self { response, host, decoder: EventDecoder::default(), longest_silence: LONGEST_SILENCE }
    }

    /// Returns the stream with another limit on the time without a byte, for servers that compute for long in silence.
    pub(in crate::cli) fn with_longest_silence(self, longest_silence: Duration) -> Self {
        Self { longest_silence, ..self }
    }

    /// Waits for the next event. Returns `None` at the end of the stream; an event that broke off is none.
    ///
    /// # Errors
    /// [`CallError::Broken`] if the connection breaks, or the stream is silent for too long.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<StreamedEvent>, CallError> {
        loop {
            if let Some(event) = self.decoder.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = self.response.next_chunk(ActiveInstant::now() + self.longest_silence).await;
            match chunk.map_err(|error| self.broken(&error))? {
                Some(bytes) => self.decoder.push(&bytes)?,
                None => return Ok(None),
            }
        }
    }

    fn broken(&self, error: &HttpError) -> CallError {
        CallError::Broken(match error {
            HttpError::TimedOut => {
                format!("{} has sent nothing for {:?}: the connection is lost", self.host, self.longest_silence)
            }
            error => error.explain(&self.host),
        })
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

/// Returns the name, the id and the data of each event of a stream that arrives in these pieces, for fuzzing.
#[cfg(feature = "test-support")]
pub(crate) fn decode_events(pieces: &[&[u8]]) -> Vec<(String, Option<String>, String)> {
    let mut decoder = EventDecoder::default();
    let is_read = pieces.iter().try_for_each(|piece| decoder.push(piece)).is_ok();
    debug_assert!(is_read, "no event of a test is too large");
    decoder.ready.into_iter().map(|event| (event.name, event.id, event.data)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::Trust;
    use crate::http_client::{ClientOptions, HttpClient};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

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

    /// A link that had died was shown as alive for an hour.
    #[tokio::test]
    async fn a_stream_that_stays_silent_is_told_to_be_lost() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let options = ClientOptions {
            connect_timeout: LONGEST_SILENCE,
            keep_idle: None,
            follow_redirects: false,
            use_proxy: false,
        };
        let client = HttpClient::new(&Trust::Machine.for_addresses([url.as_str()]), &options).unwrap();
        let request = http::Request::get(url).body(bytes::Bytes::new()).unwrap();
        let answer = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            // An answer before the question is refused.
            assert!(connection.read(&mut [0; 4096]).await.unwrap() > 0);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            connection.write_all(format!("{head}data: 1\n\n: a comment\n").as_bytes()).await.unwrap();
            connection
        };
        let (response, _silent) = tokio::join!(client.send(request, LONGEST_SILENCE), answer);
        let stream = EventStream::new(response.unwrap(), "gpu-box".to_owned());
        let mut stream = stream.with_longest_silence(Duration::from_millis(300));
        assert_eq!(stream.next().await.unwrap().unwrap().data, "1");
        let fault = stream.next().await.unwrap_err().to_string();
        assert_eq!(fault, "gpu-box has sent nothing for 300ms: the connection is lost");
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_events(size in 1_usize..40) {
            prop_assert_eq!(decode(TEXT.as_bytes().chunks(size)), decode([TEXT.as_bytes()]));
        }
    }
}
