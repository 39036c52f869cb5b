//! The description of a model for lists of models, from its configuration and the headers of its files.

use std::path::Path;

use crate::fleet::{ExtraInput, ModelInfo, ModelNumbers, PoolRank};
use crate::models::{self, Metadata};
use crate::preflight::CheckedModel;
use crate::settings::Config;
use crate::settings::catalogue::{Catalogue, EVERY_MODEL};
use crate::settings::values::NamePattern;

/// llama-server's arguments that name a multimodal projector.
const PROJECTOR_ARGUMENTS: [&str; 4] = ["--mmproj", "-mm", "--mmproj-url", "-mmu"];

/// Returns the description of a model, as its configuration and the headers of its files give it.
pub(super) fn info_of(model: &CheckedModel, config: &Config) -> ModelInfo {
    let (settings, file) = (&model.settings, model.file.as_ref());
    let has_name =
        |name: &String| *name == model.id || settings.aliases.contains(name) || settings.hidden_aliases.contains(name);
    let Catalogue { fallbacks, default_models, .. } = &config.catalogue;
    let stand_ins = fallbacks.get(EVERY_MODEL).map_or(&[][..], Vec::as_slice);
    let strategy = config.settings.routing.routing_strategy;
    let metadata = file.map(|file| &file.model.metadata);
    let configured = settings.local.as_ref().filter(|_| file.is_some()).map(|local| u64::from(local.engine.ctx.0));
    let trained = metadata.and_then(|metadata| metadata.context_length);
    ModelInfo {
        id: model.id.clone(),
        aliases: settings.aliases.clone(),
        hidden_aliases: settings.hidden_aliases.clone(),
        pattern: settings.is_wildcard.then(|| NamePattern::of(&model.id)).flatten(),
        is_default: default_models.iter().any(|(kind, name)| *kind == model.kind && has_name(name)),
        stand_in: stand_ins.iter().position(|name| has_name(name) || settings.tier.as_ref() == Some(name)),
        pool: settings.pool.map(|place| PoolRank { priority: place.priority, strategy }),
        kind: model.kind,
        has_known_kind: settings.kind.is_some() || file.is_some(),
        tier: settings.tier.clone(),
        unlisted: settings.unlisted,
        size_bytes: file.map(|file| file.model.size_bytes),
        // A context that is configured larger than the model was trained for is not usable.
        context_length: configured.map(|configured| trained.map_or(configured, |trained| trained.min(configured))),
        quantization: metadata.map(|metadata| metadata.quantization.clone()),
        architecture: metadata.map(|metadata| metadata.architecture.clone()),
        has_chat_template: metadata.map(|metadata| metadata.has_chat_template),
        numbers: metadata.map(numbers_of),
        reads: settings.local.as_ref().map(|local| extra_input(&local.engine.extra_args.words)).unwrap_or_default(),
        slots: (settings.local.as_ref())
            .filter(|_| file.is_some() && settings.remotes.is_empty())
            .map(|local| local.engine.parallel.get()),
    }
}

fn numbers_of(metadata: &Metadata) -> ModelNumbers {
    ModelNumbers {
        n_ctx_train: metadata.context_length,
        n_embd: metadata.embedding_length,
        n_vocab: metadata.vocabulary_size,
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

/// Returns what a llama-server with these arguments reads beside text: what its multimodal projector is for. Without a
/// projector, or if it cannot be read here, that is nothing or, as for projectors that do not say it, images.
fn extra_input(arguments: &[String]) -> ExtraInput {
    let mut values = arguments.iter().enumerate().filter_map(|(at, argument)| {
        let (name, value) =
            argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
        PROJECTOR_ARGUMENTS.contains(&name).then(|| value.or_else(|| arguments.get(at + 1).map(String::as_str)))
    });
    let Some(value) = values.next_back() else { return ExtraInput::default() };
    let projector = value.and_then(|path| models::gguf::read(Path::new(path)).ok());
    let flags = projector.map(|projector| (projector.has_vision_encoder, projector.has_audio_encoder));
    match flags {
        Some((vision, audio)) => ExtraInput { images: vision || !audio, audio },
        None => ExtraInput { images: true, audio: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sample::GgufSample;

    #[test]
    fn what_a_model_reads_beside_text_is_what_its_projector_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let projector = |name: &str, sample: GgufSample| sample.write(dir.path(), name).display().to_string();
        let old = projector("old.gguf", GgufSample::of("clip"));
        let vision = projector("vision.gguf", GgufSample::of("clip").flag("clip.has_vision_encoder", true));
        let audio = projector("audio.gguf", GgufSample::of("clip").flag("clip.has_audio_encoder", true));
        let both = GgufSample::of("clip").flag("clip.has_vision_encoder", true).flag("clip.has_audio_encoder", true);
        let both = projector("both.gguf", both);
        let input = |images, audio| ExtraInput { images, audio };
        for (arguments, expected) in [
            (vec![], input(false, false)),
            (vec!["--jinja"], input(false, false)),
            (vec!["--mmproj", &old], input(true, false)),
            (vec!["-mm", &vision], input(true, false)),
            (vec!["--mmproj", &audio], input(false, true)),
            (vec!["-b", "512", "--mmproj", &both, "--jinja"], input(true, true)),
            (vec![format!("--mmproj={both}").leak()], input(true, true)),
            (vec!["--mmproj", "/nowhere.gguf"], input(true, false)),
            (vec!["--mmproj-url", "https://host/m.gguf"], input(true, false)),
            (vec!["--mmproj"], input(true, false)),
        ] {
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            assert_eq!(extra_input(&arguments), expected, "{arguments:?}");
        }
    }
}
