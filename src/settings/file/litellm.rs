//! Reads `model_list:` of the configuration file, in LiteLLM's format.
//!
//! Owns single entries: each is a remote backend, or names a local model. `merge/mod.rs` decides which of the two an
//! entry without `api_base` is, and which entries describe the same model. `params.rs` reads `litellm_params`.

use std::num::{NonZeroU32, NonZeroUsize};

use super::fields::NodeFields;
use super::known::{ENTRY, FOREIGN, MODES};
use super::models::{check_name, check_path, check_tier};
use super::node::YamlNode;
use super::params::{Backend, Params, References};
use crate::models::ModelKind;
use crate::settings::catalogue::RemoteSettings;
use crate::settings::notes::{FileNotes, LeftOutReason};
use crate::settings::values::{BackendApi, Weight};

/// One entry of `model_list`.
#[derive(Debug, Clone)]
pub(in crate::settings) struct ModelListEntry {
    /// The location of the entry, such as `model_list[0]`.
    pub(in crate::settings) location: String,
    /// `model_name`.
    pub(in crate::settings) name: String,
    /// `litellm_params.model`, including the provider.
    pub(in crate::settings) model: Option<String>,
    pub(in crate::settings) backend: Backend,
    pub(in crate::settings) kind: Option<ModelKind>,
    pub(in crate::settings) tier: Option<String>,
    pub(in crate::settings) weight: Option<f64>,
    /// `priority` of the entry.
    pub(in crate::settings) priority: Option<u32>,
    /// `litellm_params.order`, which ranks the backends of one model.
    pub(in crate::settings) order: Option<u32>,
    /// Names and JSON values of fields that are added to requests.
    pub(in crate::settings) fields: Vec<(String, Option<String>)>,
}

/// Returns the entries in order. `locations` are those of the items, which may come from several files.
pub(super) fn entries(
    node: &YamlNode,
    locations: &[String],
    slots: Option<NonZeroUsize>,
    references: &References<'_>,
    notes: &mut FileNotes,
) -> Vec<ModelListEntry> {
    match node {
        YamlNode::Null => Vec::new(),
        YamlNode::List(items) => {
            let located = |(at, item): (usize, &YamlNode)| {
                let location = locations.get(at).cloned().unwrap_or_else(|| format!("model_list[{at}]"));
                entry(location, item, slots, references, notes)
            };
            items.iter().enumerate().filter_map(located).collect()
        }
        _ => {
            notes.problem("model_list", "expected a list of models", None);
            Vec::new()
        }
    }
}

/// Reads one entry; `None` after a problem was recorded.
fn entry(
    location: String,
    node: &YamlNode,
    slots: Option<NonZeroUsize>,
    references: &References<'_>,
    notes: &mut FileNotes,
) -> Option<ModelListEntry> {
    let mut fields = NodeFields::new(location.clone(), node, notes);
    let before = notes.problems.len();
    let name = fields.text("model_name", notes);
    match name.as_deref().map(check_name) {
        Some(Err(fault)) => notes.problem(&fields.at("model_name"), fault, None),
        // If the name has another type, `text` has already recorded a problem.
        None if before == notes.problems.len() && matches!(node, YamlNode::Map(_)) => {
            notes.problem(&fields.at("model_name"), "is missing", None);
        }
        _ => {}
    }
    let weight = fields.value::<Weight>("weight", notes).map(|weight| weight.0);
    let priority: Option<u32> = fields.value("priority", notes);
    let rpm: Option<NonZeroU32> = fields.value("rpm", notes);
    let tpm: Option<NonZeroU32> = fields.value("tpm", notes);
    let api = fields.value::<BackendApi>("api", notes);
    let health = fields.text("health", notes);
    if let Some(fault) = health.as_deref().and_then(|path| check_path(path).err()) {
        notes.problem(&fields.at("health"), fault, None);
    }
    let tier = fields.text("tier", notes);
    if let Some(fault) = tier.as_deref().and_then(|tier| check_tier(tier).err()) {
        notes.problem(&fields.at("tier"), fault, None);
    }
    let (kind, unserved_mode) = kind(&fields.at("model_info"), fields.node("model_info"), notes);

    let params_node = fields.node("litellm_params").unwrap_or(&YamlNode::Null);
    // Notes of their own: if the entry is left out, its `litellm_params` need not be right. Often they refer to
    // variables that are set only where its provider is used.
    let mut own = FileNotes { subject: notes.subject.clone(), ..FileNotes::default() };
    let mut params = Params::new(fields.at("litellm_params"), params_node, references, &mut own);
    let model = params.text("model", &mut own);
    let rpm = params.value("rpm", &mut own).or(rpm);
    let tpm = params.value("tpm", &mut own).or(tpm);
    let slots = params.value("max_parallel_requests", &mut own).or(slots).map(NonZeroUsize::get);
    let provider = params.provider(model.as_deref(), &mut own);
    let is_foreign = provider.as_deref().is_some_and(|provider| FOREIGN.contains(&provider));
    let backend = params.backend(model.as_deref(), provider.as_deref(), api, &mut own);
    let headers = params.headers(&mut own);
    let weight = weight.or(params.value::<Weight>("weight", &mut own).map(|weight| weight.0));
    let order: Option<u32> = params.value("order", &mut own);
    let request_fields = params.request_fields(&mut own);
    let complete = |remote: RemoteSettings| RemoteSettings {
        rpm,
        tpm,
        slots: slots.unwrap_or(remote.slots),
        health: health.clone().unwrap_or(remote.health),
        headers,
        ..remote
    };
    let backend = match params.unset() {
        Some(unset) if !is_foreign => unset.backend(backend, &own),
        _ => backend,
    };
    let backend = match (backend, unserved_mode) {
        (_, Some(mode)) => Backend::LeftOut(LeftOutReason {
            fault: format!("there are no routes for its mode, {mode}"),
            hint: "ask its backend directly".to_owned(),
            is_name_unknown: false,
        }),
        (Backend::Remote(remote), None) => Backend::Remote(complete(remote)),
        (Backend::ByName(Ok(remote)), None) => Backend::ByName(Ok(complete(remote))),
        (other, None) => other,
    };
    if !is_foreign && !matches!(backend, Backend::LeftOut(_)) {
        notes.absorb(own);
    }
    fields.finish(ENTRY, "model_list[]", notes);
    Some(ModelListEntry {
        location,
        name: name?,
        model,
        backend,
        kind,
        tier,
        weight,
        priority,
        order,
        fields: request_fields,
    })
}

/// Returns the kind that `model_info.mode` names, if it names one, and the mode if this gateway has no routes for it.
fn kind(location: &str, node: Option<&YamlNode>, notes: &mut FileNotes) -> (Option<ModelKind>, Option<String>) {
    // `model_info` may contain any keys: LiteLLM passes them on to its clients.
    let Some(YamlNode::Map(entries)) = node else { return (None, None) };
    let mode = entries.iter().find(|(key, _)| key == "mode").and_then(|(_, value)| value.scalar()).unwrap_or_default();
    match mode.as_str() {
        "" => (None, None),
        "chat" | "completion" | "responses" => (Some(ModelKind::Chat), None),
        "embedding" => (Some(ModelKind::Embedding), None),
        "rerank" => (Some(ModelKind::Rerank), None),
        other if MODES.contains(&other) => (None, Some(mode)),
        other => {
            let fault = format!("expected chat, completion, embedding or rerank, found {other:?}");
            notes.problem(&format!("{location}.mode"), fault, None);
            (None, None)
        }
    }
}
