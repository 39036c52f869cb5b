//! Parses the texts of settings into typed values, and records a problem for each invalid text.

use std::collections::BTreeMap;

use super::problem::SettingProblem;
use super::source::ValueSource;
use super::values::{Rejected, Value};

/// Parses values by key, and collects the problems.
pub(super) struct Reader<'a> {
    pub(super) texts: &'a BTreeMap<&'static str, (String, ValueSource)>,
    pub(super) problems: &'a mut Vec<SettingProblem>,
    /// The keys of the settings whose values are invalid.
    pub(super) invalid: &'a mut Vec<&'static str>,
}

impl Reader<'_> {
    /// Returns the value of one setting, or `None` after it recorded a problem.
    pub(super) fn value<T: Value>(&mut self, key: &'static str) -> Option<T> {
        let (text, source) = self.texts.get(key)?;
        match parse_without_controls(text) {
            Ok(value) => Some(value),
            Err(rejected) => {
                self.invalid.push(key);
                // It follows another setting, whose value is reported.
                if matches!(source, ValueSource::Default | ValueSource::Platform(_)) {
                    return None;
                }
                let own = key.to_ascii_uppercase();
                let value = T::masked(text);
                let subject = match source {
                    // Users look for the name that they have set.
                    ValueSource::Variable(name) | ValueSource::EnvFile(name) if *name != own => {
                        format!("{name}={value:?} (read as {own})")
                    }
                    source => format!("{own}={value:?} ({source})"),
                };
                self.problems.push(SettingProblem {
                    subject,
                    fault: format!("expected {}", rejected.allowed),
                    hint: rejected.hint,
                });
                None
            }
        }
    }
}

/// Parses a text that must have no control characters but tabs and line feeds: they would reach arguments, file names
/// and logs.
///
/// # Errors
///
/// Returns what is allowed instead.
pub(super) fn parse_without_controls<T: Value>(text: &str) -> Result<T, Rejected> {
    let value = T::parse(text)?;
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
    match T::may_have_carriage_returns() || !text.contains(is_control) {
        true => Ok(value),
        false => Err(Rejected::new("a text without control characters")
            .with_hint("a carriage return in it comes from a file with Windows line ends")),
    }
}
