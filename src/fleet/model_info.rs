//! The description and the routing policy of a model, as configured. A reload can change both without a restart of the
//! workers.

use std::sync::Arc;

use super::adapters::ModelAdapters;
use crate::amount::Amount;
use crate::embedding_heads::EmbeddingHeads;
use crate::models::{InputModality, ModelKind, YesNoTokens};
use crate::settings::catalogue::{PoolRole, Rewrite};
use crate::settings::values::{Dimensions, NamePattern, ScoreSetting, Strategy};

/// The description of a model, for lists of models.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The id that clients use.
    pub id: String,
    /// What tells its configuration, and what was read of its files, from others.
    pub form: u64,
    /// Other names for the model.
    pub aliases: Vec<String>,
    /// Other names for the model that no client is shown.
    pub hidden_aliases: Vec<String>,
    /// The id as a pattern, if the model serves every name that matches it.
    pub pattern: Option<NamePattern>,
    /// Whether the model serves requests of its kind that name no model.
    pub is_default: bool,
    /// The place among the models that serve unknown names; the lowest comes first.
    pub stand_in: Option<usize>,
    /// The place in the pool of its kind, if it is in one.
    pub pool: Option<PoolRank>,
    /// The kind of requests that the model serves.
    pub kind: ModelKind,
    /// Whether the kind was configured or read from the model's file. A remote backend or a command without a configured
    /// kind counts as chat, but may serve any kind.
    pub has_known_kind: bool,
    /// The tier that the model belongs to.
    pub tier: Option<String>,
    /// Whether lists of models omit it.
    pub unlisted: bool,
    /// What the scores of a reranker mean.
    pub scores: ScoreSetting,
    /// The lengths of its vectors, if they are configured.
    pub dimensions: Option<Dimensions>,
    /// What is put before inputs for embeddings, by the name by which a request asks for it.
    pub prompts: Vec<(String, String)>,
    /// The words with which it answers, if it is a reranker without a ranking head.
    pub yes_no: Option<YesNoTokens>,
    /// What it is asked to look for, if that is configured and it is such a reranker.
    pub instruction: Option<String>,
    /// The heads for sparse and ColBERT vectors. Its workers then give the vectors of all tokens.
    pub heads: Option<Arc<EmbeddingHeads>>,
    /// Its adapters.
    pub adapters: ModelAdapters,
    /// Size of the model's files in bytes, if they are local.
    pub size_bytes: Option<u64>,
    /// Maximum number of tokens of a request, if known.
    pub context_length: Option<u64>,
    /// The quantisation, such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// The architecture, such as `qwen3`.
    pub architecture: Option<String>,
    /// Whether the file contains a chat template.
    pub has_chat_template: Option<bool>,
    /// Whether the chat template takes tools; `None` if the file is not here.
    pub has_tools: Option<bool>,
    /// Whether the chat template has a place for what the model thinks.
    pub has_thinking: bool,
    /// What else the file says; `None` if the model is not local.
    pub numbers: Option<ModelNumbers>,
    /// What the model reads; empty if that is not known, because its file is not here.
    pub input_modalities: Vec<InputModality>,
    /// Slots of each llama-server (`PARALLEL`), if llama-servers alone serve the model.
    pub slots: Option<usize>,
}

/// What a model's file says, under the names that llama-server uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelNumbers {
    /// Number of tokens that the model was trained for.
    pub n_ctx_train: Option<u64>,
    /// Length of an embedding.
    pub n_embd: Option<u64>,
    /// Number of tokens of the vocabulary.
    pub n_vocab: Option<u64>,
    /// How the vectors of tokens become one, as llama.cpp numbers it (`enum llama_pooling_type`).
    pub pooling_type: Option<u32>,
    /// The kind of the vocabulary, as llama.cpp numbers them (`enum llama_vocab_type`).
    pub vocab_type: Option<u32>,
    /// Number of weights.
    pub n_params: u64,
    /// Size of all weights in bytes.
    pub size: u64,
}

impl ModelInfo {
    /// Returns whether the model is for every kind of route: a pattern without a configured kind stands for models of any.
    pub fn is_any_kind(&self) -> bool {
        self.pattern.is_some() && !self.has_known_kind
    }

    /// Returns the id and all aliases.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.id).chain(&self.aliases).chain(&self.hidden_aliases)
    }

    /// Returns the adapter that a request for `asked` asks for: `MODEL:ADAPTER`, where the model is named by its id, an
    /// alias or its tier and id.
    pub fn adapter_in<'a>(&self, asked: &'a str) -> Option<&'a str> {
        // Most models have none, and every request would pay for the search for the colon.
        if !self.adapters.has_names() {
            return None;
        }
        let (base, adapter) = asked.rsplit_once(':').filter(|(_, adapter)| self.adapters.has(adapter))?;
        let is_tier = |tier: &str| self.tier.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(tier));
        let is_own = self.names().any(|name| name == base)
            || base.strip_suffix(self.id.as_str()).and_then(|tier| tier.strip_suffix('/')).is_some_and(is_tier);
        is_own.then_some(adapter)
    }

    /// Returns the id of the model with one of its adapters.
    pub fn id_with(&self, adapter: &str) -> String {
        format!("{}:{adapter}", self.id)
    }
}

/// The place of a model in the pool of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolRank {
    /// Whether it is one of those that share the requests, or serves when none of them can.
    pub role: PoolRole,
    /// The lowest comes first; models without one come last.
    pub priority: Option<u32>,
    /// How a model is chosen among those of the same priority.
    pub strategy: Strategy,
}

/// How a model's requests are treated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RoutingPolicy {
    /// Changes that are made to the requests.
    pub rewrite: Rewrite,
    /// How a worker is chosen.
    pub strategy: Strategy,
    /// Whether local workers serve only if no remote worker can.
    pub remote_first: bool,
    /// Whether requests wait for remote workers that do not answer.
    pub waits_for_remotes: bool,
    /// What an hour of a worker costs.
    pub price_per_hour: Amount,
    /// Names of the models or tiers that take over if this model cannot serve, in this order.
    pub fallbacks: Vec<String>,
}

impl ModelInfo {
    /// Creates the description of a chat model of which nothing else is known.
    #[must_use]
    pub fn named(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            form: 0,
            aliases: Vec::new(),
            hidden_aliases: Vec::new(),
            pattern: None,
            is_default: false,
            stand_in: None,
            pool: None,
            kind: ModelKind::Chat,
            has_known_kind: true,
            tier: None,
            unlisted: false,
            scores: ScoreSetting::Auto,
            dimensions: None,
            prompts: Vec::new(),
            yes_no: None,
            instruction: None,
            heads: None,
            adapters: ModelAdapters::default(),
            size_bytes: None,
            context_length: None,
            quantization: None,
            architecture: None,
            has_chat_template: None,
            has_tools: None,
            has_thinking: false,
            numbers: None,
            input_modalities: Vec::new(),
            slots: None,
        }
    }
}
