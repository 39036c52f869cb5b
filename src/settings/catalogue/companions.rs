//! What goes with a model besides its projector: adapters, a draft model, a chat template, machines that help.
//!
//! Owns the types. The configuration file is read in `file/companions.rs`; `preflight` finds the files.

use crate::settings::values::GpuLayers;

/// What `models:` names beside a model for its llama-server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompanionSettings {
    /// `lora`: the adapters, in the order in which llama-server numbers them.
    pub adapters: Vec<AdapterSetting>,
    /// `draft`: a file or a name of the model that drafts tokens.
    pub draft: Option<String>,
    /// `speculative`: how tokens are drafted.
    pub speculative: SpeculativeSetting,
    /// `chat_template`: a file, or the name of a template that llama-server has.
    pub chat_template: Option<String>,
    /// `rpc`: other machines that compute, as `HOST:PORT`.
    pub rpc: Vec<String>,
}

/// One entry of `lora`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSetting {
    /// A file or a name, as that of a model.
    pub file: String,
    /// How much it changes the model: 1 is as it was trained.
    pub scale: f32,
    /// The name by which requests ask for it, as `MODEL:NAME`; without one, requests for the model get it.
    pub name: Option<String>,
}

/// `speculative`: how tokens are drafted. What is not set is left to llama-server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpeculativeSetting {
    /// The ways to draft, such as `ngram-simple`, separated by commas.
    pub kind: Option<String>,
    /// Most tokens that are drafted at once.
    pub max: Option<u32>,
    /// Fewest tokens that are drafted at once.
    pub min: Option<u32>,
    /// Lowest probability of a drafted token.
    pub p_min: Option<f32>,
    /// Context of the draft model in tokens.
    pub ctx: Option<u32>,
    /// Layers of the draft model on the GPU.
    pub ngl: Option<GpuLayers>,
}

impl CompanionSettings {
    /// Returns the keys of `models:` that are set.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        let set = [
            ("lora", !self.adapters.is_empty()),
            ("draft", self.draft.is_some()),
            ("speculative", self.speculative != SpeculativeSetting::default()),
            ("chat_template", self.chat_template.is_some()),
            ("rpc", !self.rpc.is_empty()),
        ];
        set.into_iter().filter_map(|(key, is_set)| is_set.then_some(key))
    }

    /// Returns the names of adapters that are models of their own.
    pub fn adapter_names(&self) -> impl Iterator<Item = &String> {
        self.adapters.iter().filter_map(|adapter| adapter.name.as_ref())
    }
}
