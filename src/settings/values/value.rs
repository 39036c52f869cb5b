//! The trait of setting types, and the error of parsing.

/// A type that a setting can have.
pub trait Value: Sized {
    /// Parses the text of a value.
    ///
    /// # Errors
    ///
    /// Returns what is allowed instead, as a noun phrase that follows "expected".
    fn parse(text: &str) -> Result<Self, Rejected>;

    /// Returns whether a text may have carriage returns, which the type then reads itself.
    fn may_have_carriage_returns() -> bool {
        false
    }

    /// Returns the text with secrets replaced, for printing.
    fn masked(text: &str) -> String {
        text.to_owned()
    }
}

/// The error for an invalid text: what is allowed, and perhaps a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What is allowed, as a noun phrase that follows "expected".
    pub allowed: String,
    /// One suggestion.
    pub hint: Option<String>,
}

impl Rejected {
    pub(in crate::settings) fn new(allowed: impl Into<String>) -> Self {
        Self { allowed: allowed.into(), hint: None }
    }

    pub(in crate::settings) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
