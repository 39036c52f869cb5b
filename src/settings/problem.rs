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
        write!(f, "{}: {}", escaped(&self.subject), escaped(&self.fault))?;
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {}", escaped(hint)),
            None => Ok(()),
        }
    }
}

/// Returns the text with control characters written as escapes: a value may hold what would move a terminal's cursor or
/// begin a line of its own.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_value_were_printed_as_they_were() {
        let problem = SettingProblem {
            subject: "MODEL_PATH=\"/m\"".to_owned(),
            fault: "model file /m\r\n\u{1b}[31m/ä cannot be read".to_owned(),
            hint: Some("see\u{7f} it's \\".to_owned()),
        };
        let text = problem.to_string();
        let expected =
            "MODEL_PATH=\"/m\": model file /m\\r\\n\\u{1b}[31m/ä cannot be read\n    hint: see\\u{7f} it's \\";
        assert_eq!(text, expected);
    }
}
