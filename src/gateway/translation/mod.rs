//! Requests in dialects that the workers do not speak: each is read, sent to workers as one or several calls, and answered
//! in its own dialect.
//!
//! Owns which calls a request becomes and how their answers are put together. The dialects themselves are in
//! `crate::dialect`; the wait for a slot, the choice of a worker and retries are those of any other request. A call holds
//! its ticket and its lease until its answer has been read; the permit and the record belong to the request.
//!
//! - `backends/`: calls as they are written for the worker that gets them
//! - `calls.rs`: sends the calls of one request, and collects the answers
//! - `cut.rs`: counts and cuts texts with the tokenizer of the model
//! - `embed/`: requests for embeddings
//! - `in_order.rs`: runs calls side by side
//! - `keep_alive.rs`: how long a model stays loaded for Ollama's clients
//! - `ollama.rs`: chats and completions of Ollama's clients
//! - `rerank.rs`: requests for scores
//! - `shared.rs`: what the requests of all dialects have in common
//! - `tei_info.rs`: what text-embeddings-inference says of its model
//! - `tokenize.rs`: requests for tokens
//! - `words.rs`: documents that a reranker without a ranking head scores

mod backends;
pub(super) mod calls;
mod cut;
mod embed;
mod in_order;
pub(super) mod keep_alive;
mod ollama;
mod rerank;
pub(super) mod shared;
pub(super) mod tei_info;
mod tokenize;
mod words;

use bytes::Bytes;
use http::{HeaderMap, Uri};

use super::request::body::RequestBody;
use super::request::envelope::Envelope;
use super::routes::route::{DialectFamily, Route};
use crate::refusal::{Refusal, Shape};
use calls::{CallSender, Calls};
use embed::EmbedTranslation;
pub(super) use embed::changes_answers_of;
use ollama::OllamaTranslation;
pub(super) use ollama::{StreamedCall, as_lines};
use rerank::RerankTranslation;
use shared::TranslationLimits;
use tokenize::TokenizeTranslation;

/// A request that was read from its dialect.
pub(super) enum DialectRequest {
    Rerank(RerankTranslation),
    Embed(EmbedTranslation),
    Ollama(OllamaTranslation),
    Tokenize(TokenizeTranslation),
}

impl DialectRequest {
    /// Reads a request of this route, if the route has dialects and the worker's own answer would not be right. Sets the
    /// shape in which its client expects errors, once it is known. `needs_reading` says whether a request for embeddings
    /// has to be read in any case.
    ///
    /// # Errors
    /// [`Refusal::InvalidParameter`] or [`Refusal::BadRequest`] if the request is not right in its dialect.
    pub(super) fn read(
        route: &Route,
        headers: &HeaderMap,
        (envelope, body): (&Envelope, &RequestBody),
        needs_reading: impl FnOnce() -> bool,
        limits: TranslationLimits,
        shape: &mut Shape,
    ) -> Result<Option<Self>, Refusal> {
        let Some(family) = route.dialects else { return Ok(None) };
        match family {
            DialectFamily::Rerank => {
                let text = body.to_bytes();
                let read = RerankTranslation::read(route, headers, &text, limits, shape);
                read.map(|request| Some(Self::Rerank(request)))
            }
            DialectFamily::Embed => Ok(EmbedTranslation::read(route, envelope, body, needs_reading)?.map(Self::Embed)),
            DialectFamily::Ollama => {
                OllamaTranslation::read(route, &body.to_bytes()).map(|request| Some(Self::Ollama(request)))
            }
            DialectFamily::Tokenize => {
                let read = TokenizeTranslation::read(&body.to_bytes());
                if !matches!(read, Ok(None)) {
                    *shape = Shape::Tei;
                }
                Ok(read?.map(Self::Tokenize))
            }
        }
    }

    /// Returns whether the client is one of Ollama's API, where each name of a model has a tag.
    pub(super) fn is_of_ollama(&self) -> bool {
        match self {
            Self::Rerank(_) | Self::Tokenize(_) => false,
            Self::Embed(embed) => embed.is_of_ollama(),
            Self::Ollama(_) => true,
        }
    }

    /// Returns whether the request is for tokens, in the API of text-embeddings-inference.
    pub(super) fn is_of_tokens(&self) -> bool {
        matches!(self, Self::Tokenize(_))
    }

    /// Returns the one call whose answer is passed on as a stream; `None` if the answer is written as a whole. `model` is
    /// the model that the request names.
    ///
    /// # Errors
    /// As `call_route`.
    pub(super) fn streamed_call(&self, model: Option<&str>) -> Result<Option<StreamedCall>, Refusal> {
        match self {
            Self::Rerank(_) | Self::Embed(_) | Self::Tokenize(_) => Ok(None),
            Self::Ollama(ollama) => ollama.streamed_call(model),
        }
    }

    /// Makes the calls and returns the body of the response.
    ///
    /// # Errors
    /// The refusal of a call, or what is wrong with its answer.
    pub(super) async fn answer<S: CallSender>(&self, calls: &Calls<'_, S>) -> Result<Bytes, Refusal> {
        match self {
            Self::Rerank(rerank) => rerank.answer(calls).await,
            Self::Embed(embed) => embed.answer(calls).await,
            Self::Ollama(ollama) => ollama.answer(calls).await,
            Self::Tokenize(tokenize) => tokenize.answer(calls).await,
        }
    }
}

/// Returns the route whose answer the client reads, and sets its path in the address. Two paths mean llama-server's own form
/// and OpenAI's: OpenAI's clients use them if their base address lacks `/v1`, and their bodies tell.
///
/// # Errors
/// [`Refusal::RouteNotFound`] if the query does not fit the other path, which has no rules of its own.
pub(super) fn meant_route(
    route: &'static Route,
    envelope: &Envelope,
    address: &mut Uri,
) -> Result<&'static Route, Refusal> {
    let is_openai = match route.path {
        "/embeddings" => envelope.has("input") && !envelope.has("content"),
        "/completions" => envelope.has("model"),
        _ => false,
    };
    if !is_openai {
        return Ok(route);
    }
    let meant = route.at_remote();
    *address = match address.query() {
        None => Uri::from_static(meant.path),
        Some(query) => format!("{}?{query}", meant.path).parse().map_err(|_| Refusal::RouteNotFound)?,
    };
    Ok(meant)
}
