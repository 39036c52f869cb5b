//! The description of a model for lists of models, from its configuration and the headers of its files.

use super::form::form_of;
use super::known_prompts::known_prompts;
use crate::fleet::{ModelAdapters, ModelInfo, ModelNumbers, PoolRank};
use crate::models::{InputModality, Metadata, ModelKind};
use crate::preflight::CheckedModel;
use crate::settings::Config;
use crate::settings::catalogue::{Catalogue, EVERY_MODEL};
use crate::settings::values::NamePattern;

/// Returns the description of a model, as its configuration and the headers of its files give it.
pub(super) fn info_of(model: &CheckedModel, config: &Config) -> ModelInfo {
    let (settings, file) = (&model.settings, model.file.as_ref());
    let has_name =
        |name: &String| *name == model.id || settings.aliases.contains(name) || settings.hidden_aliases.contains(name);
    let Catalogue { fallbacks, default_models, .. } = &config.catalogue;
    let stand_ins = fallbacks.get(EVERY_MODEL).map_or(&[][..], Vec::as_slice);
    let routing = &config.settings.routing;
    let pool = settings.pool_role(routing.fallback_to_local).map(|role| PoolRank {
        role,
        priority: settings.pool.and_then(|place| place.priority),
        strategy: routing.routing_strategy,
    });
    let metadata = file.map(|file| &file.model.metadata);
    let configured = settings.local.as_ref().filter(|_| file.is_some()).map(|local| u64::from(local.engine.ctx.0));
    let trained = metadata.and_then(|metadata| metadata.context_length);
    ModelInfo {
        id: model.id.clone(),
        form: form_of(model, config),
        aliases: settings.aliases.clone(),
        hidden_aliases: settings.hidden_aliases.clone(),
        pattern: settings.is_wildcard.then(|| NamePattern::of(&model.id)).flatten(),
        is_default: default_models.iter().any(|(kind, name)| *kind == model.kind && has_name(name)),
        stand_in: stand_ins.iter().position(|name| has_name(name) || settings.tier.as_ref() == Some(name)),
        pool,
        kind: model.kind,
        has_known_kind: settings.kind.is_some() || file.is_some(),
        tier: settings.tier.clone(),
        unlisted: settings.unlisted,
        scores: settings.scores,
        dimensions: settings.dimensions.clone().filter(|_| model.kind == ModelKind::Embedding),
        prompts: prompts_of(model),
        yes_no: model.yes_no_answers(),
        instruction: settings.instruction.clone().filter(|_| model.yes_no_answers().is_some()),
        heads: model.heads.clone(),
        adapters: file.map_or_else(ModelAdapters::default, |_| adapters_of(model)),
        size_bytes: file.map(|file| file.model.size_bytes),
        // A context that is configured larger than the model was trained for is not usable.
        context_length: configured.map(|configured| trained.map_or(configured, |trained| trained.min(configured))),
        quantization: metadata.map(|metadata| metadata.quantization.clone()),
        architecture: metadata.map(|metadata| metadata.architecture.clone()),
        has_chat_template: metadata.map(|metadata| metadata.has_chat_template),
        has_tools: metadata.map(|metadata| metadata.template_has_tools),
        has_thinking: metadata.is_some_and(|metadata| metadata.template_has_thinking),
        numbers: metadata.map(numbers_of),
        input_modalities: file.map_or_else(Vec::new, |file| {
            let added = file.projector.iter().flat_map(|projector| projector.modalities.iter().copied());
            std::iter::once(InputModality::Text).chain(added).collect()
        }),
        slots: (settings.local.as_ref())
            .filter(|_| file.is_some() && settings.remotes.is_empty())
            .map(|local| local.engine.parallel.get()),
    }
}

fn adapters_of(model: &CheckedModel) -> ModelAdapters {
    model.settings.local.as_ref().map(|local| ModelAdapters::of(&local.companions.adapters)).unwrap_or_default()
}

/// Returns what is put before inputs: what is configured, else what is known of the model by the name in its file, or by
/// its id.
fn prompts_of(model: &CheckedModel) -> Vec<(String, String)> {
    if let Some(prompts) = &model.settings.prompts {
        return prompts.clone();
    }
    let Some(file) = model.file.as_ref().filter(|_| model.kind == ModelKind::Embedding) else { return Vec::new() };
    let file_name = file.path.file_stem().unwrap_or_default().to_string_lossy();
    let names = file.model.metadata.name.as_deref().into_iter().chain([&*file_name]);
    let known = names.map(known_prompts).find(|prompts| !prompts.is_empty()).unwrap_or_default();
    known.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn numbers_of(metadata: &Metadata) -> ModelNumbers {
    ModelNumbers {
        n_ctx_train: metadata.context_length,
        n_embd: metadata.embedding_length,
        n_vocab: metadata.vocabulary_size,
        pooling_type: metadata.pooling_type,
        vocab_type: metadata.tokenizer.as_deref().and_then(vocab_type),
        n_params: metadata.parameters,
        size: metadata.tensor_bytes,
    }
}

/// Returns llama.cpp's number for a kind of tokenizer (`enum llama_vocab_type`), which a file names.
fn vocab_type(tokenizer: &str) -> Option<u32> {
    const NAMES: [&[&str]; 7] =
        [&["none", "no_vocab"], &["llama"], &["gpt2"], &["bert"], &["t5"], &["rwkv"], &["plamo2"]];
    NAMES.iter().position(|names| names.contains(&tokenizer)).and_then(|number| u32::try_from(number).ok())
}
