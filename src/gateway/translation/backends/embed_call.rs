//! A call for embeddings, as it is written for the worker that gets it.

use std::ops::Range;
use std::sync::Arc;

use super::super::shared::refusal_of;
use super::apis::embed_dialect;
use crate::dialect::FieldError;
use crate::dialect::embed::{
    EmbedInput, EmbedRequest, WorkerEmbedCall, WorkerEmbedDialect, check_request, write_request,
};
use crate::gateway::request::worker_call::{WriteCall, WrittenCall};
use crate::refusal::Refusal;
use crate::settings::values::BackendApi;

/// A call for the vectors of some inputs of a request.
pub(in crate::gateway::translation) struct EmbedCall {
    pub(in crate::gateway::translation) request: Arc<EmbedRequest>,
    /// The inputs of the request as they are sent, if they differ from those that the client sent.
    pub(in crate::gateway::translation) prepared: Option<Arc<[EmbedInput]>>,
    /// The places of the inputs of this call among those of the request.
    pub(in crate::gateway::translation) part: Range<usize>,
    /// Whether the prompt that the request names stands before the inputs already.
    pub(in crate::gateway::translation) has_prefix: bool,
    /// Members that are added for a backend with OpenAI's API, each with a comma before it.
    pub(in crate::gateway::translation) members: Arc<[u8]>,
}

impl WriteCall for EmbedCall {
    fn check_api(&self, api: BackendApi) -> Result<(), Refusal> {
        let dialect = embed_dialect(api);
        let checked = self.check(api, dialect).and_then(|()| check_request(dialect, &self.worker_call("")));
        checked.map_err(refusal_of)
    }

    fn write(&self, api: BackendApi, model: &str) -> Result<WrittenCall, Refusal> {
        let dialect = embed_dialect(api);
        self.check(api, dialect).map_err(refusal_of)?;
        let mut text = write_request(dialect, &self.worker_call(model)).map_err(refusal_of)?;
        if dialect == WorkerEmbedDialect::OpenAi && !self.members.is_empty() && text.pop() == Some(b'}') {
            text.extend_from_slice(&self.members);
            text.push(b'}');
        }
        Ok(WrittenCall { path: dialect.path(), text })
    }
}

impl EmbedCall {
    /// Returns what a worker is asked that knows the model by this name.
    fn worker_call<'a>(&'a self, model: &'a str) -> WorkerEmbedCall<'a> {
        let request = &*self.request;
        let inputs = self.prepared.as_deref().unwrap_or(&request.inputs);
        WorkerEmbedCall {
            model,
            inputs: &inputs[self.part.clone()],
            cut: request.cut,
            prompt: request.prompt.as_ref().filter(|_| !self.has_prefix),
            is_normalized: request.is_normalized,
            dimensions: request.dimensions,
        }
    }

    /// Refuses what a worker with this API does not do.
    fn check(&self, api: BackendApi, dialect: WorkerEmbedDialect) -> Result<(), FieldError> {
        // llama-server knows a member for it, which others ignore.
        if !self.request.is_normalized && matches!(api, BackendApi::Vllm | BackendApi::Infinity) {
            return Err(FieldError::of(
                "normalized",
                "must be true: the backend of this model gives only normalised vectors",
            ));
        }
        // Members are there for remote backends alone: for others the inputs are cut here.
        let knows_tokens = dialect == WorkerEmbedDialect::OpenAi && api != BackendApi::Infinity;
        if self.request.most_tokens.is_some() && !self.members.is_empty() && !knows_tokens {
            let what = "must be -1: the backend of this model cuts only to its own context";
            return Err(FieldError::of("truncate_prompt_tokens", what));
        }
        let is_unknown = |field| field == "prompt_name" && !self.has_prefix && self.members.is_empty();
        match &self.request.prompt {
            Some(prompt) if is_unknown(prompt.field) && !dialect.can_take_prompts() => Err(FieldError::of(
                prompt.field,
                format_args!("{:?} is no prompt of this model: it has none", prompt.name),
            )),
            _ => Ok(()),
        }
    }
}
