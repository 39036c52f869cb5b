//! The end of a log, and what is written after it, over the rotation of its files. All of it blocks on the disk.
//!
//! Owns the bytes; who may read them, and how often, is decided elsewhere.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use crate::gateway::live_api::bounds::LOG_BYTES;
use crate::telemetry::files::LogFolder;

/// A reader of what is written to a log from now on.
pub(in crate::gateway::live_api) struct LogReader {
    folder: LogFolder,
    /// The open file and its name; `None` while there is none.
    file: Option<(String, File)>,
    /// A line that is not finished.
    rest: Vec<u8>,
}

/// What a reader has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::gateway::live_api) struct NewLines {
    /// Whole lines.
    pub(in crate::gateway::live_api) text: Vec<u8>,
    /// Bytes before them that are left out, because there were too many.
    pub(in crate::gateway::live_api) left_out: u64,
}

/// Returns the last lines of a log, at most [`LOG_BYTES`], and a reader of what follows. Lines of earlier files are used
/// where the newest has too few.
///
/// # Errors
/// A file cannot be read.
pub(in crate::gateway::live_api) fn last_lines(folder: &LogFolder, lines: usize) -> io::Result<(Vec<u8>, LogReader)> {
    let mut reader = LogReader { folder: folder.clone(), file: None, rest: Vec::new() };
    let mut pieces = VecDeque::new();
    let (mut lines_left, mut bytes_left) = (lines, LOG_BYTES);
    for name in folder.recent() {
        let mut file = match File::open(folder.dir().join(&name)) {
            Ok(file) => file,
            // Deleted in the meantime: there are too many files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut piece = end_of(&mut file, bytes_left)?;
        if reader.file.is_none() {
            let end = memchr::memrchr(b'\n', &piece).map_or(0, |end| end + 1);
            reader.rest = piece.split_off(end);
            reader.file = Some((name, file));
        }
        if piece.last().is_some_and(|last| *last != b'\n') {
            // No more comes of it.
            piece.push(b'\n');
        }
        let piece = keep_lines(piece, lines_left);
        lines_left -= memchr::memchr_iter(b'\n', &piece).count().min(lines_left);
        bytes_left -= piece.len().min(bytes_left);
        pieces.push_front(piece);
        if lines_left == 0 || bytes_left == 0 {
            break;
        }
    }
    Ok((pieces.into_iter().flatten().collect(), reader))
}

/// Returns whole lines with the one that is not finished yet, within the same bounds.
pub(in crate::gateway::live_api) fn with_unfinished(mut text: Vec<u8>, unfinished: &[u8], lines: usize) -> Vec<u8> {
    if unfinished.is_empty() || lines == 0 {
        return text;
    }
    text = keep_lines(text, lines - 1);
    let too_many = (text.len() + unfinished.len()).saturating_sub(LOG_BYTES);
    if too_many > 0 {
        let cut = too_many.min(text.len());
        // Up to the end of the line that is cut.
        let end = memchr::memchr(b'\n', &text[cut..]).map_or(text.len(), |end| cut + end + 1);
        text.drain(..end);
    }
    text.extend_from_slice(unfinished);
    text
}

impl LogReader {
    /// Returns the line that is not finished yet.
    pub(in crate::gateway::live_api) fn unfinished(&self) -> &[u8] {
        &self.rest
    }

    /// Returns the whole lines that were written since the last call. Goes on in the next file where there is one.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(in crate::gateway::live_api) fn read_new(&mut self) -> io::Result<NewLines> {
        let mut new = NewLines::default();
        loop {
            // Found before the read: what is written to the present file until then is not missed.
            let next = self.folder.file_after(self.file.as_ref().map(|(name, _)| name.as_str()));
            self.read_on(&mut new)?;
            let Some(name) = next else { break };
            if !self.rest.is_empty() {
                // No more comes of it.
                self.rest.push(b'\n');
                new.text.append(&mut self.rest);
            }
            match File::open(self.folder.dir().join(&name)) {
                Ok(file) => self.file = Some((name, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
            cut(&mut new);
        }
        cut(&mut new);
        Ok(new)
    }

    /// Reads the open file to its end.
    fn read_on(&mut self, new: &mut NewLines) -> io::Result<()> {
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        let (at, size) = (file.stream_position()?, file.metadata()?.size());
        let waiting = size.saturating_sub(at);
        if size < at {
            // Another program has emptied it.
            file.seek(SeekFrom::Start(0))?;
        } else if waiting > LOG_BYTES as u64 {
            let skipped = waiting - LOG_BYTES as u64;
            file.seek(SeekFrom::Start(at + skipped))?;
            new.left_out += skipped + (new.text.len() + self.rest.len()) as u64;
            new.text.clear();
            self.rest.clear();
        }
        file.take(LOG_BYTES as u64).read_to_end(&mut self.rest)?;
        let end = memchr::memrchr(b'\n', &self.rest).map_or(0, |end| end + 1);
        new.text.extend(self.rest.drain(..end));
        if self.rest.len() > LOG_BYTES {
            new.left_out += self.rest.len() as u64;
            self.rest.clear();
        }
        Ok(())
    }
}

/// Leaves out the first lines of more than [`LOG_BYTES`].
fn cut(new: &mut NewLines) {
    let surplus = new.text.len().saturating_sub(LOG_BYTES);
    if surplus > 0 {
        let end = memchr::memchr(b'\n', &new.text[surplus - 1..]).map_or(new.text.len(), |end| surplus + end);
        new.text.drain(..end);
        new.left_out += end as u64;
    }
}

/// Returns the last bytes of a file, from the begin of a line on, and leaves the file at its end.
fn end_of(file: &mut File, most: usize) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.size();
    let start = size.saturating_sub(most as u64);
    // One byte more tells whether a line begins there.
    file.seek(SeekFrom::Start(start.saturating_sub(1)))?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if start > 0 {
        let begin = memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |end| end + 1);
        bytes.drain(..begin);
    }
    Ok(bytes)
}

/// Returns the last of these whole lines.
fn keep_lines(mut text: Vec<u8>, lines: usize) -> Vec<u8> {
    let surplus = memchr::memchr_iter(b'\n', &text).count().saturating_sub(lines);
    if surplus > 0 {
        let end = memchr::memchr_iter(b'\n', &text).nth(surplus - 1).map_or(text.len(), |end| end + 1);
        text.drain(..end);
    }
    text
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
