//! Whose turn a request takes in a queue: its priority, its key, and the person behind the key.

use crate::keys::Priority;

/// The lines that a request stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn<'a> {
    pub(crate) priority: Priority,
    /// The key's id, which all secrets of a key share; empty without a key.
    pub(crate) key: &'a str,
    /// The person behind the key; empty if none is named.
    pub(crate) person: &'a str,
}

/// A [`Turn`] that outlives its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnedTurn {
    pub(crate) priority: Priority,
    pub(crate) key: Box<str>,
    pub(crate) person: Box<str>,
}

impl Turn<'_> {
    pub(crate) fn to_owned(self) -> OwnedTurn {
        OwnedTurn { priority: self.priority, key: self.key.into(), person: self.person.into() }
    }
}

impl OwnedTurn {
    pub(crate) fn as_turn(&self) -> Turn<'_> {
        Turn { priority: self.priority, key: &self.key, person: &self.person }
    }
}
