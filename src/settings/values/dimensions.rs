//! `dimensions` of a model: how long its vectors are where a request does not say, or which lengths it may ask for.

use std::num::NonZeroU32;

/// The lengths of a model's vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimensions {
    /// The length for requests that name none. A model with shorter vectors keeps its own.
    Default(NonZeroU32),
    /// The lengths that a request may name, beside that of the model itself. At least one.
    Only(Vec<NonZeroU32>),
}

impl Dimensions {
    /// Returns the length for requests that name none.
    pub fn default_length(&self) -> Option<usize> {
        match self {
            Self::Default(length) => usize::try_from(length.get()).ok(),
            Self::Only(_) => None,
        }
    }

    /// Returns whether a request may name this length.
    pub fn is_allowed(&self, length: usize) -> bool {
        match self {
            Self::Default(_) => true,
            Self::Only(lengths) => lengths.iter().any(|one| usize::try_from(one.get()) == Ok(length)),
        }
    }

    /// Returns all lengths that are named.
    pub fn lengths(&self) -> &[NonZeroU32] {
        match self {
            Self::Default(length) => std::slice::from_ref(length),
            Self::Only(lengths) => lengths,
        }
    }
}
