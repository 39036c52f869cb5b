//! Which dialects a worker speaks, by its API: the one place where APIs of backends and dialects of workers meet.

use crate::dialect::WorkerTokenDialect;
use crate::dialect::embed::WorkerEmbedDialect;
use crate::dialect::rerank::WorkerRerankDialect;
use crate::fleet::Model;
use crate::gateway::request::proxied_request::route_not_in;
use crate::refusal::Refusal;
use crate::settings::values::BackendApi;

/// Returns the dialect in which a worker reranks.
///
/// # Errors
/// [`Refusal::RouteNotAtBackend`] if its API has no such route.
pub(in crate::gateway::translation) fn rerank_dialect(api: BackendApi) -> Result<WorkerRerankDialect, Refusal> {
    Ok(match api {
        BackendApi::OpenAi => WorkerRerankDialect::Llama,
        BackendApi::Vllm => WorkerRerankDialect::Vllm,
        BackendApi::Tei => WorkerRerankDialect::Tei,
        BackendApi::Cohere => WorkerRerankDialect::Cohere,
        BackendApi::Jina => WorkerRerankDialect::Jina,
        BackendApi::Voyage => WorkerRerankDialect::Voyage,
        BackendApi::Infinity => WorkerRerankDialect::Infinity,
        BackendApi::Ollama => return Err(route_not_in(api, "/v1/rerank")),
    })
}

/// Returns the dialect in which a worker embeds.
pub(in crate::gateway::translation) fn embed_dialect(api: BackendApi) -> WorkerEmbedDialect {
    match api {
        BackendApi::OpenAi | BackendApi::Vllm | BackendApi::Infinity => WorkerEmbedDialect::OpenAi,
        BackendApi::Tei => WorkerEmbedDialect::Tei,
        BackendApi::Cohere => WorkerEmbedDialect::Cohere,
        BackendApi::Jina => WorkerEmbedDialect::Jina,
        BackendApi::Voyage => WorkerEmbedDialect::Voyage,
        BackendApi::Ollama => WorkerEmbedDialect::Ollama,
    }
}

/// Returns the dialect of a worker's tokenizer.
///
/// # Errors
/// [`Refusal::RouteNotAtBackend`] if its API has no such route.
pub(in crate::gateway::translation) fn token_dialect(api: BackendApi) -> Result<WorkerTokenDialect, Refusal> {
    match api {
        BackendApi::OpenAi => Ok(WorkerTokenDialect::Llama),
        BackendApi::Vllm => Ok(WorkerTokenDialect::Vllm),
        BackendApi::Tei => Ok(WorkerTokenDialect::Tei),
        BackendApi::Cohere | BackendApi::Jina | BackendApi::Voyage | BackendApi::Infinity | BackendApi::Ollama => {
            Err(route_not_in(api, "/tokenize"))
        }
    }
}

/// Returns the least of the numbers that are given for the workers of a model, or `otherwise`, if that is less.
pub(in crate::gateway::translation) fn least(
    model: Option<&Model>,
    otherwise: usize,
    of_api: impl Fn(BackendApi) -> Option<usize>,
) -> usize {
    let members = model.into_iter().flat_map(Model::members);
    members.filter_map(|member| of_api(member.api)).fold(otherwise, usize::min)
}
