//! The log file whose name the user chooses (`LOG_FILE`).
//!
//! The file keeps its name, so that `tail -F` and log shippers find it. When it becomes too large it is renamed to
//! `NAME.part0001.EXTENSION` and so on, and a new one begins. If another program renames it, it begins again, too. Anything but a regular file, such as `/dev/stdout` or a named
//! pipe, is only written to.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::errors::WriteErrors;
use super::folder::{DIRECTORY_MODE, FILE_MODE, LogClock, LogFolder, LogRules};
use super::output::Output;
use crate::file_identity::FileIdentity;

/// A log file with a name of the user's choice. Never fails its caller.
#[derive(Debug)]
pub struct NamedFile {
    path: PathBuf,
    output: Output,
}

impl NamedFile {
    /// Starts or continues the file. If that fails, the error is counted, and later writes retry.
    #[must_use]
    pub fn open(path: &Path, rules: LogRules, clock: LogClock) -> Self {
        // The path stands for the folder in reports of lost lines.
        let output = Output::new(LogFolder::open(path.to_owned(), rules), clock);
        let mut file = Self { path: path.to_owned(), output };
        file.write_now(b"");
        file
    }

    /// Returns the count of lines that could not be written.
    #[must_use]
    pub fn errors(&self) -> Arc<WriteErrors> {
        self.output.errors()
    }

    fn write_now(&mut self, bytes: &[u8]) {
        let now = self.output.now();
        let mut rest = bytes;
        loop {
            let mut piece = self.output.next_piece(rest);
            if piece.is_empty() && !rest.is_empty() {
                if self.finish_part() {
                    continue;
                }
                // Better too large than lost.
                piece = rest;
            }
            let path = &self.path;
            self.output.write(now, piece, |_| Ok((path.clone(), open_to_append(path)?)));
            rest = &rest[piece.len()..];
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Renames the file to the next part, and deletes the oldest parts. Returns whether a new file can begin.
    fn finish_part(&mut self) -> bool {
        let Some(own) = self.output.metadata().filter(std::fs::Metadata::is_file) else { return false };
        let is_it = |found: &std::fs::Metadata| FileIdentity::of(found) == FileIdentity::of(&own);
        let is_own = self.path.symlink_metadata().is_ok_and(|found| is_it(&found));
        // Otherwise another program has renamed it, or it is a link: then there is only a new file to begin, or none.
        if is_own {
            let mut parts = self.parts();
            let next = parts.last().map_or(1, |(number, _)| number + 1);
            let renamed = self.part_path(next);
            if std::fs::rename(&self.path, &renamed).is_err() {
                return false;
            }
            parts.push((next, renamed));
            // The new file is one of those to keep.
            let surplus = (parts.len() + 1).saturating_sub(self.output.keep());
            for (_, old) in parts.iter().take(surplus) {
                let _ = std::fs::remove_file(old);
            }
        } else if self.path.metadata().is_ok_and(|found| is_it(&found)) {
            return false;
        }
        self.output.close();
        true
    }

    /// Returns the path of a part.
    fn part_path(&self, number: u32) -> PathBuf {
        let (start, end) = self.part_affixes();
        self.path.with_file_name(format!("{start}{number:04}{end}"))
    }

    /// Returns the parts that there are, the oldest first.
    fn parts(&self) -> Vec<(u32, PathBuf)> {
        let (start, end) = self.part_affixes();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let number = |name: &str| {
            let digits = name.strip_prefix(&start)?.strip_suffix(&end)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        let mut parts: Vec<(u32, PathBuf)> =
            names.filter_map(|name| Some((number(name.to_str()?)?, self.path.with_file_name(name)))).collect();
        parts.sort_unstable();
        parts
    }

    /// Returns what comes before and behind the number in the name of a part.
    fn part_affixes(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let end = self.path.extension().map_or_else(String::new, |end| format!(".{}", end.to_string_lossy()));
        (text(self.path.file_stem()) + ".part", end)
    }
}

impl Write for NamedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_now(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the file for appending; creates it and its folder if needed.
fn open_to_append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(folder)?;
    }
    // Opening a named pipe would otherwise block until it has a reader.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).custom_flags(flags).open(path)?;
    // A slow reader of a pipe should make the writer thread wait, and not lose lines.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LINE: &[u8] = b"0123456789abcde\n";

    fn rules(keep: usize, part_size: u64) -> LogRules {
        LogRules { is_written: true, keep, part_size: Some(part_size) }
    }

    #[test]
    fn the_file_keeps_its_name_and_its_parts_are_numbered_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/own.jsonl");
        let mut file = NamedFile::open(&path, rules(3, 64), jiff::Timestamp::now);
        for number in 0..20 {
            writeln!(file, "line {number:010}").unwrap();
        }
        let names: Vec<String> = {
            let mut names: Vec<_> = fs::read_dir(path.parent().unwrap())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names, ["own.jsonl", "own.part0003.jsonl", "own.part0004.jsonl"]);
        let text = |name: &str| fs::read_to_string(path.with_file_name(name)).unwrap();
        let kept = text("own.part0003.jsonl") + &text("own.part0004.jsonl") + &text("own.jsonl");
        let expected: String = (8..20).map(|number| format!("line {number:010}\n")).collect();
        assert_eq!(kept, expected, "no line is lost or torn");
        // After a restart the numbers go on.
        let mut again = NamedFile::open(&path, rules(9, 64), jiff::Timestamp::now);
        again.write_all(LINE).unwrap();
        assert_eq!(text("own.part0005.jsonl").lines().count(), 4);
        assert_eq!(fs::read(&path).unwrap(), LINE);
    }

    #[test]
    fn a_file_that_was_renamed_by_another_program_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.log");
        let mut file = NamedFile::open(&path, rules(9, 20), jiff::Timestamp::now);
        file.write_all(LINE).unwrap();
        fs::rename(&path, dir.path().join("rotated.log")).unwrap();
        fs::write(&path, "").unwrap();
        file.write_all(LINE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), LINE);
        assert!(!dir.path().join("own.part0001.log").exists());
    }

    /// Regression: after logrotate had renamed the file, its lines went on into the renamed one.
    #[test]
    fn a_file_that_was_renamed_got_the_lines_until_the_next_part() {
        use crate::telemetry::files::look_at_log_files;
        // Stands still, so that only the order makes the writer look.
        let still: LogClock = || jiff::Timestamp::UNIX_EPOCH;
        let dir = tempfile::tempdir().unwrap();
        let (path, renamed) = (dir.path().join("own.log"), dir.path().join("own.log.1"));
        let mut file = NamedFile::open(&path, rules(9, 1 << 20), still);
        file.write_all(LINE).unwrap();
        for is_made_again in [false, true] {
            fs::rename(&path, &renamed).unwrap();
            if is_made_again {
                fs::write(&path, "").unwrap();
            }
            look_at_log_files();
            file.write_all(LINE).unwrap();
            assert_eq!([fs::read(&path).unwrap(), fs::read(&renamed).unwrap()], [LINE, LINE], "{is_made_again}");
        }
        // A link in its place is followed, and the file behind it is the same.
        fs::rename(&path, &renamed).unwrap();
        std::os::unix::fs::symlink(&renamed, &path).unwrap();
        look_at_log_files();
        file.write_all(LINE).unwrap();
        assert_eq!(fs::read(&renamed).unwrap(), LINE.repeat(2));
        assert_eq!(file.errors().lost(), 0);
    }

    #[test]
    fn a_device_is_never_renamed_and_a_pipe_without_a_reader_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let device = Path::new("/dev/null");
        let mut file = NamedFile::open(device, rules(2, 20), jiff::Timestamp::now);
        for _ in 0..5 {
            file.write_all(LINE).unwrap();
        }
        assert_eq!((device.exists(), file.errors().lost()), (true, 0));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut file = NamedFile::open(&pipe, rules(2, 20), jiff::Timestamp::now);
        file.write_all(LINE).unwrap();
        assert_eq!(file.errors().lost(), 1);
    }
}
