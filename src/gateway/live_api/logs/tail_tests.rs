//! Ends of logs and what follows, with real files.

use super::*;
use crate::telemetry::files::LogRules;
use std::io::Write;

const KIND: &str = "server";

struct Log {
    dir: tempfile::TempDir,
    folder: LogFolder,
}

impl Log {
    /// Returns a log whose files are continued in parts of this size.
    fn new(part_size: Option<u64>) -> (Self, impl Write) {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::open(dir.path().to_owned(), LogRules { is_written: true, keep: 100, part_size });
        let file = folder.create(KIND, "box", jiff::Timestamp::now);
        (Self { dir, folder }, file)
    }

    fn last(&self, lines: usize) -> String {
        String::from_utf8(last_lines(&self.folder, lines).unwrap().0).unwrap()
    }
}

fn read(reader: &mut LogReader) -> String {
    let new = reader.read_new().unwrap();
    assert_eq!(new.left_out, 0);
    String::from_utf8(new.text).unwrap()
}

#[test]
fn the_last_lines_are_whole_and_come_from_earlier_files_too() {
    let (log, mut file) = Log::new(Some(24));
    assert_eq!(log.last(5), "");
    for number in 0..10 {
        // Whole, as the log of a process is written.
        file.write_all(format!("line {number}\n").as_bytes()).unwrap();
    }
    assert!(log.folder.recent().len() > 2, "it was rotated");
    assert_eq!(log.last(1), "line 9\n");
    assert_eq!(log.last(4), "line 6\nline 7\nline 8\nline 9\n");
    assert_eq!(log.last(0), "");
    assert_eq!(log.last(1_000).lines().count(), 10);
}

#[test]
fn a_reader_follows_over_rotation_and_gives_whole_lines_only() {
    let (log, mut file) = Log::new(Some(24));
    writeln!(file, "before").unwrap();
    let (_, mut reader) = last_lines(&log.folder, 0).unwrap();
    assert_eq!(read(&mut reader), "");
    write!(file, "half").unwrap();
    assert_eq!(read(&mut reader), "");
    assert_eq!(reader.unfinished(), b"half");
    writeln!(file, " a line").unwrap();
    assert_eq!(read(&mut reader), "half a line\n");
    for number in 0..10 {
        // Whole, as the log of a process is written.
        file.write_all(format!("line {number}\n").as_bytes()).unwrap();
    }
    let expected: String = (0..10).map(|number| format!("line {number}\n")).collect();
    assert_eq!(read(&mut reader), expected);
    assert_eq!(read(&mut reader), "");
}

#[test]
fn a_reader_that_comes_before_the_first_file_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let rules = LogRules { is_written: true, keep: 2, part_size: None };
    let folder = LogFolder::open(dir.path().join("later"), rules);
    let (text, mut reader) = last_lines(&folder, 10).unwrap();
    assert_eq!((text, read(&mut reader)), (Vec::new(), String::new()));
    let mut file = folder.create(KIND, "box", jiff::Timestamp::now);
    writeln!(file, "first").unwrap();
    assert_eq!(read(&mut reader), "first\n");
}

#[test]
fn a_reader_that_is_too_slow_is_told_what_it_lacks() {
    let (log, mut file) = Log::new(None);
    let (_, mut reader) = last_lines(&log.folder, 0).unwrap();
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    let lines = 3 * LOG_BYTES / line.len();
    for _ in 0..lines {
        file.write_all(&line).unwrap();
    }
    let new = reader.read_new().unwrap();
    let kept = new.text.len();
    assert!(kept <= LOG_BYTES && kept > LOG_BYTES / 2, "{kept}");
    assert_eq!(new.left_out as usize + kept, lines * line.len());
    assert_eq!(log.last(usize::MAX).len() / line.len(), LOG_BYTES / line.len());
}

#[test]
fn a_file_that_another_program_empties_or_deletes_is_read_again() {
    let (log, mut file) = Log::new(None);
    writeln!(file, "one").unwrap();
    let (_, mut reader) = last_lines(&log.folder, 0).unwrap();
    let path = log.folder.newest().unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(read(&mut reader), "");
    writeln!(file, "two").unwrap();
    assert_eq!(read(&mut reader), "two\n");
    assert!(path.starts_with(log.dir.path()));
}
