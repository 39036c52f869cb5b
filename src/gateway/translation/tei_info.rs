//! `GET /info` of text-embeddings-inference: what its clients ask before they send texts.
//!
//! Such a server has one model. Where there are several here, the query names one.

use serde::Serialize;
use serde_json::{Value, json};

use super::shared::TranslationLimits;
use crate::dialect::MOST_EMBED_INPUTS;
use crate::fleet::{Model, ModelInfo};
use crate::gateway::admission::auth::Caller;
use crate::gateway::queue::model_queues::Snapshot;
use crate::gateway::request::envelope::model_of_query;
use crate::models::ModelKind;
use crate::refusal::Refusal;

/// A model in the words of text-embeddings-inference (`Info` in its router). What is not known is left out.
#[derive(Serialize)]
pub(in crate::gateway) struct TeiInfo {
    model_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_dtype: Option<String>,
    model_type: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrent_requests: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_input_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_batch_tokens: Option<u64>,
    max_client_batch_size: usize,
    auto_truncate: bool,
    version: &'static str,
}

/// Describes a model: the one that the query names, else the only model for embeddings or scores, else the only
/// default model for them.
///
/// # Errors
/// [`Refusal::ModelNotFound`] if there is none, or none that can be told from others; [`Refusal::BadRequest`] for a query
/// that names two.
pub(in crate::gateway) fn describe(
    query: &str,
    caller: &Caller,
    table: &Snapshot,
    limits: TranslationLimits,
) -> Result<TeiInfo, Refusal> {
    let named = model_of_query(query)?.filter(|name| !name.is_empty());
    let models = models(caller, table);
    let id = match &named {
        Some(name) => table.find(name).map(|found| found.model.id().to_owned()),
        None => default_of(&models),
    };
    let info = id.and_then(|id| models.iter().find(|model| model.id() == id)).map(|model| model.info());
    let Some((info, model_type)) = info.and_then(|info| model_type(&info).map(|model_type| (info, model_type))) else {
        let known = models.iter().map(|model| model.id().to_owned()).collect();
        return Err(Refusal::ModelNotFound { in_query: named.is_none(), name: named, known });
    };
    let max_client_batch_size =
        if info.kind == ModelKind::Rerank { limits.max_rerank_documents } else { MOST_EMBED_INPUTS };
    Ok(TeiInfo {
        model_id: info.id.clone(),
        model_dtype: info.quantization.clone(),
        model_type,
        max_concurrent_requests: info.slots,
        max_input_length: info.context_length,
        max_batch_tokens: info.context_length,
        max_client_batch_size,
        auto_truncate: false,
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Returns the id of the model that `/info` describes if its query names none.
pub(in crate::gateway) fn default_model(caller: &Caller, table: &Snapshot) -> Option<String> {
    default_of(&models(caller, table))
}

/// Returns the models for embeddings and scores that this caller may use.
fn models<'t>(caller: &'t Caller, table: &'t Snapshot) -> Vec<&'t Model> {
    table.models_shown_to(caller).filter(|model| model_type(&model.info()).is_some()).collect()
}

/// Returns the id of the only model, else of the only default model.
fn default_of(models: &[&Model]) -> Option<String> {
    let only = |models: &[&Model]| if let [one] = models { Some(one.id().to_owned()) } else { None };
    let defaults = || models.iter().filter(|model| model.info().is_default).copied().collect::<Vec<_>>();
    only(models).or_else(|| only(&defaults()))
}

/// Returns the type of a model; `None` for one that is neither for embeddings nor for scores.
fn model_type(info: &ModelInfo) -> Option<Value> {
    let pooling = match info.numbers.as_ref().and_then(|numbers| numbers.pooling_type) {
        Some(2) => "cls",
        Some(3) => "last_token",
        _ => "mean",
    };
    match info.kind {
        ModelKind::Embedding => Some(json!({"embedding": {"pooling": pooling}})),
        ModelKind::Rerank => Some(json!({"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}})),
        ModelKind::Chat => None,
    }
}
