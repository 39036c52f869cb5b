//! Requests for embeddings: calls for parts of the inputs, whose vectors are put together, cut, normalised and encoded as
//! the client asks. How a call is written for its worker is in `backends/`.

use std::sync::Arc;

use bytes::Bytes;

use super::super::backends::{EmbedCall, embed_dialect, least};
use super::super::calls::{CallBody, CallSender, Calls};
use super::super::in_order::{OneOfMany, in_order};
use super::super::keep_alive::KeptAlive;
use super::super::shared::{answer_id, call_route, refusal_of};
use super::heads;
use super::inputs::{self, PreparedInputs};
use super::plain::{is_own_form, is_plain};
use super::vector_lengths::{check_dimensions, check_widths, default_length};
use crate::dialect::FieldError;
use crate::dialect::embed::{
    self, EmbedAnswer, EmbedDialect, EmbedInput, EmbedRequest, PromptRole, WorkerEmbedDialect, WorkerVectors,
};
use crate::fleet::{Model, ModelInfo};
use crate::gateway::bounds::INPUTS_PER_CALL;
use crate::gateway::request::body::RequestBody;
use crate::gateway::request::envelope::Envelope;
use crate::gateway::response::served_by::ServedBy;
use crate::gateway::routes::route::Route;
use crate::refusal::Refusal;

/// Members of a request in OpenAI's form that are written by themselves, or obeyed here whatever the worker does.
const OWN_MEMBERS: &[&str] =
    &["model", "input", "encoding_format", "output_dtype", "embedding_type", "encoding_type", "stream"];

/// Members that ask for a prefix. A remote backend does not get them where the prefix was put before the texts here.
const PROMPT_MEMBERS: &[&str] = &["input_type", "task", "prompt_name"];

/// A request for embeddings.
pub(crate) struct EmbedTranslation {
    request: Arc<EmbedRequest>,
    /// What else the request says in OpenAI's form, for remote backends, which may know more than is known here: members
    /// with a comma before each.
    members: Arc<[u8]>,
    /// The same without [`PROMPT_MEMBERS`].
    members_without_prompt: Arc<[u8]>,
}

impl EmbedTranslation {
    /// Reads a request; returns `None` if the worker's own answer to it is right. `needs_reading` says whether the model that
    /// it means needs it read in any case, because of a setting or of the API of a worker.
    ///
    /// # Errors
    /// As `DialectRequest::read`.
    pub(in crate::gateway::translation) fn read(
        route: &Route,
        envelope: &Envelope,
        body: &RequestBody,
        needs_reading: impl FnOnce() -> bool,
    ) -> Result<Option<Self>, Refusal> {
        let is_openai = matches!(route.path, "/v1/embeddings" | "/embeddings");
        if is_openai && is_plain(envelope, body) && (is_own_form(envelope) || !needs_reading()) {
            return Ok(None);
        }
        let request = embed::parse(route.path, &body.to_bytes()).map_err(refusal_of)?;
        let is_openai = request.format.dialect == EmbedDialect::OpenAi;
        let members = |without: &[&str]| match is_openai {
            true => envelope.members_without(body, without),
            false => Vec::new(),
        };
        let members_without_prompt = members(&[OWN_MEMBERS, PROMPT_MEMBERS].concat());
        let (members, members_without_prompt) = (members(OWN_MEMBERS).into(), members_without_prompt.into());
        Ok(Some(Self { members, members_without_prompt, request: Arc::new(request) }))
    }

    /// Returns whether the client is one of Ollama's API.
    pub(in crate::gateway::translation) fn is_of_ollama(&self) -> bool {
        matches!(self.request.format.dialect, EmbedDialect::OllamaEmbed | EmbedDialect::OllamaEmbeddings)
    }

    /// Makes the calls and returns the body of the response.
    ///
    /// # Errors
    /// As `DialectRequest::answer`.
    pub(in crate::gateway::translation) async fn answer<S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
    ) -> Result<Bytes, Refusal> {
        let request = &*self.request;
        let model = calls.model();
        let info = model.as_ref().map(|model| Arc::clone(&model.info()));
        if !heads::is_pooled(request.wanted) {
            heads::check_heads(request.wanted, &calls.find_model()?.info())?;
        }
        let is_remote = model.as_ref().is_some_and(|model| model.is_remote());
        check_dimensions(request, info.as_deref()).map_err(refusal_of)?;
        let may_know_prompts = model.is_some_and(|model| may_know_prompts(request, model));
        let prefix = prefix_of(request, info.as_deref(), may_know_prompts).map_err(refusal_of)?;
        let prepared = inputs::prepare(calls, request, info.as_deref(), prefix).await?;
        let members = match (is_remote, prefix) {
            (false, _) => Arc::default(),
            (true, None) => Arc::clone(&self.members),
            (true, Some(_)) => Arc::clone(&self.members_without_prompt),
        };
        let PreparedInputs(prepared) = prepared;
        if info.as_ref().is_some_and(|info| info.heads.is_some()) {
            return heads::answer(calls, request, prepared.as_deref().unwrap_or(&request.inputs)).await;
        }
        let inputs = request.inputs.len();
        let most = least(model.map(|model| &**model), INPUTS_PER_CALL, |api| embed_dialect(api).most_inputs());
        let mut parts: Vec<OneOfMany<'_, _, _>> = Vec::with_capacity(inputs.div_ceil(most));
        for first in (0..inputs).step_by(most) {
            let call = EmbedCall {
                request: Arc::clone(&self.request),
                prepared: prepared.clone(),
                part: first..inputs.min(first + most),
                has_prefix: prefix.is_some(),
                members: Arc::clone(&members),
            };
            parts.push(Box::pin(self.call(calls, call)));
        }
        let (mut vectors, mut prompt_tokens) = (Vec::with_capacity(inputs), Some(0));
        let mut served_by = None;
        for (part, part_served_by) in in_order(parts, calls.at_once()).await? {
            vectors.extend(part.vectors);
            prompt_tokens = prompt_tokens.zip(part.prompt_tokens).map(|(sum, tokens)| sum + tokens);
            served_by.get_or_insert(part_served_by);
        }
        if let Some((served_by, time)) = served_by.as_ref().zip(request.keep_alive) {
            KeptAlive::apply(&served_by.model, time);
        }
        let served_by = served_by.map(|served_by| served_by.model.info());
        let default = served_by.as_ref().and_then(|info| default_length(info));
        check_widths(&vectors)?;
        embed::shape(request, default, &mut vectors).map_err(refusal_of)?;
        let named = calls.requested_model().or(served_by.as_ref().map(|info| info.id.as_str()));
        let model = named.unwrap_or_default().to_owned();
        let answer = EmbedAnswer { model, vectors, prompt_tokens, ..EmbedAnswer::default() };
        Ok(embed::write(request, &answer, &answer_id("embd")).into())
    }

    /// Asks for the vectors of some of the inputs.
    async fn call<S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
        call: EmbedCall,
    ) -> Result<(WorkerVectors, ServedBy), Refusal> {
        let (request, part) = (&*self.request, call.part.clone());
        let route = call_route(WorkerEmbedDialect::OpenAi.path())?;
        let answer = calls.call(route, CallBody::Written(Arc::new(call))).await;
        let answer = answer.map_err(|refusal| inputs::name_part(request, part.clone(), refusal))?;
        let read = embed::read_answer(embed_dialect(answer.served_by.member.api), &answer.body, part.len());
        let mut vectors = read.map_err(|error| Refusal::BadBackendAnswer(error.to_string()))?;
        vectors.prompt_tokens = vectors.prompt_tokens.or(answer.tokens_of_header);
        Ok((vectors, answer.served_by))
    }
}

/// Returns whether a worker of the model may know the prompt that the request names, where the model has none here.
fn may_know_prompts(request: &EmbedRequest, model: &Model) -> bool {
    let is_passed_on = model.is_remote() && request.format.dialect == EmbedDialect::OpenAi;
    is_passed_on || model.members().any(|member| embed_dialect(member.api).can_take_prompts())
}

/// Returns the text that stands before each input; `None` if there is none. `may_know_prompts` says whether a worker may
/// have prompts of its own.
///
/// # Errors
/// The request names a prompt that the model lacks, by `prompt_name`, or wants one before token ids.
fn prefix_of<'a>(
    request: &EmbedRequest,
    info: Option<&'a ModelInfo>,
    may_know_prompts: bool,
) -> Result<Option<&'a str>, FieldError> {
    let (Some(prompt), Some(info)) = (&request.prompt, info) else { return Ok(None) };
    let named = |name: &str| info.prompts.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str());
    let of_role = || match prompt.role()? {
        PromptRole::Query => named("query"),
        PromptRole::Document => named("document"),
    };
    let is_for_backend = may_know_prompts && info.prompts.is_empty();
    let Some(text) = named(&prompt.name).or_else(of_role) else {
        if prompt.field != "prompt_name" || is_for_backend {
            return Ok(None);
        }
        let known: Vec<&str> = info.prompts.iter().map(|(name, _)| name.as_str()).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        return Err(FieldError::of(
            prompt.field,
            format_args!("{:?} is no prompt of this model: {known}", prompt.name),
        ));
    };
    if request.inputs.iter().any(|input| matches!(input, EmbedInput::Tokens(_))) {
        return Err(FieldError::of(
            prompt.field,
            "needs inputs that are text, before which the model's prompt can stand",
        ));
    }
    Ok(Some(text))
}

/// Returns whether the workers of this model never give what a request wants: because of the length of its vectors for
/// requests that name none, or because they give the vectors of all tokens.
pub(in crate::gateway) fn changes_answers_of(info: &ModelInfo) -> bool {
    info.heads.is_some() || default_length(info).is_some()
}
