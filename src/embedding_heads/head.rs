//! Which heads there are.

use std::fmt;

/// A head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Gives one weight for each token.
    Sparse,
    /// Gives one vector for each token.
    Colbert,
}

impl fmt::Display for Head {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Sparse => "sparse",
            Self::Colbert => "colbert",
        })
    }
}
