//! `scores`: what the scores of a reranker mean.

use super::value::{Rejected, Value};

/// How the scores of a reranker are put on the scale from 0 to 1 that clients read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScoreSetting {
    /// As the model's file or the dialect of its backend tells.
    #[default]
    Auto,
    /// They are passed on as they are.
    Raw,
    /// They are logits: each becomes its sigmoid.
    Sigmoid,
}

impl Value for ScoreSetting {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "raw" => Ok(Self::Raw),
            "sigmoid" => Ok(Self::Sigmoid),
            _ => Err(Rejected::new("auto, raw or sigmoid")),
        }
    }
}
