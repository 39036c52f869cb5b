//! The routes about models themselves: listing the models that a caller may see, and loading or unloading one.
//!
//! Everything is answered from memory, so listing models never wakes one.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::admission::auth::Caller;
use super::queue::model_queues::{ModelQueue, Snapshot};
use super::route::ModelsRoute;
use crate::fleet::{Model, WorkerState};
use crate::refusal::Refusal;

/// The part of the model list that does not change while the service runs.
pub(super) struct ModelsApi {
    /// The `created` of every model, in seconds since 1970: when the service started.
    created: i64,
}

impl ModelsApi {
    /// Creates the API; its models count as created now.
    pub(super) fn new() -> Self {
        Self { created: jiff::Timestamp::now().as_second() }
    }

    /// Returns the response to this caller. `name` is the model that the path names, if the route has one.
    ///
    /// # Errors
    /// A refusal if there is no such model, or if the caller may not use it, or if a remote model is to be loaded or
    /// unloaded.
    pub(super) fn respond(
        &self,
        route: ModelsRoute,
        name: &str,
        caller: &Caller,
        table: &Snapshot,
    ) -> Result<Response<Bytes>, Refusal> {
        let listed = || table.models_shown_to(caller);
        let ok = |body: Value| Ok(json_response(StatusCode::OK, &body));
        match route {
            ModelsRoute::All => {
                let entries: Vec<Value> = listed().map(|model| self.model_entry(model)).collect();
                ok(json!({"object": "list", "data": entries}))
            }
            ModelsRoute::Of(kind) => {
                ok(listed().filter(|model| model.info().kind == kind).map(plain_model_entry).collect())
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
        let info = model.info();
        json!({
            "id": info.id,
            "object": "model",
            "created": self.created,
            "owned_by": "llamagate",
            "meta": {
                "kind": info.kind,
                "tier": info.tier,
                "aliases": info.aliases,
                "state": model.state(),
                "context_length": info.context_length,
                "quantization": info.quantization,
                "size_bytes": info.size_bytes,
                "architecture": info.architecture,
                "chat_template": info.has_chat_template,
            },
        })
    }
}

/// Returns a model as the lists of one kind show it.
fn plain_model_entry(model: &Model) -> Value {
    let info = model.info();
    json!({
        "name": info.id,
        "id": info.id,
        "kind": info.kind,
        "tier": info.tier,
        "size_bytes": info.size_bytes,
        "context_length": info.context_length,
        "quantization": info.quantization,
        "loaded": model.state() == WorkerState::Ready,
    })
}

/// Returns the queue of the model with this name, if the caller may use that model.
fn find_model<'a>(name: &str, caller: &Caller, table: &'a Snapshot) -> Result<&'a Arc<ModelQueue>, Refusal> {
    let model_queue = table.find(name).ok_or_else(|| table.model_not_found(Some(name), caller))?;
    caller.check_model(&model_queue.model.info())?;
    Ok(model_queue)
}

/// Returns the model with this name, if the gateway can start and stop it: remote backends are run by others.
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
