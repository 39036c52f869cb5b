//! Requests for scores: one call for each query, or several where a worker takes fewer documents, whose scores are put on
//! the scale that the client reads. How a call is written for its worker is in `backends/`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::backends::{RerankCallBody, least, rerank_dialect};
use super::calls::{CallAnswer, CallBody, CallSender, Calls};
use super::cut::{self, TokenLimit};
use super::in_order::{OneOfMany, in_order};
use super::shared::{TranslationLimits, answer_id, call_route, refusal_of};
use super::words::WordReranker;
use crate::dialect::rerank::{
    self, DocumentCut, RerankAnswer, RerankCall, RerankDialect, RerankRequest, RerankRoute, ScoreScale,
    WorkerRerankDialect, WorkerScores,
};
use crate::fleet::{ModelInfo, Unavailable, WorkerKind};
use crate::gateway::bounds::CALLS_AT_ONCE;
use crate::gateway::response::served_by::ServedBy;
use crate::gateway::routes::route::Route;
use crate::refusal::{Refusal, Shape};
use crate::settings::values::ScoreSetting;

/// Architectures whose rerankers answer with probabilities: llama.cpp computes the softmax over the answers "yes" and "no"
/// itself.
const PROBABILITY_ARCHITECTURES: [&str; 2] = ["qwen3", "qwen3vl"];

/// Tokens that a model puts around a query and a document: beginning, separators, end.
const SEPARATOR_TOKENS: usize = 4;

/// Most tokens of the template around them, of models that have one.
const TEMPLATE_TOKENS: usize = 128;

/// The header by which Pinecone's clients can be told from others.
const PINECONE_VERSION: &str = "x-pinecone-api-version";

/// The answer to a call, and the scores in it.
type Answered = (CallAnswer, WorkerScores);

/// A request for scores.
pub(crate) struct RerankTranslation(Arc<RerankRequest>);

impl RerankTranslation {
    /// Reads a request.
    ///
    /// # Errors
    /// As `DialectRequest::read`.
    pub(super) fn read(
        route: &Route,
        headers: &HeaderMap,
        text: &[u8],
        limits: TranslationLimits,
        shape: &mut Shape,
    ) -> Result<Self, Refusal> {
        let most_documents = limits.max_rerank_documents;
        let is_pinecone = headers.contains_key(PINECONE_VERSION);
        let route = RerankRoute { path: route.path, is_pinecone, most_documents };
        let request = rerank::parse(&route, text);
        let dialect = match &request {
            Ok(request) => Some(request.format.dialect),
            Err(_) => rerank::find_dialect(&route, text),
        };
        match dialect {
            Some(RerankDialect::Tei) => *shape = Shape::Tei,
            Some(RerankDialect::Voyage) => *shape = Shape::Voyage,
            _ => {}
        }
        request.map(Arc::new).map(Self).map_err(refusal_of)
    }

    /// Makes the calls and returns the body of the response.
    ///
    /// # Errors
    /// As `DialectRequest::answer`.
    pub(super) async fn answer<S: CallSender>(&self, calls: &Calls<'_, S>) -> Result<Bytes, Refusal> {
        let request = &*self.0;
        let mut scores = vec![f64::NAN; request.documents.len()];
        let mut scales = vec![ScoreScale::Unknown; request.documents.len()];
        let (mut prompt_tokens, mut model) = (None, None);
        let (wanted, made) = self.ask(calls).await?;
        for (call, (answer, scored)) in wanted.iter().zip(made) {
            let scale = scale_of(&answer.served_by)?;
            for (at, score) in call.documents.iter().zip(scored.scores) {
                (scores[*at], scales[*at]) = (score, scale);
            }
            prompt_tokens = scored.prompt_tokens.map(|tokens| tokens + prompt_tokens.unwrap_or(0)).or(prompt_tokens);
            model.get_or_insert(answer.served_by.model);
        }
        if !request.wants_raw_scores {
            rerank::to_probabilities(&mut scores, &scales);
        }
        let named = calls.requested_model().or(model.as_deref().map(|model| model.id()));
        let answer = RerankAnswer { model: named.unwrap_or_default().to_owned(), scores, prompt_tokens };
        let written = rerank::write(request, &answer, &answer_id("rerank"));
        written.map(Bytes::from).map_err(|error| Refusal::BadBackendAnswer(error.to_string()))
    }

    /// Makes the calls, and returns them with what was answered. Models that take over for a reranker that answers with words
    /// get calls of their own.
    async fn ask<S: CallSender>(&self, calls: &Calls<'_, S>) -> Result<(Vec<RerankCall<'_>>, Vec<Answered>), Refusal> {
        let model = calls.model();
        let reranker = model.and_then(|model| WordReranker::of(&model.info()));
        let has_others = model.is_some_and(|model| !model.policy().fallbacks.is_empty());
        let is_up = || {
            use Unavailable::{Blocked, BreakerOpen, Down, Failed};
            model.is_some_and(|model| !matches!(model.available(), Err(Blocked | BreakerOpen | Down | Failed)))
        };
        let mut failure = None;
        if let Some(reranker) = reranker.filter(|_| !has_others || is_up()) {
            let wanted = self.0.calls_by_document();
            let one = |call| -> OneOfMany<'_, _, _> { Box::pin(reranker.score(calls, &self.0, call)) };
            match in_order(wanted.iter().map(one).collect(), calls.at_once()).await {
                Ok(made) => return Ok((wanted, made)),
                Err(refusal) if has_others && refusal.status().is_server_error() => failure = Some(refusal),
                Err(refusal) => return Err(refusal),
            }
        }
        let of_api = |api| rerank_dialect(api).ok().and_then(WorkerRerankDialect::most_documents);
        let most = least(model.map(|model| &**model), usize::MAX, of_api);
        let wanted = in_parts(self.0.calls(), most);
        let one = |call| -> OneOfMany<'_, _, _> { Box::pin(self.call(calls, call)) };
        let made = in_order(wanted.iter().map(one).collect(), calls.at_once()).await;
        // Where no other model can serve either, the refusal is that of the request's own.
        made.map(|made| (wanted, made)).map_err(|other| failure.filter(|_| other.is_transient()).unwrap_or(other))
    }

    /// Asks for the scores of the documents of one query.
    async fn call<S: CallSender>(&self, calls: &Calls<'_, S>, call: &RerankCall<'_>) -> Result<Answered, Refusal> {
        let (documents, is_cut) = match self.documents_of(calls, call).await {
            Err(refusal) if cut::may_go_uncounted(calls, &refusal) => (vec![None; call.documents.len()], false),
            prepared => prepared?,
        };
        let body =
            RerankCallBody { request: Arc::clone(&self.0), places: call.documents.clone(), cut: documents, is_cut };
        let route = call_route(WorkerRerankDialect::Llama.path())?;
        let answer = calls.call(route, CallBody::Written(Arc::new(body))).await?;
        let mut scored = rerank::read_answer(&answer.body, call.documents.len())
            .map_err(|error| Refusal::BadBackendAnswer(error.to_string()))?;
        scored.prompt_tokens = scored.prompt_tokens.or(answer.tokens_of_header);
        Ok((answer, scored))
    }

    /// Returns those documents of a call that were cut, where the request allows it and the tokenizer of the model is here,
    /// and whether it is.
    async fn documents_of<S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
        call: &RerankCall<'_>,
    ) -> Result<(Vec<Option<String>>, bool), Refusal> {
        let documents = call.documents.iter().map(|at| (*at, self.0.documents[*at].text.as_str()));
        let Some(room) = self.room(calls, call).await? else {
            return Ok((vec![None; call.documents.len()], false));
        };
        let name = self.0.format.dialect.documents_name();
        let fit = |(at, text)| -> OneOfMany<'_, _, _> {
            Box::pin(cut::fit(calls, move || format!("{name}[{at}]"), text, room))
        };
        let fitted = in_order(documents.map(fit).collect(), CALLS_AT_ONCE).await?;
        let changed = |text| if let Cow::Owned(text) = text { Some(text) } else { None };
        Ok((fitted.into_iter().map(changed).collect(), true))
    }

    /// Returns how many tokens a document may have beside the query; `None` if no local worker can tell.
    async fn room<S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
        call: &RerankCall<'_>,
    ) -> Result<Option<TokenLimit>, Refusal> {
        let Some(info) = calls.model().map(|model| model.info()) else { return Ok(None) };
        let Some(context) = info.context_length.and_then(|tokens| usize::try_from(tokens).ok()) else {
            return Ok(None);
        };
        let (document, prompt, cut) = match self.0.cut {
            DocumentCut::Never => (None, None, None),
            DocumentCut::Allowed { document, prompt, side } => (document, prompt, Some(side)),
        };
        let template = if is_probability(&info) { TEMPLATE_TOKENS } else { SEPARATOR_TOKENS };
        let limit = prompt.unwrap_or(context).min(context).saturating_sub(template);
        let is_long = |at: &usize| self.0.documents[*at].text.len() + call.query.len() > limit;
        let query = match call.documents.iter().any(is_long) {
            true => cut::count_tokens(calls, call.query).await?,
            // An upper bound: all documents fit beside it.
            false => call.query.len(),
        };
        let Some(room) = limit.checked_sub(query).filter(|room| *room > 0) else {
            let message = format!("query has {query} tokens, and the model has room for {limit} with a document");
            return Err(Refusal::InvalidParameter { field: "query".to_owned(), message });
        };
        Ok(Some(TokenLimit { tokens: document.map_or(room, |document| document.min(room)), cut }))
    }
}

/// Returns whether a reranker of this model answers with probabilities. Of words, the logit is computed here.
fn is_probability(info: &ModelInfo) -> bool {
    info.yes_no.is_none()
        && info.architecture.as_deref().is_some_and(|architecture| PROBABILITY_ARCHITECTURES.contains(&architecture))
}

/// Returns the calls with at most this many documents each.
fn in_parts(calls: Vec<RerankCall<'_>>, most: usize) -> Vec<RerankCall<'_>> {
    let mut parts = Vec::with_capacity(calls.len());
    for RerankCall { query, documents } in calls {
        parts.extend(documents.chunks(most).map(|documents| RerankCall { query, documents: documents.to_vec() }));
    }
    parts
}

/// Returns what the scores of this worker mean, where a request does not ask for logits.
///
/// # Errors
/// As [`rerank_dialect`].
fn scale_of(served_by: &ServedBy) -> Result<ScoreScale, Refusal> {
    let info = served_by.model.info();
    Ok(match (info.scores, served_by.member.kind) {
        (ScoreSetting::Raw, _) => ScoreScale::Probabilities,
        (ScoreSetting::Sigmoid, _) => ScoreScale::Logits,
        (ScoreSetting::Auto, WorkerKind::Local) if is_probability(&info) => ScoreScale::Probabilities,
        (ScoreSetting::Auto, WorkerKind::Local) => ScoreScale::Logits,
        (ScoreSetting::Auto, WorkerKind::Command | WorkerKind::Remote) => {
            rerank_dialect(served_by.member.api)?.scale(false)
        }
    })
}
