//! What a model is and how its requests are treated, as it was configured. A reload can change both beneath its workers.

use crate::models::ModelKind;
use crate::settings::catalogue::Rewrite;
use crate::settings::values::Strategy;

/// What a model is, for those who ask which there are.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The id that clients use.
    pub id: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// What it is for.
    pub kind: ModelKind,
    /// The tier that it belongs to.
    pub tier: Option<String>,
    /// Whether lists leave it out.
    pub unlisted: bool,
    /// Bytes of its files, where they are here.
    pub size_bytes: Option<u64>,
    /// Tokens that a request may use, where that is known.
    pub context_length: Option<u64>,
    /// The quantisation, such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// The architecture, such as `qwen3`.
    pub architecture: Option<String>,
    /// Whether the file brings a chat template.
    pub has_chat_template: Option<bool>,
}

/// How a model's requests are treated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RoutingPolicy {
    /// What is changed in them.
    pub rewrite: Rewrite,
    /// How a worker is chosen.
    pub strategy: Strategy,
    /// Whether its own workers serve only when no remote one can.
    pub remote_first: bool,
    /// Names of the models or tiers that take over when it cannot serve, in this order.
    pub fallbacks: Vec<String>,
}

#[cfg(test)]
impl ModelInfo {
    /// That of a chat model, for tests.
    pub(crate) fn named(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            aliases: Vec::new(),
            kind: ModelKind::Chat,
            tier: None,
            unlisted: false,
            size_bytes: None,
            context_length: None,
            quantization: None,
            architecture: None,
            has_chat_template: None,
        }
    }
}
