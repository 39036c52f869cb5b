//! What every type of a setting can do: read a text, or say what would have been taken.

/// A type that a setting can have.
pub trait Value: Sized {
    /// Reads the text of a value. The error says what is allowed instead, as the end of a sentence.
    fn parse(text: &str) -> Result<Self, Rejected>;

    /// The text with anything secret replaced, for printing.
    fn masked(text: &str) -> String {
        text.to_owned()
    }
}

/// Why a text was not taken: what is allowed, and one hint where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What would have been taken, as a noun phrase.
    pub allowed: String,
    /// One thing to try.
    pub hint: Option<String>,
}

impl Rejected {
    pub(in crate::settings) fn new(allowed: impl Into<String>) -> Self {
        Self { allowed: allowed.into(), hint: None }
    }

    pub(in crate::settings) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
