//! `ENV_FILE`: a file of variables in dotenv form.
//!
//! Owns the grammar. A line is blank, a comment, or `NAME=value`, perhaps after `export`, with blanks around the `=`:
//!
//! - without quotes the value ends with the line, or before a ` #`; blanks at its ends are dropped;
//! - within `'...'` only `\'` and `\\` are escapes;
//! - within `"..."` so are `\"`, `\\`, `\n`, `\r`, `\t`, `\$` and `` \` ``; any other backslash stays;
//! - a value within quotes may hold line ends.
//!
//! Nothing is substituted: a `$` in a secret stays one. Problems name a line by its number and never quote it, because
//! it may hold a secret.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::bounds::{ENV_FILE_PROBLEMS, ENV_FILE_SIZE, ENV_FILE_VALUE_LINES};
use super::problem::SettingProblem;
use super::source::Inputs;

/// The setting that names the file.
const VARIABLE: &str = "ENV_FILE";

impl Inputs {
    /// Adds the variables of the file that `--env-file` or `ENV_FILE` names, and records what is wrong with it. A
    /// variable that the environment sets keeps its value. Blocks on the disk.
    pub fn read_env_file(&mut self) {
        let flag = self.flags.get("env_file").map(String::as_str).filter(|path| !path.is_empty());
        let Some(path) = flag.or_else(|| self.environment.get(VARIABLE)).map(PathBuf::from) else { return };
        let subject = format!("{VARIABLE}={:?}", path.display().to_string());
        let mut problem = |fault: String, hint: Option<&str>| {
            let (subject, hint) = (subject.clone(), hint.map(str::to_owned));
            self.env_file_problems.push(SettingProblem { subject, fault, hint });
        };
        let bytes = match read_bytes(&path) {
            Ok(bytes) => bytes,
            Err((fault, hint)) => {
                self.is_env_file_unread = true;
                return problem(fault, Some(hint));
            }
        };
        self.is_env_file_open = path.metadata().is_ok_and(|metadata| metadata.mode() & 0o066 != 0);
        let (variables, mut faults) = parse(&bytes);
        for (name, value) in variables {
            match name.as_str() {
                VARIABLE => faults.push((0, LineFault::NamesAFile)),
                _ => self.environment.add_from_file(name, value),
            }
        }
        let more = faults.len().saturating_sub(ENV_FILE_PROBLEMS);
        for (line, fault) in faults.into_iter().take(ENV_FILE_PROBLEMS) {
            match fault {
                LineFault::NamesAFile => problem(fault.to_string(), Some("keep all variables in one file")),
                fault => problem(format!("line {line}: {fault}"), Some(fault.hint())),
            }
        }
        if more > 0 {
            problem(format!("{more} further lines cannot be read"), None);
        }
    }
}

/// Reads the file, up to its bound.
///
/// # Errors
///
/// Returns what is wrong with it, and a hint.
fn read_bytes(path: &Path) -> Result<Vec<u8>, (String, &'static str)> {
    const HINT: &str = "name a text file with lines of the form NAME=value";
    let failed = |error: std::io::Error| (format!("cannot be read: {error}"), "check the path and who may read it");
    // Opening a named pipe would block until it has a writer, so check before.
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(("is no regular file".to_owned(), HINT));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(ENV_FILE_SIZE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > ENV_FILE_SIZE {
        return Err((format!("is larger than {} KiB", ENV_FILE_SIZE >> 10), HINT));
    }
    Ok(bytes)
}

/// What is wrong with one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum LineFault {
    #[error("there is no NAME= at its start")]
    NoName,
    #[error("the name of a variable is letters, digits, `_`, `.` and `-`, and starts with no digit")]
    Name,
    #[error("a quote is not closed")]
    Unclosed,
    #[error("there is text after the closing quote")]
    AfterQuote,
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it holds a NUL byte")]
    Nul,
    #[error("the file cannot name another one")]
    NamesAFile,
}

impl LineFault {
    fn hint(self) -> &'static str {
        match self {
            Self::NoName | Self::Name => "write NAME=value, or # before a comment",
            Self::Unclosed => "close it, or write \\\" for a quote within a value",
            Self::AfterQuote => "put the whole value into one pair of quotes",
            Self::NotText | Self::Nul => "save the file as UTF-8",
            Self::NamesAFile => "keep all variables in one file",
        }
    }
}

type Faults = Vec<(usize, LineFault)>;

/// Returns the variables in order, and the lines that cannot be read, counted from 1. Accepts any bytes.
fn parse(bytes: &[u8]) -> (Vec<(String, String)>, Faults) {
    let (mut variables, mut faults) = (Vec::new(), Faults::new());
    // Some editors put a byte order mark at the start of a file.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines: Vec<&[u8]> =
        bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    let mut at = 0;
    while at < lines.len() {
        let (first, mut used) = (at, 1);
        match assignment(&lines[at..], &mut used) {
            Ok(assigned) => variables.extend(assigned),
            Err(fault) => {
                faults.push((first + 1, fault));
                used = 1;
            }
        }
        at += used;
    }
    (variables, faults)
}

/// Returns the variables of a file, and the numbers of the lines that cannot be read, for fuzzing.
#[cfg(feature = "test-support")]
pub(crate) fn env_file_parts(bytes: &[u8]) -> (Vec<(String, String)>, Vec<usize>) {
    let (variables, faults) = parse(bytes);
    (variables, faults.into_iter().map(|(line, _)| line).collect())
}

/// Returns the assignment that begins in the first of `lines`, or `None` for a blank line or a comment. Counts in `used`
/// the lines that it takes.
fn assignment(lines: &[&[u8]], used: &mut usize) -> Result<Option<(String, String)>, LineFault> {
    let line = std::str::from_utf8(lines[0]).map_err(|_| LineFault::NotText)?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.contains('\0') {
        return Err(LineFault::Nul);
    }
    let (name, value) = line.split_once('=').ok_or(LineFault::NoName)?;
    let name = match name.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest,
        _ => name,
    };
    let (name, value) = (name.trim(), value.trim_start());
    check_variable_name(name)?;
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let mut text = value[1..].to_owned();
            loop {
                if let Some((value, rest)) = quoted(&text, quote) {
                    let rest = rest.trim_start();
                    if !rest.is_empty() && !rest.starts_with('#') {
                        return Err(LineFault::AfterQuote);
                    }
                    break value;
                }
                let next = lines.get(*used).filter(|_| *used < ENV_FILE_VALUE_LINES).ok_or(LineFault::Unclosed)?;
                let next = std::str::from_utf8(next).map_err(|_| LineFault::Unclosed)?;
                if next.contains('\0') {
                    return Err(LineFault::Unclosed);
                }
                text.push('\n');
                text.push_str(next);
                *used += 1;
            }
        }
        Some('#') if line.split_once('=').is_some_and(|(_, raw)| raw.starts_with([' ', '\t'])) => String::new(),
        _ => unquoted(value).to_owned(),
    };
    Ok(Some((name.to_owned(), value)))
}

fn check_variable_name(name: &str) -> Result<(), LineFault> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() {
        Err(LineFault::NoName)
    } else if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_allowed) {
        Err(LineFault::Name)
    } else {
        Ok(())
    }
}

/// Returns the value up to a comment, without blanks at its end.
fn unquoted(value: &str) -> &str {
    let comment = value.char_indices().find(|(at, c)| *c == '#' && value[..*at].ends_with([' ', '\t']));
    comment.map_or(value, |(at, _)| &value[..at]).trim_end()
}

/// Returns the value up to the closing quote, with its escapes resolved, and the text behind that quote; `None` if the
/// quote is not closed.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((value, &text[at + 1..]));
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        let (_, escaped) = chars.next()?;
        match (escaped, quote) {
            ('\\', _) => value.push('\\'),
            (same, _) if same == quote => value.push(quote),
            ('n', '"') => value.push('\n'),
            ('r', '"') => value.push('\r'),
            ('t', '"') => value.push('\t'),
            (plain @ ('$' | '`'), '"') => value.push(plain),
            (other, _) => value.extend(['\\', other]),
        }
    }
    None
}

#[cfg(test)]
#[path = "env_file_tests.rs"]
mod tests;
