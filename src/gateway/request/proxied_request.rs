//! A whole request: what it asks for, and its form for the worker of each attempt.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method};

use super::adapters::{self, LORA, takes_lora};
use super::answer_facts::AnswerFacts;
use super::body::RequestBody;
use super::envelope::{self, Envelope};
use super::response_format;
use super::rewrite::{Edit, rewrite_body, stream_options_with_usage};
use super::session;
use super::worker_call::WorkerCall;
use crate::fleet::{Fingerprint, Lease, Model, ModelInfo, RequestClass, WorkerKind};
use crate::gateway::queue::ModelQueue;
use crate::gateway::queue::model_queues::Snapshot;
use crate::gateway::routes::route::{Route, StreamEnd};
use crate::models::ModelKind;
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use crate::settings::values::{BackendApi, Strategy};

/// The members of a completion with a suffix, as llama-server's `/infill` names them.
const INFILL_NAMES: [(&str, &str, Option<&str>); 3] =
    [("prompt", "input_prefix", Some("\"\"")), ("suffix", "input_suffix", Some("\"\"")), ("random_seed", "seed", None)];

/// A client's request that will be sent to a worker.
pub(crate) struct ProxiedRequest {
    pub(crate) route: &'static Route,
    /// The kind of model that the route needs; `None` if any will do.
    pub(crate) required_kind: Option<ModelKind>,
    pub(crate) parts: Box<Parts>,
    pub(crate) request_id: HeaderValue,
    /// The model's name as the client wrote it.
    pub(crate) requested_model: Option<Arc<str>>,
    pub(crate) envelope: Envelope,
    pub(crate) body: RequestBody,
    pub(crate) role: RequestRole,
    /// The id of the model that the request was written for, if no other can read it.
    pub(crate) only_model: Option<String>,
    /// What the body is written from, if that depends on the worker.
    pub(crate) call: Option<WorkerCall>,
    /// The deadline that all calls of a translated request share, set by the first attempt at one of them.
    pub(crate) shared_deadline: Option<Arc<OnceLock<ActiveInstant>>>,
}

/// What a request is to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestRole {
    /// The client's own request.
    Whole,
    /// The first of the calls that are made for a translated request.
    FirstCall,
    /// Another one, which is not charged as a request.
    LaterCall,
}

/// Which models can read a request as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestReaders {
    /// The id of the only model that can; `None` if others can too.
    only: Option<String>,
    /// Whether only rerankers can whose llama-server gives the scores of all documents at once.
    has_all_documents: bool,
    /// Whether models can whose llama-server gives the vectors of all tokens, for their heads.
    takes_token_vectors: bool,
}

impl RequestReaders {
    /// Returns the readers of a request for this model, before anything else is known of it.
    pub(crate) fn of_any(model: &ModelInfo) -> Self {
        Self { only: None, has_all_documents: false, takes_token_vectors: model.heads.is_some() }
    }

    /// Returns whether this model is one of them.
    pub(crate) fn has(&self, model: &ModelInfo) -> bool {
        self.only.as_ref().is_none_or(|id| *id == model.id)
            && (!self.has_all_documents || model.yes_no.is_none())
            && (self.takes_token_vectors || model.heads.is_none())
    }
}

impl ProxiedRequest {
    /// Returns whether the request is charged to the requests a minute of its key. One that needs no slot costs little: it
    /// waits its turn, and is not charged.
    pub(crate) fn is_charged(&self) -> bool {
        self.route.needs_slot && self.role != RequestRole::LaterCall
    }

    /// Returns the fingerprint of route and body, if the request needs a slot.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        // A call to a tokenizer has the body's for the client's own route, which may need one.
        self.body.fingerprint().filter(|_| self.route.needs_slot)
    }

    /// Refuses a body that the gateway cannot read, because a backend might find another model in it. The only
    /// exception is a gateway with a single local model.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if the body is not readable and the exception does not apply.
    pub(crate) fn check_readable(&self, table: &Snapshot) -> Result<(), Refusal> {
        let is_local =
            |model_queue: &Arc<ModelQueue>| model_queue.model.members().all(|member| member.kind == WorkerKind::Local);
        match self.envelope.is_readable() || !self.route.is_post() || table.only().is_some_and(is_local) {
            true => Ok(()),
            false => Err(Refusal::bad_request(self.envelope.unreadable_reason())),
        }
    }

    /// Refuses a request for more answers than a llama-server of the model has slots. llama-server would refuse it too,
    /// without the name of the setting.
    ///
    /// # Errors
    /// [`Refusal::InvalidParameter`].
    pub(crate) fn check_answers_wanted(&self, model: &ModelInfo) -> Result<(), Refusal> {
        let wanted = || self.envelope.answers_wanted(&self.body);
        match model.slots.filter(|_| self.route.may_stream).zip(wanted()) {
            Some((slots, wanted)) if wanted > slots => Err(Refusal::InvalidParameter {
                field: "n".to_owned(),
                message: format!(
                    "n is {wanted}, and each llama-server of this model has slots for {slots}: PARALLEL sets that number"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Checks that the request can be served with this adapter of a model, if it asks for one.
    ///
    /// # Errors
    /// [`Refusal::InvalidParameter`].
    pub(crate) fn check_adapter(&self, model: &ModelInfo, adapter: Option<&str>) -> Result<(), Refusal> {
        let check = |adapter| adapters::check_adapter(self.route, (&self.envelope, &self.body), model, adapter);
        adapter.map_or(Ok(()), check)
    }

    /// Returns whether the request itself says which adapters count, by their numbers.
    pub(crate) fn names_adapters(&self) -> bool {
        adapters::names_adapters(&self.envelope, &self.body)
    }

    /// Returns whether another model may serve the request with one of its adapters.
    pub(crate) fn may_take_adapter(&self) -> bool {
        takes_lora(self.route) && !self.names_adapters()
    }

    /// Makes a refusal for a missing model name more precise: says that `model` must be a string, or that the query is
    /// the place for the name. Returns any other refusal as it is.
    pub(crate) fn explain_refusal(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::ModelNotFound { name: None, .. } if self.envelope.has_invalid_model() => {
                Refusal::bad_request("model must be a string")
            }
            Refusal::ModelNotFound { name: None, known, .. } if !self.route.is_post() => {
                Refusal::ModelNotFound { name: None, known, in_query: true }
            }
            other => other,
        }
    }

    /// Returns which models can read the request, as it is written for this one.
    pub(crate) fn readers(&self, model: &ModelInfo) -> RequestReaders {
        let is_for_rerankers = self.required_kind == Some(ModelKind::Rerank) && self.route.needs_slot;
        RequestReaders {
            only: self.only_model.clone(),
            has_all_documents: self.only_model.is_none() && is_for_rerankers && self.role != RequestRole::Whole,
            takes_token_vectors: model.heads.is_some(),
        }
    }

    /// Returns whether a worker has to run inference for this request or only to read something.
    pub(crate) fn request_class(&self) -> RequestClass {
        if self.route.is_post() { RequestClass::Inference(self.fingerprint()) } else { RequestClass::ReadOnly }
    }

    /// Returns the hashes by which the fleet recognises a worker that has served the same prompt prefix, or the same
    /// session, for the same key; the session comes last, and so first. Empty unless the model's strategy is prefix affinity.
    pub(crate) fn affinity(&self, model: &Model, seed: &RandomState, key_id: Option<&str>) -> Vec<u64> {
        match model.policy().strategy {
            Strategy::PrefixAffinity => {
                let key_id = key_id.unwrap_or_default();
                let mut hashes = self.envelope.prefix_hashes(&self.body, seed, key_id);
                let session = session::of_request(&self.envelope, &self.body, &self.parts.headers);
                hashes.extend(session.map(|session| seed.hash_one((key_id, "session", session))));
                hashes
            }
            _ => Vec::new(),
        }
    }

    /// Returns the route by which this worker is asked.
    fn route_at(&self, lease: &Lease) -> &'static Route {
        if lease.endpoint().target.is_remote { self.route.at_remote() } else { self.route }
    }

    /// Returns the numbers of the workers of this model that have not the `adapter` that the request asks for, or whose API
    /// has nothing for the request, and the refusal of the first of them; `None` if each worker may be asked.
    pub(crate) fn unfit_workers(&self, model: &Model, adapter: Option<&str>) -> Option<(Vec<u32>, Refusal)> {
        if adapter.is_some() {
            return adapters::workers_without_adapters(model);
        }
        if !model.has_other_apis() {
            return None;
        }
        let mut apis: Vec<(BackendApi, bool)> = Vec::new();
        let (mut unfit, mut refusal) = (Vec::new(), None);
        for member in model.members() {
            let is_fit = match apis.iter().find(|(api, _)| *api == member.api) {
                Some((_, is_fit)) => *is_fit,
                None => {
                    let checked = self.check_api(member.api);
                    apis.push((member.api, checked.is_ok()));
                    checked.inspect_err(|refused| _ = refusal.get_or_insert_with(|| refused.clone())).is_ok()
                }
            };
            if !is_fit {
                unfit.push(member.number);
            }
        }
        refusal.map(|refusal| (unfit, refusal))
    }

    /// Checks that a worker with this API can be asked.
    ///
    /// # Errors
    /// Its API has no such route, or cannot express what the request asks for.
    fn check_api(&self, api: BackendApi) -> Result<(), Refusal> {
        match &self.call {
            Some(call) => call.writer.check_api(api),
            None if api.is_openai() => Ok(()),
            None => Err(route_not_in(api, self.route.canonical)),
        }
    }

    /// Writes the body for this worker, if it depends on the worker.
    ///
    /// # Errors
    /// As [`Self::check_api`].
    pub(crate) async fn write_for(&mut self, model: &Model, lease: &Lease) -> Result<(), Refusal> {
        let api = lease.member().api;
        let Some(call) = &mut self.call else { return self.check_api(api) };
        let info = model.info();
        let name = name_at_worker(&info, lease, self.requested_model.as_deref());
        if let Some(text) = call.write_for(api, &name)? {
            self.body = self.body.with_pieces([Bytes::from(text)].into());
            self.envelope = Box::pin(Envelope::of_json(&self.body)).await?;
        }
        Ok(())
    }

    /// Returns the path by which a remote backend is asked, if it depends on its API.
    pub(crate) fn path_at_remote(&self) -> Option<&'static str> {
        self.call.as_ref().and_then(WorkerCall::path)
    }

    /// Returns the request in its form for this worker, for this adapter of the model. The last attempt takes the body
    /// instead of copying it. `limits_tokens` says whether the caller's tokens are limited.
    pub(crate) fn adapt_to_worker(
        &mut self,
        model: &Model,
        adapter: Option<&str>,
        lease: &Lease,
        limits_tokens: bool,
        is_last: bool,
    ) -> AdaptedRequest {
        let (policy, info) = (model.policy(), model.info());
        let client_name = self.requested_model.as_deref().unwrap_or(model.id());
        let target = &lease.endpoint().target;
        let worker_name = name_at_worker(&info, lease, self.requested_model.as_deref());
        // A local llama-server has one model, and calls it in its response by the id, or by the name in the body, even if
        // that is empty. A remote backend may use any name in its response, such as the path of the model's file.
        let is_local = lease.member().kind == WorkerKind::Local;
        let is_named_so = |name: &str| name == client_name;
        let is_right = is_local && is_named_so(&worker_name) && self.envelope.model().is_none_or(is_named_so);
        let name = (!is_right).then(|| client_name.to_owned());
        // The body may name another model than the request means: a path may name it too.
        // text-embeddings-inference has one model, and no member for its name.
        let names_model = lease.member().api != BackendApi::Tei;
        let is_renamed = !is_local && names_model && self.envelope.model() != Some(&*worker_name);
        // llama-server reports its tokens unasked; others only where they are asked to.
        let is_asked_for_usage = !is_local
            && self.route_at(lease).stream_end == StreamEnd::Done
            && self.envelope.stream() == Some(true)
            && (limits_tokens || lease.member().limits_tokens());
        let strip = &policy.rewrite.strip_params;
        let stream_options =
            is_asked_for_usage.then(|| stream_options_with_usage(&self.body, &self.envelope, strip)).flatten();
        let needs_format = is_local && self.route.stream_end == StreamEnd::ResponseDone;
        let response_format =
            needs_format.then(|| response_format::of_text_format(&self.body, &self.envelope)).flatten();
        let selects_adapters = is_local && takes_lora(self.route) && !info.adapters.members(adapter).is_empty();
        // An empty list would leave the choice to llama-server, which keeps what another one has computed.
        let without_lora = (selects_adapters && adapters::has_empty_lora(&self.envelope, &self.body))
            .then(|| strip.iter().cloned().chain([LORA.to_owned()]).collect::<Vec<String>>());
        let own_fields: &[(String, String)] =
            if selects_adapters { info.adapters.members(adapter) } else { &target.fields };
        let edit = Edit {
            model: (is_renamed && self.route.is_post()).then_some(&*worker_name),
            defaults: if self.route.needs_slot { [own_fields, &policy.rewrite.sampling] } else { [&[], &[]] },
            is_generation: self.route.may_stream,
            strip: without_lora.as_ref().unwrap_or(strip),
            stream_options: stream_options.as_deref(),
            response_format: response_format.as_deref(),
            renames: if is_local && self.route.at_llama_server().is_some() { &INFILL_NAMES } else { &[] },
        };
        let defaults = edit.defaults.iter().flat_map(|list| list.iter());
        let facts = AnswerFacts::read(self.route, &self.envelope, &self.body, client_name, defaults);
        let body = match (edit.is_empty(), is_last) {
            (false, _) => rewrite_body(&self.body, &self.envelope, &edit),
            (true, false) => self.body.duplicate(),
            (true, true) => std::mem::take(&mut self.body),
        };
        AdaptedRequest { client_model_name: name, hides_usage: stream_options.is_some(), facts, body }
    }
}

/// Returns the name by which a worker knows the model that the client calls so.
fn name_at_worker<'a>(model: &'a ModelInfo, lease: &'a Lease, requested: Option<&str>) -> Cow<'a, str> {
    let target = &lease.endpoint().target;
    match &model.pattern {
        Some(pattern) => Cow::Owned(pattern.fill(target.model.as_deref(), requested.unwrap_or(&model.id))),
        None => Cow::Borrowed(target.model.as_deref().unwrap_or(&model.id)),
    }
}

/// Returns the refusal of a request for a path that is none of this API.
pub(crate) fn route_not_in(api: BackendApi, path: &str) -> Refusal {
    Refusal::RouteNotAtBackend(Some(format!("{path} is not in the API of {}", api.owner())))
}

/// A request in its form for one worker.
pub(crate) struct AdaptedRequest {
    pub(crate) body: RequestBody,
    /// The model's name that the response must show, if the worker may use another.
    pub(crate) client_model_name: Option<String>,
    /// Whether the worker was asked for token counts that the client has not asked for.
    pub(crate) hides_usage: bool,
    /// What the request says about its answer.
    pub(crate) facts: AnswerFacts,
}

/// Returns the model that a request names in its body, or in the query if the method is not POST.
///
/// # Errors
/// [`Refusal::BadRequest`] if the query names two models, or one that is not text.
pub(crate) fn requested_model(envelope: &Envelope, parts: &Parts) -> Result<Option<Arc<str>>, Refusal> {
    match (envelope.shared_model(), parts.uri.query()) {
        (Some(model), _) => Ok(Some(Arc::clone(model))),
        (None, Some(query)) if parts.method != Method::POST => Ok(envelope::model_of_query(query)?.map(Arc::from)),
        (None, _) => Ok(None),
    }
}
