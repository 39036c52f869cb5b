//! Lines of a child process: pumped from its pipe into a writer, the last of them kept for hints after a crash.
//!
//! Every line has a bound, so output without line ends cannot grow memory.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Lines kept of what a child process said last.
pub const TAIL_LINES: usize = 200;
/// Longest line that is written or kept, in bytes; of a longer one the beginning stays, with ` [cut]` after it.
pub const MAX_LOG_LINE: usize = 16 << 10;
/// Stands at the end of a line that was cut.
const CUT: &str = " [cut]";
const READ_BUFFER: usize = 8 << 10;

/// The last [`TAIL_LINES`] lines of a child process.
#[derive(Debug, Default)]
pub struct LogTail {
    lines: VecDeque<String>,
    heard: u64,
    /// At the beginning of a line that has no end yet.
    dots: u64,
}

impl LogTail {
    /// Remembers a line and forgets the oldest beyond the bound. Bytes that are not UTF-8 are replaced, empty lines left out.
    pub fn push(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        let mut text = String::from_utf8_lossy(&line[..line.len().min(MAX_LOG_LINE)]).into_owned();
        // Replaced bytes are longer than they were.
        let cut = text.len().min(MAX_LOG_LINE);
        let cut = (0..=cut).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(cut);
        if line.len() > MAX_LOG_LINE {
            text.push_str(CUT);
        }
        self.lines.push_back(text);
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// How many bytes the lines that are a sign of life had, those forgotten included. Dots at the beginning of a line count in any line, and before the line ends:
    /// programs show by them how far they are.
    pub fn heard(&self) -> u64 {
        self.heard + self.dots
    }

    fn count(&mut self, line: &Line, is_sign_of_life: bool) {
        self.heard += if is_sign_of_life { line.length } else { line.dots() };
    }
}

/// Writes the lines of `reader` to `writer` and into `tail` until the end of the stream. Each is shown to `observe`, which
/// tells whether it is a sign of life.
///
/// `writer` must not block; a line that it refuses is dropped, for the child must never wait for a log.
pub async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl Write,
    tail: Arc<Mutex<LogTail>>,
    mut observe: impl FnMut(&[u8]) -> bool,
) {
    let mut buffer = vec![0; READ_BUFFER];
    let mut line = Line::default();
    // A pipe that fails has as little to say as one that ended.
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = &buffer[..count];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            line.extend(&rest[..end]);
            line.finish(&mut writer, &mut tail, &mut observe);
            rest = &rest[end + 1..];
        }
        line.extend(rest);
        tail.dots = line.dots();
    }
    if !line.bytes.is_empty() {
        line.finish(&mut writer, &mut tail.lock().unwrap_or_else(PoisonError::into_inner), &mut observe);
    }
    let _ = writer.flush();
}

/// A line in the making. It holds one byte more than the bound: that byte tells that the line was longer.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    /// Bytes of it so far, those beyond the bound included.
    length: u64,
}

impl Line {
    fn extend(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let room = MAX_LOG_LINE + 1 - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn dots(&self) -> u64 {
        self.bytes.iter().take_while(|byte| **byte == b'.').count() as u64
    }

    fn finish(&mut self, writer: &mut impl Write, tail: &mut LogTail, observe: &mut impl FnMut(&[u8]) -> bool) {
        if self.bytes.last() == Some(&b'\r') {
            self.bytes.pop();
        }
        tail.count(self, observe(&self.bytes));
        tail.push(&self.bytes);
        self.length = 0;
        if self.bytes.len() > MAX_LOG_LINE {
            self.bytes.truncate(MAX_LOG_LINE);
            self.bytes.extend_from_slice(CUT.as_bytes());
        }
        self.bytes.push(b'\n');
        // One write for one line: a writer that is a queue takes each as a message.
        let _ = writer.write_all(&self.bytes);
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn pumped(input: &[u8]) -> (Vec<u8>, Vec<String>) {
        let tail = Arc::new(Mutex::new(LogTail::default()));
        let mut output = Vec::new();
        let mut observed = Vec::new();
        pump(input, &mut output, Arc::clone(&tail), |line| {
            observed.push(line.len());
            true
        })
        .await;
        let tail = tail.lock().unwrap();
        assert_eq!(observed.iter().filter(|length| **length > 0).count(), tail.lines().count(), "each line, and once");
        let lines = tail.lines().map(str::to_owned).collect();
        (output, lines)
    }

    #[tokio::test]
    async fn lines_reach_writer_and_tail() {
        let (output, lines) = pumped(b"one\r\n\ntwo\nno end").await;
        assert_eq!(output, b"one\n\ntwo\nno end\n");
        assert_eq!(lines, ["one", "two", "no end"]);
    }

    #[tokio::test]
    async fn a_megabyte_without_a_line_end_is_cut() {
        let mut input = vec![b'x'; 1 << 20];
        input.extend(b"\nnext\n");
        let (output, lines) = pumped(&input).await;
        assert_eq!(output.len(), MAX_LOG_LINE + CUT.len() + 1 + "next\n".len());
        assert!(output.ends_with(b"xx [cut]\nnext\n"));
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("xx [cut]"));
        assert_eq!(lines[1], "next");
    }

    #[tokio::test]
    async fn a_line_of_just_the_bound_is_whole() {
        let input = [vec![b'x'; MAX_LOG_LINE], b"\n".to_vec()].concat();
        assert_eq!(pumped(&input).await.0, input);
    }

    #[tokio::test]
    async fn a_writer_that_refuses_does_not_stop_the_pump() {
        let tail = Arc::new(Mutex::new(LogTail::default()));
        let mut nothing: &mut [u8] = &mut [];
        pump(&b"one\ntwo\n"[..], &mut nothing, Arc::clone(&tail), |_| true).await;
        assert_eq!(tail.lock().unwrap().lines().count(), 2);
    }

    #[tokio::test]
    async fn what_is_no_sign_of_life_is_kept_and_does_not_count() {
        let tail = Arc::new(Mutex::new(LogTail::default()));
        let input = [b"live\n\n".to_vec(), vec![b'e'; 1 << 20], b"\nalive\n..echo\n".to_vec()].concat();
        pump(&input[..], Vec::new(), Arc::clone(&tail), |line| !line.contains(&b'e') || line.contains(&b'v')).await;
        let tail = tail.lock().unwrap();
        assert_eq!((tail.heard(), tail.lines().count()), ("livealive..".len() as u64, 4));
    }

    #[tokio::test]
    async fn dots_count_before_their_line_ends_and_other_pieces_do_not() {
        let (mut writer, reader) = tokio::io::duplex(1024);
        let tail = Arc::new(Mutex::new(LogTail::default()));
        let pumping = pump(reader, Vec::new(), Arc::clone(&tail), |_| false);
        let mut pumping = std::pin::pin!(pumping);
        let mut heard_after = async |piece: &[u8]| {
            writer.write_all(piece).await.unwrap();
            tokio::select! {
                biased;
                () = &mut pumping => panic!("the pipe is open"),
                () = std::future::ready(()) => {}
            }
            tail.lock().unwrap().heard()
        };
        assert_eq!(heard_after(b"...").await, 3);
        assert_eq!(heard_after(b"..").await, 5);
        assert_eq!(heard_after(b"GET /").await, 5);
        assert_eq!(heard_after(b"health\n.").await, 6);
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut tail = LogTail::default();
        for number in 0..TAIL_LINES + 5 {
            tail.push(number.to_string().as_bytes());
        }
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert_eq!(tail.lines().next(), Some("5"));
        tail.push(&vec![0xff; 1 << 20]);
        assert!(tail.lines().next_back().unwrap().len() <= MAX_LOG_LINE + CUT.len());
    }
}
