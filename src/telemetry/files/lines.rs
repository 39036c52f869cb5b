//! The output lines of a child process: copied from its pipe to a writer; the last lines are kept for hints after a
//! crash.
//!
//! Every line is bounded, so output without line ends cannot exhaust memory.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Number of lines that are kept of a child process's output.
pub const TAIL_LINES: usize = 200;
/// Maximum length of a line that is written or kept, in bytes; a longer line is cut, and ` [cut]` is appended.
pub const MAX_LOG_LINE: usize = 16 << 10;
/// Appended to a line that was cut.
const CUT: &str = " [cut]";
const READ_BUFFER: usize = 8 << 10;

/// The last [`TAIL_LINES`] lines of a child process.
#[derive(Debug, Default)]
pub struct LogTail {
    lines: VecDeque<String>,
    progress_bytes: u64,
    /// Dots at the beginning of the unfinished line.
    dots: u64,
}

impl LogTail {
    /// Adds a line and drops the oldest one beyond the bound. Invalid UTF-8 is replaced; empty lines are skipped.
    pub fn push(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        let mut text = String::from_utf8_lossy(&line[..line.len().min(MAX_LOG_LINE)]).into_owned();
        // Replacement characters are longer than the bytes that they replace.
        let cut = text.len().min(MAX_LOG_LINE);
        let cut = (0..=cut).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(cut);
        if line.len() > MAX_LOG_LINE {
            text.push_str(CUT);
        }
        self.lines.push_back(text);
    }

    /// Returns the lines, oldest first.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Returns the number of bytes that count as progress: those of all lines so far that were signs of life, including
    /// lines that are no longer kept. Leading dots count in every line, even before the line ends, because programs
    /// print them as progress bars.
    pub fn progress_bytes(&self) -> u64 {
        self.progress_bytes + self.dots
    }

    fn count(&mut self, line: &Line, is_sign_of_life: bool) {
        self.progress_bytes += if is_sign_of_life { line.length } else { line.dots() };
    }
}

/// Copies the lines of `reader` to `writer` and into `tail` until the end of the stream. `observe` is called for each
/// line and returns whether the line is a sign of life.
///
/// `writer` must not block. A line that it refuses is dropped, because the child must never wait for a log.
pub async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl Write,
    tail: Arc<Mutex<LogTail>>,
    mut observe: impl FnMut(&[u8]) -> bool,
) {
    let mut buffer = vec![0; READ_BUFFER];
    let mut line = Line::default();
    // A read error is treated like the end of the stream.
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

/// The current, unfinished line. It holds one byte more than the bound, which shows that the line was longer.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    /// Length of the line so far in bytes, including those beyond the bound.
    length: u64,
}

impl Line {
    fn extend(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let remaining = MAX_LOG_LINE + 1 - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(remaining)]);
    }

    fn dots(&self) -> u64 {
        self.bytes.iter().take_while(|byte| **byte == b'.').count() as u64
    }

    fn finish(&mut self, writer: &mut impl Write, tail: &mut LogTail, observe: &mut impl FnMut(&[u8]) -> bool) {
        // Line ends may be CRLF.
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
        // One write per line: a writer that is a queue takes each write as one message.
        let _ = writer.write_all(&self.bytes);
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn pump_all(input: &[u8]) -> (Vec<u8>, Vec<String>) {
        let tail = Arc::new(Mutex::new(LogTail::default()));
        let mut output = Vec::new();
        let mut observed = Vec::new();
        pump(input, &mut output, Arc::clone(&tail), |line| {
            observed.push(line.len());
            true
        })
        .await;
        let tail = tail.lock().unwrap();
        assert_eq!(
            observed.iter().filter(|length| **length > 0).count(),
            tail.lines().count(),
            "each line is observed once"
        );
        let lines = tail.lines().map(str::to_owned).collect();
        (output, lines)
    }

    #[tokio::test]
    async fn lines_reach_writer_and_tail() {
        let (output, lines) = pump_all(b"one\r\n\ntwo\nno end").await;
        assert_eq!(output, b"one\n\ntwo\nno end\n");
        assert_eq!(lines, ["one", "two", "no end"]);
    }

    #[tokio::test]
    async fn a_megabyte_without_a_line_end_is_cut() {
        let mut input = vec![b'x'; 1 << 20];
        input.extend(b"\nnext\n");
        let (output, lines) = pump_all(&input).await;
        assert_eq!(output.len(), MAX_LOG_LINE + CUT.len() + 1 + "next\n".len());
        assert!(output.ends_with(b"xx [cut]\nnext\n"));
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("xx [cut]"));
        assert_eq!(lines[1], "next");
    }

    #[tokio::test]
    async fn a_line_of_just_the_bound_is_whole() {
        let input = [vec![b'x'; MAX_LOG_LINE], b"\n".to_vec()].concat();
        assert_eq!(pump_all(&input).await.0, input);
    }

    #[tokio::test]
    async fn a_writer_that_refuses_does_not_stop_the_pump() {
        let tail = Arc::new(Mutex::new(LogTail::default()));
        let mut full_writer: &mut [u8] = &mut [];
        pump(&b"one\ntwo\n"[..], &mut full_writer, Arc::clone(&tail), |_| true).await;
        assert_eq!(tail.lock().unwrap().lines().count(), 2);
    }

    #[tokio::test]
    async fn lines_that_are_no_sign_of_life_are_kept_but_do_not_count() {
        let tail = Arc::new(Mutex::new(LogTail::default()));
        let input = [b"live\n\n".to_vec(), vec![b'e'; 1 << 20], b"\nalive\n..echo\n".to_vec()].concat();
        pump(&input[..], Vec::new(), Arc::clone(&tail), |line| !line.contains(&b'e') || line.contains(&b'v')).await;
        let tail = tail.lock().unwrap();
        assert_eq!((tail.progress_bytes(), tail.lines().count()), ("livealive..".len() as u64, 4));
    }

    #[tokio::test]
    async fn dots_count_before_their_line_ends_and_other_text_does_not() {
        let (mut writer, reader) = tokio::io::duplex(1024);
        let tail = Arc::new(Mutex::new(LogTail::default()));
        let pumping = pump(reader, Vec::new(), Arc::clone(&tail), |_| false);
        let mut pumping = std::pin::pin!(pumping);
        let mut progress_after = async |piece: &[u8]| {
            writer.write_all(piece).await.unwrap();
            tokio::select! {
                biased;
                () = &mut pumping => panic!("the pipe is open"),
                () = std::future::ready(()) => {}
            }
            tail.lock().unwrap().progress_bytes()
        };
        assert_eq!(progress_after(b"...").await, 3);
        assert_eq!(progress_after(b"..").await, 5);
        assert_eq!(progress_after(b"GET /").await, 5);
        assert_eq!(progress_after(b"health\n.").await, 6);
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
