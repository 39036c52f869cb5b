//! One mistake in the configuration, as it is reported.

use std::fmt;

/// One thing that is wrong with the configuration, ready to be printed beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// What it is about: a variable with its value and source, or a file.
    pub subject: String,
    /// What is wrong, and what is allowed.
    pub fault: String,
    /// One thing to try.
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
