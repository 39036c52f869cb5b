//! The routes on models themselves: which there are, as a caller may see them, and to load or unload one.
//!
//! Everything is answered from memory, so nobody wakes a model by asking what there is.

use super::admission::auth::Caller;
use super::queue::model_queues::{ModelQueue, Snapshot};
use super::route::ModelsRoute;
use crate::fleet::{Model, WorkerState};
use crate::refusal::Refusal;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// What does not change of the list as long as the service runs.
pub(super) struct ModelsApi {
    /// Seconds since 1970: the models are as old as the service.
    created: i64,
}

impl ModelsApi {
    /// A list of models that are there from now on.
    pub(super) fn new() -> Self {
        Self { created: jiff::Timestamp::now().as_second() }
    }

    /// The answer to this caller; `name` is that of the model which the path names.
    pub(super) fn respond(
        &self,
        question: ModelsRoute,
        name: &str,
        caller: &Caller,
        table: &Snapshot,
    ) -> Result<Response<Bytes>, Refusal> {
        let shown = || table.models_shown_to(caller);
        let ok = |body: Value| Ok(json_response(StatusCode::OK, &body));
        match question {
            ModelsRoute::All => {
                let entries: Vec<Value> = shown().map(|model| self.model_entry(model)).collect();
                ok(json!({"object": "list", "data": entries}))
            }
            ModelsRoute::Of(kind) => {
                ok(shown().filter(|model| model.info().kind == kind).map(plain_model_entry).collect())
            }
            ModelsRoute::One => ok(self.model_entry(&find_model(name, caller, table)?.model)),
            ModelsRoute::Load => {
                let model = find_local_model(name, caller, table)?;
                Ok(json_response(StatusCode::ACCEPTED, &json!({"id": model.id(), "state": model.wake()})))
            }
            ModelsRoute::Unload => {
                let model = find_local_model(name, caller, table)?;
                Ok(json_response(StatusCode::ACCEPTED, &json!({"id": model.id(), "state": model.unload()})))
            }
        }
    }

    fn model_entry(&self, model: &Model) -> Value {
        let card = model.info();
        json!({
            "id": card.id,
            "object": "model",
            "created": self.created,
            "owned_by": "llamagate",
            "meta": {
                "kind": card.kind,
                "tier": card.tier,
                "aliases": card.aliases,
                "state": model.state(),
                "context_length": card.context_length,
                "quantization": card.quantization,
                "size_bytes": card.size_bytes,
                "architecture": card.architecture,
                "chat_template": card.has_chat_template,
            },
        })
    }
}

/// A model in the plain arrays.
fn plain_model_entry(model: &Model) -> Value {
    let card = model.info();
    json!({
        "name": card.id,
        "id": card.id,
        "kind": card.kind,
        "tier": card.tier,
        "size_bytes": card.size_bytes,
        "context_length": card.context_length,
        "quantization": card.quantization,
        "loaded": model.state() == WorkerState::Ready,
    })
}

/// The model of this name, if the caller may use it.
fn find_model<'a>(name: &str, caller: &Caller, table: &'a Snapshot) -> Result<&'a Arc<ModelQueue>, Refusal> {
    let lane = table.find(name).ok_or_else(|| table.model_not_found(Some(name), caller))?;
    caller.check_model(&lane.model.info())?;
    Ok(lane)
}

/// The same model, unless nobody here can start or stop it.
fn find_local_model<'a>(name: &str, caller: &Caller, table: &'a Snapshot) -> Result<&'a Model, Refusal> {
    let model = &find_model(name, caller, table)?.model;
    match model.is_remote() {
        true => Err(Refusal::bad_request("the model is served by remote backends only")),
        false => Ok(model),
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
