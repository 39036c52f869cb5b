//! What Ollama's clients read about models: lists, states and descriptions, answered from memory.
//!
//! Owns which models they see and what is known of each. The form of the answers is in `dialect/ollama/models.rs`.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::dialect::ollama::{self, LoadedModel, ModelCapability, ModelCard};
use crate::fleet::{Model, ModelInfo, WorkerState};
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::NEVER_UNLOADED;
use crate::gateway::queue::model_queues::Snapshot;
use crate::gateway::routes::route::OllamaModels;
use crate::hex::hex;
use crate::models::{InputModality, ModelKind};
use crate::refusal::Refusal;

/// The version of Ollama whose API is served. Clients ask for it to know which members they may send.
const OLLAMA_VERSION: &str = "0.12.6";

/// Returns the answer to this caller. `name` is the model that the request names, if the route has one; `created` is when
/// the models count as changed.
///
/// # Errors
/// A refusal if there is no such model, if the caller may not use it, or if the request would change which models are here.
pub(super) fn respond(
    route: OllamaModels,
    name: &str,
    caller: &Caller,
    table: &Snapshot,
    created: Timestamp,
) -> Result<Value, Refusal> {
    match route {
        OllamaModels::Version => Ok(json!({"version": OLLAMA_VERSION})),
        OllamaModels::Tags => {
            let shown = table.names_shown_to(caller).filter(|(model, _)| model.info().pattern.is_none());
            let card = |(model, adapter): (&Model, Option<String>)| {
                let info = model.info();
                let card = card(&info, created);
                ModelCard { id: adapter.map_or_else(|| card.id.clone(), |adapter| info.id_with(&adapter)), ..card }
            };
            Ok(ollama::tags(&shown.map(card).collect::<Vec<_>>()))
        }
        OllamaModels::Loaded => {
            let is_loaded = |model: &&Model| model.state() == WorkerState::Ready && !model.is_remote();
            let loaded = table.models_shown_to(caller).filter(is_loaded).map(|model| LoadedModel {
                card: card(&model.info(), created),
                expires_at: Timestamp::now().checked_add(NEVER_UNLOADED).unwrap_or(Timestamp::MAX),
            });
            Ok(ollama::loaded(&loaded.collect::<Vec<_>>()))
        }
        OllamaModels::Show => {
            let found = table.find(name).or_else(|| table.find_by_pattern(name, caller));
            let model_queue = found.ok_or_else(|| table.model_not_found(Some(name), caller))?;
            let info = model_queue.model.info();
            caller.check_model_as(&info, Some(name))?;
            Ok(ollama::show(&card(&info, created)))
        }
        OllamaModels::Change => {
            Err(Refusal::NotServed("models come from the hub as they are: pull one with /api/pull"))
        }
    }
}

/// Returns what is known of a model.
fn card(info: &ModelInfo, created: Timestamp) -> ModelCard {
    let numbers = info.numbers.as_ref();
    ModelCard {
        id: info.id.clone(),
        modified_at: created,
        size: info.size_bytes,
        digest: digest_of(info),
        architecture: info.architecture.clone(),
        parameters: numbers.map(|numbers| numbers.n_params),
        quantization: info.quantization.clone(),
        context_length: info.context_length,
        embedding_length: numbers.and_then(|numbers| numbers.n_embd),
        capabilities: capabilities_of(info),
    }
}

/// Returns a digest of what tells a model from others: its weights are not read for that.
fn digest_of(info: &ModelInfo) -> String {
    let known = (&info.id, info.size_bytes, &info.architecture, &info.quantization);
    hex(&Sha256::digest(format!("{known:?}")))
}

fn capabilities_of(info: &ModelInfo) -> Vec<ModelCapability> {
    let reads = |input| info.input_modalities.contains(&input);
    let is_chat = info.kind == ModelKind::Chat;
    // Of a model that is not here the backend decides.
    let takes_tools = info.has_tools.unwrap_or(true);
    let all = [
        (ModelCapability::Completion, is_chat),
        (ModelCapability::Vision, is_chat && reads(InputModality::Image)),
        (ModelCapability::Audio, is_chat && reads(InputModality::Audio)),
        (ModelCapability::Tools, is_chat && takes_tools),
        (ModelCapability::Thinking, is_chat && info.has_thinking),
        (ModelCapability::Embedding, info.kind == ModelKind::Embedding),
    ];
    all.into_iter().filter_map(|(capability, is_there)| is_there.then_some(capability)).collect()
}
