//! The identity of an answer, for the dialects that give it one. The caller makes it, so that writing stays pure.

/// What an answer calls itself, and when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerId {
    /// A name that no other answer has.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
}
