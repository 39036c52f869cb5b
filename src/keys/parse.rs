//! The grammar of the key file, as pure functions on text: [`parse`] and its inverse, [`KeyFile::render`].
//!
//! One key a line: `key_id:secret[:rate_limit][:expiration][ attribute=value ...]`. Every line is kept verbatim next
//! to its meaning, so an edit changes only the lines that it must. A line that cannot be parsed becomes a
//! [`KeyLineProblem`], which holds nothing of its text: half a secret must not reach a log.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;

use super::attribute::{ATTRIBUTES, Attribute, whole_number};
use super::bounds::{MAX_KEY_ID, MAX_LINE};
use super::error::KeyLineProblem;
use super::expiry;
use super::key::Key;
use super::secret::{Digest, HASH_PREFIX, Stored, is_word_byte};

/// One good line: a key and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The key.
    pub key: Key,
    /// The secret in the form in which the line holds it.
    pub secret: Stored,
}

/// One line: its text with its line ending, and its meaning.
#[derive(Debug, Clone)]
pub(super) struct KeyLine {
    text: Text,
    pub(super) meaning: Meaning,
}

/// The meaning of one line.
#[derive(Debug, Clone)]
pub(super) enum Meaning {
    /// A comment or a blank line.
    Nothing,
    /// A key.
    Entry(KeyEntry),
    /// A line that cannot be used.
    Bad(KeyLineProblem),
}

/// The text of a line, which `Debug` hides because it may hold a secret.
#[derive(Clone)]
struct Text(String);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A key file: all of its lines in order. `parse(text).render() == text` for every text.
#[derive(Debug, Clone, Default)]
pub struct KeyFile {
    pub(super) lines: Vec<KeyLine>,
}

impl KeyFile {
    /// Returns the good lines with their numbers, counted from 1.
    pub fn entries(&self) -> impl Iterator<Item = (usize, &KeyEntry)> {
        (1..).zip(&self.lines).filter_map(|(number, line)| match &line.meaning {
            Meaning::Entry(entry) => Some((number, entry)),
            _ => None,
        })
    }

    /// Returns the bad lines with their numbers, counted from 1.
    pub fn problems(&self) -> impl Iterator<Item = (usize, KeyLineProblem)> {
        (1..).zip(&self.lines).filter_map(|(number, line)| match &line.meaning {
            Meaning::Bad(problem) => Some((number, *problem)),
            _ => None,
        })
    }

    /// Finds the line of this secret, expired or not.
    pub fn find(&self, secret: &str) -> Option<(usize, &KeyEntry)> {
        let digest = Digest::of(secret);
        self.entries().find(|(_, entry)| entry.secret.digest() == digest)
    }

    /// Returns the text of the file.
    pub fn render(&self) -> String {
        self.lines.iter().map(|line| line.text.0.as_str()).collect()
    }

    /// Inserts a key before the line of this index, or at the end if the index is larger than the number of lines.
    pub(super) fn insert(&mut self, index: usize, entry: KeyEntry) {
        let ending = self.line_ending();
        let index = index.min(self.lines.len());
        // The last line of a file may have no line ending; without one the new key would be appended to it.
        if let Some(before) = index.checked_sub(1).and_then(|i| self.lines.get_mut(i))
            && !before.text.0.ends_with('\n')
        {
            before.text.0.push_str(ending);
        }
        self.lines.insert(index, KeyLine::of(entry, ending));
    }

    /// Sets the expiry of the key in the line of this index.
    pub(super) fn set_expiry(&mut self, index: usize, end: jiff::Timestamp) {
        if let Some(KeyLine { meaning: Meaning::Entry(entry), .. }) = self.lines.get(index) {
            let mut entry = entry.clone();
            entry.key.expires = Some(end);
            self.replace(index, entry);
        }
    }

    /// Replaces the line of this index, unless it says the same already.
    pub(super) fn replace(&mut self, index: usize, entry: KeyEntry) {
        let ending = self.line_ending();
        if let Some(line) = self.lines.get_mut(index)
            && !matches!(&line.meaning, Meaning::Entry(old) if *old == entry)
        {
            *line = KeyLine::of(entry, ending);
        }
    }

    fn line_ending(&self) -> &'static str {
        if self.lines.first().is_some_and(|line| line.text.0.ends_with("\r\n")) { "\r\n" } else { "\n" }
    }
}

impl KeyLine {
    fn of(entry: KeyEntry, ending: &str) -> Self {
        Self { text: Text(entry.render() + ending), meaning: Meaning::Entry(entry) }
    }
}

/// Parses a whole key file. Accepts any text: a line that is not a key, a comment or blank becomes a problem.
pub fn parse(text: &str) -> KeyFile {
    let mut seen: HashMap<Digest, usize> = HashMap::new();
    let lines = (1..).zip(text.split_inclusive('\n')).map(|(number, raw)| {
        // Some editors put a byte order mark at the start of a UTF-8 file.
        let content = if number == 1 { raw.strip_prefix('\u{feff}').unwrap_or(raw) } else { raw };
        let meaning = match parse_line(content.trim()) {
            Ok(None) => Meaning::Nothing,
            Err(problem) => Meaning::Bad(problem),
            Ok(Some(entry)) => {
                let first = *seen.entry(entry.secret.digest()).or_insert(number);
                if first == number {
                    Meaning::Entry(entry)
                } else {
                    Meaning::Bad(KeyLineProblem::SecretUsedTwice { first })
                }
            }
        };
        KeyLine { text: Text(raw.to_owned()), meaning }
    });
    KeyFile { lines: lines.collect() }
}

/// Whether this is a valid key_id: 1 to 64 of `[A-Za-z0-9_-]`.
pub fn is_key_id(text: &str) -> bool {
    (1..=MAX_KEY_ID).contains(&text.len()) && text.bytes().all(is_word_byte)
}

fn parse_line(line: &str) -> Result<Option<KeyEntry>, KeyLineProblem> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    // Checked after comments, which may have any length.
    if line.len() > MAX_LINE {
        return Err(KeyLineProblem::LineTooLong);
    }
    let mut words = line.split_ascii_whitespace().peekable();
    let mut fields = String::new();
    while let Some(word) = words.next_if(|word| fields.is_empty() || !starts_attributes(word)) {
        if word.starts_with('#') {
            return Err(KeyLineProblem::InlineComment);
        }
        if !fields.is_empty() {
            fields.push(' ');
        }
        fields.push_str(word);
    }
    let mut entry = parse_fields(&fields)?;
    let mut given = Vec::new();
    for word in words {
        let (name, value) = word.split_once('=').ok_or(if word.starts_with('#') {
            KeyLineProblem::InlineComment
        } else {
            KeyLineProblem::NotAnAttribute
        })?;
        if given.contains(&name) {
            return Err(KeyLineProblem::DuplicateAttribute);
        }
        given.push(name);
        set_attribute(&mut entry.key, name, value)?;
    }
    Ok(Some(entry))
}

/// Whether the attributes start at this word, which is the first with `name=`. Spaces do not separate the fields
/// before: fields may have spaces around them, and a date may have one inside.
fn starts_attributes(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| !name.contains(':') && !word.starts_with(HASH_PREFIX))
}

fn parse_fields(fields: &str) -> Result<KeyEntry, KeyLineProblem> {
    // At most four, because the fourth field may hold a time of day with colons.
    let mut fields = fields.splitn(4, ':').map(str::trim);
    let id = fields.next().filter(|id| is_key_id(id)).ok_or(KeyLineProblem::KeyId)?;
    let secret = Stored::parse(fields.next().ok_or(KeyLineProblem::NoSecret)?)?;
    let mut key = Key::named(id);
    if let Some(limit) = fields.next().filter(|field| !field.is_empty()) {
        key.rate_limit = Some(whole_number::<NonZeroU32>(limit).ok_or_else(|| {
            let is_date = limit.contains('-') || expiry::parse_instant(limit).is_ok();
            if is_date { KeyLineProblem::DateAsRateLimit } else { KeyLineProblem::RateLimit }
        })?);
    }
    if let Some(end) = fields.next().filter(|field| !field.is_empty()) {
        key.expires = Some(expiry::parse_instant(end).map_err(|_| KeyLineProblem::Expiration)?);
    }
    Ok(KeyEntry { key, secret })
}

fn set_attribute(key: &mut Key, name: &str, value: &str) -> Result<(), KeyLineProblem> {
    let attribute =
        ATTRIBUTES.iter().find(|attribute| attribute.name == name).ok_or(KeyLineProblem::UnknownAttribute)?;
    let problem = KeyLineProblem::AttributeValue { name: attribute.name, rule: attribute.rule };
    (attribute.set)(key, value).ok_or(problem)
}

impl KeyEntry {
    /// Returns the line for this key, without a line ending. Holds the secret.
    pub(super) fn render(&self) -> String {
        let Key { id, rate_limit, expires, .. } = &self.key;
        let mut line = format!("{id}:{}", self.secret.render());
        // Writing to a String cannot fail.
        if rate_limit.is_some() || expires.is_some() {
            line.push(':');
        }
        if let Some(limit) = rate_limit {
            let _ = write!(line, "{limit}");
        }
        if let Some(end) = expires {
            let _ = write!(line, ":{end}");
        }
        for Attribute { name, write, .. } in ATTRIBUTES {
            if let Some(value) = write(&self.key) {
                let _ = write!(line, " {name}={value}");
            }
        }
        line
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
