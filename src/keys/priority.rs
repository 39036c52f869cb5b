//! The priority of a key's requests among those that wait for the same model.

use std::fmt;
use std::str::FromStr;

/// How often a waiting request gets its turn, compared with requests of other priorities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Eight turns in thirteen, while requests of every priority wait.
    High,
    /// Four in thirteen.
    #[default]
    Normal,
    /// One in thirteen.
    Low,
}

impl Priority {
    /// Every priority, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Returns the word for it in the key file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Returns its place in [`Priority::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns its share of the turns.
    pub const fn weight(self) -> i64 {
        match self {
            Self::High => 8,
            Self::Normal => 4,
            Self::Low => 1,
        }
    }

    /// Returns the lower one of two.
    pub fn lower(self, other: Self) -> Self {
        self.max(other)
    }
}

/// The error for a word that is not a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a priority is one of high, normal, low")]
pub struct UnknownPriority;

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(word: &str) -> Result<Self, UnknownPriority> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == word).ok_or(UnknownPriority)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
