//! The two writers: one file per start, and one file per day. Neither ever fails its caller. Both go on in a new part
//! before a file becomes too large, always at the end of a line.

use std::io::{self, Write};

use super::folder::{LogClock, LogFolder};
use super::names::{self, sanitise};
use super::output::{OpenedFile, Output};

const SECONDS_A_DAY: i64 = 86_400;

impl LogFolder {
    /// Starts `YYYYMMDD_HHMMSS_KIND_INSTANCE.log` (UTC). If that fails, the error is counted, and later writes retry.
    #[must_use]
    pub fn create(&self, kind: &str, instance: &str, now: LogClock) -> LogFile {
        LogFile::open(self.clone(), kind, instance, now)
    }

    /// Starts or continues `YYYYMMDD_KIND_INSTANCE.log`, one file per day (UTC).
    #[must_use]
    pub fn daily(&self, kind: &str, instance: &str, now: LogClock) -> DailyFile {
        DailyFile::open(self.clone(), kind, instance, now)
    }
}

/// A log file for one start of a program, such as one run of llama-server.
#[derive(Debug)]
pub struct LogFile {
    output: Output,
    kind: String,
    /// The name without `.log`; that of the file once it was created.
    stem: String,
    is_created: bool,
    /// The part that is written.
    part: u32,
}

impl LogFile {
    fn open(folder: LogFolder, kind: &str, instance: &str, clock: LogClock) -> Self {
        let kind = sanitise(kind);
        let stem = names::start_stem(clock(), &kind, &sanitise(instance));
        let mut file = Self { output: Output::new(folder, clock), kind, stem, is_created: false, part: 1 };
        file.write_now(b"");
        file
    }

    /// Returns the file's name in its folder, or `None` if it could not be created yet.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.is_created.then(|| names::part_name(&self.stem, self.part))
    }

    fn write_now(&mut self, bytes: &[u8]) {
        let Self { output, kind, stem, is_created, part } = self;
        let now = output.now();
        let mut rest = bytes;
        loop {
            let piece = output.next_piece(rest);
            if piece.is_empty() && !rest.is_empty() {
                output.close();
                *part += 1;
                continue;
            }
            output.write(now, piece, |folder| {
                if !*is_created {
                    let (created, file) = folder.create_new(stem)?;
                    folder.prune(kind, &created);
                    folder.write_latest(&created);
                    // Another start within the same second may have taken the name.
                    *stem = created.strip_suffix(".log").unwrap_or(&created).to_owned();
                    *is_created = true;
                    return Ok((folder.dir().join(created), file));
                }
                open_part(folder, kind, stem, *part)
            });
            rest = &rest[piece.len()..];
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// Opens a part for appending. Deletes old files if it is a new one.
fn open_part(folder: &LogFolder, kind: &str, stem: &str, part: u32) -> io::Result<OpenedFile> {
    let name = names::part_name(stem, part);
    let file = folder.append(&name)?;
    if part > 1 && file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        folder.prune_parts(kind, stem, &name);
    }
    folder.write_latest(&name);
    Ok((folder.dir().join(name), file))
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_now(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log file that changes each day, at midnight UTC.
#[derive(Debug)]
pub struct DailyFile {
    output: Output,
    kind: String,
    instance: String,
    /// The day of the open file, in days since the Unix epoch.
    day: Option<i64>,
    /// The part that is written; `None` until the folder was searched for the last one of the day.
    part: Option<u32>,
}

impl DailyFile {
    fn open(folder: LogFolder, kind: &str, instance: &str, clock: LogClock) -> Self {
        let (kind, instance) = (sanitise(kind), sanitise(instance));
        let mut file = Self { output: Output::new(folder, clock), kind, instance, day: None, part: None };
        file.write_now(b"");
        file
    }

    fn write_now(&mut self, bytes: &[u8]) {
        let Self { output, kind, instance, day, part } = self;
        let now = output.now();
        let today = now.as_second().div_euclid(SECONDS_A_DAY);
        if *day != Some(today) {
            output.close();
            *part = None;
        }
        let mut rest = bytes;
        loop {
            let piece = output.next_piece(rest);
            if piece.is_empty() && !rest.is_empty() {
                output.close();
                *part = part.map(|part| part + 1);
                continue;
            }
            output.write(now, piece, |folder| {
                let stem = names::day_stem(now, kind, instance);
                // A start on the same day goes on with its last part.
                let number = part.unwrap_or_else(|| folder.last_part(&stem));
                let file = open_part(folder, kind, &stem, number)?;
                // Not when today's file is reopened: several instances that share a folder would delete each other's
                // files.
                if *day != Some(today) {
                    folder.prune(kind, &names::part_name(&stem, number));
                }
                (*day, *part) = (Some(today), Some(number));
                Ok(file)
            });
            rest = &rest[piece.len()..];
            if rest.is_empty() {
                return;
            }
        }
    }
}

impl Write for DailyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_now(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
