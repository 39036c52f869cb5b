//! One problem in the configuration, as it is reported.

use std::fmt;

/// One problem in the configuration, ready to be printed in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// The subject: a variable with its value and source, or a file.
    pub subject: String,
    /// The fault, and what is allowed.
    pub fault: String,
    /// One suggestion.
    pub hint: Option<String>,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.fault)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}
