//! The routes on models themselves: which there are, as a caller may see them, and to load or unload one.
//!
//! Everything is answered from memory, so nobody wakes a model by asking what there is.

use super::admission::auth::Caller;
use super::queue::model_queues::{Lane, Table};
use super::route::ModelsRoute;
use crate::fleet::{Model, WorkerState};
use crate::refusal::Refusal;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// What does not change of the list as long as the service runs.
pub(super) struct Catalogue {
    /// Seconds since 1970: the models are as old as the service.
    created: i64,
}

impl Catalogue {
    /// A list of models that are there from now on.
    pub(super) fn begin() -> Self {
        Self { created: jiff::Timestamp::now().as_second() }
    }

    /// The answer to this caller; `name` is that of the model which the path names.
    pub(super) fn answer(
        &self,
        question: ModelsRoute,
        name: &str,
        caller: &Caller,
        table: &Table,
    ) -> Result<Response<Bytes>, Refusal> {
        let shown = || table.models_shown_to(caller);
        let ok = |body: Value| Ok(answer(StatusCode::OK, &body));
        match question {
            ModelsRoute::All => {
                let entries: Vec<Value> = shown().map(|model| self.entry(model)).collect();
                ok(json!({"object": "list", "data": entries}))
            }
            ModelsRoute::Of(kind) => ok(shown().filter(|model| model.info().kind == kind).map(row).collect()),
            ModelsRoute::One => ok(self.entry(&named(name, caller, table)?.model)),
            ModelsRoute::Load => {
                let model = startable(name, caller, table)?;
                Ok(answer(StatusCode::ACCEPTED, &json!({"id": model.id(), "state": model.wake()})))
            }
            ModelsRoute::Unload => {
                let model = startable(name, caller, table)?;
                Ok(answer(StatusCode::ACCEPTED, &json!({"id": model.id(), "state": model.unload()})))
            }
        }
    }

    fn entry(&self, model: &Model) -> Value {
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
fn row(model: &Model) -> Value {
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
fn named<'a>(name: &str, caller: &Caller, table: &'a Table) -> Result<&'a Arc<Lane>, Refusal> {
    let lane = table.named(name).ok_or_else(|| table.model_not_found(Some(name), caller))?;
    caller.may_use(&lane.model.info())?;
    Ok(lane)
}

/// The same model, unless nobody here can start or stop it.
fn startable<'a>(name: &str, caller: &Caller, table: &'a Table) -> Result<&'a Model, Refusal> {
    let model = &named(name, caller, table)?.model;
    match model.is_remote() {
        true => Err(Refusal::bad_request("the model is served by remote backends only")),
        false => Ok(model),
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
