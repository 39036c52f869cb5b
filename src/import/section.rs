//! A section of the new file: keys in their order, and comments between them.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::yaml;

/// What stands before a comment on something that has no counterpart.
pub(super) const LEFT_OUT: &str = "left out";

/// What stands for the port in a `command` of ours.
pub(super) const PORT: &str = "{port}";

/// A value of the new file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum DraftValue {
    /// A number or a word of YAML, as it is printed.
    Plain(String),
    /// A text, which stays one.
    Text(String),
    /// A list of texts on one line.
    Words(Vec<String>),
    /// Any value, on one line.
    Flow(Json),
}

impl DraftValue {
    /// Returns `true`.
    pub(super) fn yes() -> Self {
        Self::Plain("true".to_owned())
    }

    /// Returns a whole number from 0 as a number, and anything else as a text.
    pub(super) fn number(text: &str) -> Self {
        match text.parse::<u64>() {
            Ok(number) => Self::Plain(number.to_string()),
            Err(_) => Self::text(text),
        }
    }

    /// Returns a text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// A line of a section.
#[derive(Debug, Clone, PartialEq)]
enum DraftLine {
    Key(String, DraftValue),
    /// A remark on something that was converted.
    Note(String),
    /// The name of something without counterpart, and the reason.
    LeftOut(String, String),
}

/// Keys in their order, with comments between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct DraftSection {
    lines: Vec<DraftLine>,
}

impl DraftSection {
    /// Returns a section with this one key.
    pub(super) fn of(key: &str, value: DraftValue) -> Self {
        let mut section = Self::default();
        section.set(key, value);
        section
    }

    /// Adds a key, or replaces its value.
    pub(super) fn set(&mut self, key: &str, value: DraftValue) {
        let known = self.lines.iter_mut().find_map(|line| match line {
            DraftLine::Key(name, value) if name == key => Some(value),
            _ => None,
        });
        match known {
            Some(known) => *known = value,
            None => self.lines.push(DraftLine::Key(key.to_owned(), value)),
        }
    }

    /// Returns the value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&DraftValue> {
        self.keys().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Returns the keys with their values, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &DraftValue)> {
        self.lines.iter().filter_map(|line| match line {
            DraftLine::Key(name, value) => Some((name.as_str(), value)),
            _ => None,
        })
    }

    /// Adds a remark on something that was converted.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.lines.push(DraftLine::Note(text.into()));
    }

    /// Adds a comment on something that has no counterpart: its name in the source, and why or what to do.
    pub(super) fn left_out(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.lines.push(DraftLine::LeftOut(name.into(), reason.into()));
    }

    /// Adds the comments of another section, and not its keys.
    pub(super) fn take_comments(&mut self, other: Self) {
        self.lines.extend(other.lines.into_iter().filter(|line| !matches!(line, DraftLine::Key(..))));
    }

    /// Returns this section without the comments that another section has too.
    pub(super) fn without_comments_of(&self, other: &Self) -> Self {
        let is_new = |line: &&DraftLine| matches!(line, DraftLine::Key(..)) || !other.lines.contains(line);
        Self { lines: self.lines.iter().filter(is_new).cloned().collect() }
    }

    /// Adds all lines of another section.
    pub(super) fn append(&mut self, other: Self) {
        self.lines.extend(other.lines);
    }

    /// Returns whether there is a key.
    pub(super) fn has_keys(&self) -> bool {
        self.keys().next().is_some()
    }

    /// Returns how many things have no counterpart.
    pub(super) fn left_out_count(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line, DraftLine::LeftOut(..))).count()
    }

    /// Prints the lines, indented by this many spaces.
    pub(super) fn print(&self, indent: usize, out: &mut String) {
        for line in &self.lines {
            match line {
                DraftLine::Note(text) => print_comment(indent, text, out),
                DraftLine::LeftOut(name, reason) => {
                    print_comment(indent, &format!("{LEFT_OUT}: {}: {reason}", yaml::comment(name)), out);
                }
                DraftLine::Key(key, value) => {
                    let _ = writeln!(out, "{:indent$}{}: {}", "", yaml::text(key), printed(value));
                }
            }
        }
    }
}

/// Prints one line of a comment.
pub(super) fn print_comment(indent: usize, text: &str, out: &mut String) {
    let _ = writeln!(out, "{:indent$}# {}", "", yaml::comment(text));
}

fn printed(value: &DraftValue) -> String {
    match value {
        DraftValue::Plain(word) => word.clone(),
        DraftValue::Text(text) => yaml::text(text),
        DraftValue::Words(words) => yaml::words(words),
        DraftValue::Flow(json) => yaml::json(json),
    }
}
