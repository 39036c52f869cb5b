//! The routes about models themselves: listing the models that a caller may see, and loading or unloading one.
//!
//! Everything is answered from memory, so listing models never wakes one.
//!
//! - `ollama.rs`: what Ollama's clients read about models

mod ollama;

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::admission::auth::Caller;
use super::queue::ModelQueue;
use super::queue::model_queues::Snapshot;
use super::request::envelope::query_pairs;
use super::routes::route::ModelsRoute;
use super::translation::shared::TranslationLimits;
use super::translation::tei_info;
use crate::fleet::{Model, Pin, WorkerState};
use crate::models::InputModality;
use crate::refusal::Refusal;

/// What the model list needs beside the models.
pub(super) struct ModelsApi {
    /// When every model was created: when the service started.
    created: Timestamp,
    /// `LIST_ALIASES`
    lists_aliases: bool,
    limits: TranslationLimits,
}

impl ModelsApi {
    /// Creates the API; its models count as created now.
    pub(super) fn new(lists_aliases: bool, limits: TranslationLimits) -> Self {
        Self { created: Timestamp::now(), lists_aliases, limits }
    }

    /// Returns the response to this caller. `name` is the model that the request names, if the route has one; `query` is
    /// the query of the request.
    ///
    /// # Errors
    /// A refusal if there is no such model, or if the caller may not use it, or if a remote model is to be loaded or
    /// unloaded, or if the query asks for no part of the list.
    pub(super) fn respond(
        &self,
        route: ModelsRoute,
        name: &str,
        query: &str,
        caller: &Caller,
        table: &Snapshot,
    ) -> Result<Response<Bytes>, Refusal> {
        let ok = |body: Value| Ok(json_response(StatusCode::OK, &body));
        let accepted = |body: Value| Ok(json_response(StatusCode::ACCEPTED, &body));
        match route {
            ModelsRoute::All => {
                let entries = table.names_shown_to(caller).flat_map(|(model, adapter)| match adapter {
                    Some(adapter) => vec![self.adapter_entry(model, &model.info().id_with(&adapter))],
                    None => self.entries(model),
                });
                let entries = entries.collect();
                ok(model_list(Page::of_query(query)?.select(entries)?))
            }
            ModelsRoute::TeiInfo => ok(json!(tei_info::describe(query, caller, table, self.limits)?)),
            ModelsRoute::Of(kind) => {
                let of_kind = table.names_shown_to(caller).filter(|(model, _)| model.info().kind == kind);
                ok(of_kind.map(|(model, adapter)| plain_model_entry(model, adapter.as_deref())).collect())
            }
            ModelsRoute::One => {
                let by_pattern = || table.find_by_pattern(name, caller);
                match table.find(name).map_or_else(by_pattern, |_| None) {
                    Some(found) => ok(self.entry_as(&found.model, name)),
                    None => {
                        let model = &find_model(name, caller, table)?.model;
                        let adapter = model.info().adapter_in(name).map(|adapter| model.info().id_with(adapter));
                        ok(adapter.map_or_else(|| self.entry(model), |id| self.adapter_entry(model, &id)))
                    }
                }
            }
            ModelsRoute::Load => {
                let model = find_local_model(name, caller, table)?;
                accepted(json!({"id": model.id(), "state": model.wake()}))
            }
            ModelsRoute::Unload => {
                let model = find_local_model(name, caller, table)?;
                accepted(json!({"id": model.id(), "state": model.unload()}))
            }
            ModelsRoute::Pin => ok(pinned(find_local_model(name, caller, table)?, Pin::Ordered)),
            ModelsRoute::Unpin => ok(pinned(find_local_model(name, caller, table)?, Pin::Off)),
            ModelsRoute::Ollama(route) => ollama::respond(route, name, caller, table, self.created)
                .map(|body| json_response(StatusCode::OK, &body)),
            // llama.cpp's router answers these with 200 and `success`.
            ModelsRoute::LoadNamed => {
                let model = find_local_model(name, caller, table)?;
                ok(json!({"success": true, "id": model.id(), "state": model.wake()}))
            }
            ModelsRoute::UnloadNamed => {
                let model = find_local_model(name, caller, table)?;
                ok(json!({"success": true, "id": model.id(), "state": model.unload()}))
            }
        }
    }

    /// Returns the entry of a model, and with `LIST_ALIASES` one for each of its aliases.
    fn entries(&self, model: &Model) -> Vec<Value> {
        let entry = self.entry(model);
        let mut entries = vec![entry];
        if self.lists_aliases {
            let info = model.info();
            entries.extend(info.aliases.iter().map(|alias| self.entry_as(model, alias)));
        }
        entries
    }

    /// Returns a model under another of its names.
    fn entry_as(&self, model: &Model, name: &str) -> Value {
        let mut entry = self.entry(model);
        (entry["id"], entry["display_name"], entry["root"]) = (json!(name), json!(name), json!(model.id()));
        entry
    }

    /// Returns a model with one of its adapters, as vLLM shows one.
    fn adapter_entry(&self, model: &Model, id: &str) -> Value {
        let mut entry = self.entry_as(model, id);
        entry["parent"] = json!(model.id());
        (entry["aliases"], entry["meta"]["aliases"]) = (json!([]), json!([]));
        entry
    }

    /// Returns a model as OpenAI's, Anthropic's, llama.cpp's and vLLM's clients read it; each knows some members.
    fn entry(&self, model: &Model) -> Value {
        let info = model.info();
        // Every model reads text, also one whose file is not here.
        let inputs = if info.input_modalities.is_empty() { &[InputModality::Text] } else { &info.input_modalities[..] };
        let numbers = info.numbers.as_ref();
        let mut entry = json!({
            "id": info.id,
            "object": "model",
            "created": self.created.as_second(),
            "owned_by": "llamagate",
            "type": "model",
            "display_name": info.id,
            "created_at": format!("{:.0}", self.created),
            "aliases": info.aliases,
            "tags": info.tier.as_slice(),
            "status": {"value": load_status(model.load_state())},
            "architecture": {"input_modalities": inputs, "output_modalities": ["text"]},
            "max_model_len": info.context_length,
            "meta": {
                "kind": info.kind,
                "tier": info.tier,
                "aliases": info.aliases,
                "state": model.state(),
                "pin": model.pin(),
                "context_length": info.context_length,
                "quantization": info.quantization,
                "size_bytes": info.size_bytes,
                "architecture": info.architecture,
                "chat_template": info.has_chat_template,
                "n_ctx": info.context_length,
                "n_ctx_train": numbers.and_then(|numbers| numbers.n_ctx_train),
                "n_embd": numbers.and_then(|numbers| numbers.n_embd),
                "n_vocab": numbers.and_then(|numbers| numbers.n_vocab),
                "vocab_type": numbers.and_then(|numbers| numbers.vocab_type),
                "n_params": numbers.map(|numbers| numbers.n_params),
                "size": numbers.map(|numbers| numbers.size),
                "ftype": numbers.and(info.quantization.as_ref()),
            },
        });
        remove_nulls(&mut entry);
        remove_nulls(&mut entry["meta"]);
        entry
    }
}

/// Pins a model or lets it go, and returns what has become of it.
fn pinned(model: &Model, pin: Pin) -> Value {
    model.set_pin(pin);
    json!({"id": model.id(), "state": model.state(), "pin": pin})
}

/// Returns the state of a model in the words of llama.cpp's router.
fn load_status(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Ready | WorkerState::Unhealthy => "loaded",
        // A model in backoff is started again by itself.
        WorkerState::Starting | WorkerState::Loading | WorkerState::Backoff => "loading",
        WorkerState::Stopped | WorkerState::Draining => "unloaded",
        WorkerState::Failed => "failed",
    }
}

/// Removes the members of an object that are `null`: what is not known is left out.
fn remove_nulls(object: &mut Value) {
    if let Value::Object(members) = object {
        members.retain(|_, value| !value.is_null());
    }
}

/// Returns the list of these entries. `models` is for llama.cpp's clients, the members about pages are Anthropic's.
fn model_list((entries, has_more): (Vec<Value>, bool)) -> Value {
    let models: Vec<Value> = entries.iter().map(llama_cpp_entry).collect();
    let id_of = |entry: Option<&Value>| entry.map_or(Value::Null, |entry| entry["id"].clone());
    let (first_id, last_id) = (id_of(entries.first()), id_of(entries.last()));
    let mut list = json!({
        "object": "list", "data": entries, "models": models,
        "has_more": has_more, "first_id": first_id, "last_id": last_id,
    });
    remove_nulls(&mut list);
    list
}

/// Returns an entry with the members that llama-server has in `models`.
fn llama_cpp_entry(entry: &Value) -> Value {
    let mut entry = entry.clone();
    let reads_more = entry["architecture"]["input_modalities"].as_array().is_some_and(|inputs| inputs.len() > 1);
    let capability = match entry["meta"]["kind"].as_str() {
        Some("chat") | None => "completion",
        Some(kind) => kind,
    };
    let capabilities = if reads_more { json!([capability, "multimodal"]) } else { json!([capability]) };
    for name in ["slug", "name", "model"] {
        entry[name] = entry["id"].clone();
    }
    entry["capabilities"] = capabilities;
    entry
}

/// The part of the list that a client of Anthropic's API asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    limit: Option<NonZeroUsize>,
    after_id: Option<String>,
    before_id: Option<String>,
}

impl Page {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if `limit` is not a number above 0.
    fn of_query(query: &str) -> Result<Self, Refusal> {
        let mut page = Self::default();
        for (name, value) in query_pairs(Some(query)) {
            match &*name {
                "limit" => {
                    let limit = value.parse();
                    page.limit = Some(limit.map_err(|_| Refusal::bad_request("limit is not a number above 0"))?);
                }
                "after_id" => page.after_id = Some(value),
                "before_id" => page.before_id = Some(value),
                _ => {}
            }
        }
        Ok(page)
    }

    /// Returns these entries of the list, and whether there are more in the direction in which the client reads.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if no entry has the id from which the client reads.
    fn select(&self, mut entries: Vec<Value>) -> Result<(Vec<Value>, bool), Refusal> {
        let find = |entries: &[Value], name: &str, id: &str| {
            let found = entries.iter().position(|entry| entry["id"] == id);
            found.ok_or_else(|| Refusal::bad_request(format!("{name} is not the id of a model in this list")))
        };
        if let Some(id) = &self.after_id {
            let at = find(&entries, "after_id", id)?;
            entries.drain(..=at);
        }
        if let Some(id) = &self.before_id {
            let at = find(&entries, "before_id", id)?;
            entries.truncate(at);
        }
        let limit = self.limit.map_or(usize::MAX, NonZeroUsize::get);
        let more = entries.len().saturating_sub(limit);
        match self.before_id {
            Some(_) => drop(entries.drain(..more)),
            None => entries.truncate(limit),
        }
        Ok((entries, more > 0))
    }
}

/// Returns a model as the lists of one kind show it.
fn plain_model_entry(model: &Model, adapter: Option<&str>) -> Value {
    let info = model.info();
    let id = adapter.map_or_else(|| info.id.clone(), |adapter| info.id_with(adapter));
    json!({
        "name": id,
        "id": id,
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
    caller.check_model_as(&model_queue.model.info(), Some(name))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_list_is_what_the_query_asks_for() {
        let ids = ["a", "b/c", "d", "e"];
        let select = |query: &str| {
            let entries = ids.iter().map(|id| json!({"id": id})).collect();
            let (entries, has_more) = Page::of_query(query)?.select(entries)?;
            let ids: Vec<String> = entries.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect();
            Ok::<_, Refusal>((ids.join(" "), has_more))
        };
        for (query, expected, has_more) in [
            ("", "a b/c d e", false),
            ("beta=true", "a b/c d e", false),
            ("limit=1000", "a b/c d e", false),
            ("limit=4", "a b/c d e", false),
            ("limit=3", "a b/c d", true),
            ("limit=1&after_id=b%2Fc", "d", true),
            ("after_id=e", "", false),
            ("before_id=d", "a b/c", false),
            ("before_id=e&limit=2", "b/c d", true),
        ] {
            assert_eq!(select(query), Ok((expected.to_owned(), has_more)), "{query}");
        }
        for query in ["limit=0", "limit=-1", "limit=all", "limit=", "after_id=x", "before_id="] {
            assert!(matches!(select(query), Err(Refusal::BadRequest(_))), "{query}");
        }
    }
}
