//! From the texts of settings to typed values, noting what is wrong with any of them.

use super::problem::SettingProblem;
use super::source::ValueSource;
use super::values::Value;
use std::collections::BTreeMap;

/// Hands out typed values and collects what is wrong with the others.
pub(super) struct Reader<'a> {
    pub(super) texts: &'a BTreeMap<&'static str, (String, ValueSource)>,
    pub(super) problems: &'a mut Vec<SettingProblem>,
}

impl Reader<'_> {
    /// The value of one setting, or nothing after a problem has been noted.
    pub(super) fn value<T: Value>(&mut self, key: &'static str) -> Option<T> {
        let (text, source) = self.texts.get(key)?;
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(rejected) => {
                self.problems.push(SettingProblem {
                    subject: format!("{}={:?} ({source})", key.to_ascii_uppercase(), T::masked(text)),
                    fault: format!("expected {}", rejected.allowed),
                    hint: rejected.hint,
                });
                None
            }
        }
    }
}
