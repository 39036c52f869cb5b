//! Parses the texts of settings into typed values, and records a problem for each invalid text.

use std::collections::BTreeMap;

use super::problem::SettingProblem;
use super::source::ValueSource;
use super::values::Value;

/// Parses values by key, and collects the problems.
pub(super) struct Reader<'a> {
    pub(super) texts: &'a BTreeMap<&'static str, (String, ValueSource)>,
    pub(super) problems: &'a mut Vec<SettingProblem>,
}

impl Reader<'_> {
    /// Returns the value of one setting, or `None` after it recorded a problem.
    pub(super) fn value<T: Value>(&mut self, key: &'static str) -> Option<T> {
        let (text, source) = self.texts.get(key)?;
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(rejected) => {
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
